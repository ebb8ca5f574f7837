//! Connections as a client has them that does as it pleases: sends a part, reads nothing, is cut.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}: {text:?}", self.status))
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub(super) async fn open_many(address: SocketAddr, count: usize) -> Vec<Self> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(Self::open(address).await);
        }
        all
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.take_answer() {
                return answer;
            }
            let read = self.stream.read_buf(&mut self.read).await.unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Whether there is an answer already.
    pub(super) fn is_answered(&mut self) -> bool {
        let _ = self.stream.try_read_buf(&mut self.read);
        self.take_answer().is_some()
    }

    pub(super) async fn ask(&mut self, request: &[u8]) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// Ends as a process that is gone: with a FIN, or with a reset where `reset`.
    pub(super) fn cut(self, reset: bool) {
        if reset {
            self.stream.set_zero_linger().unwrap();
        }
    }

    fn take_answer(&mut self) -> Option<Answer> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(&self.read).unwrap() else {
            return None;
        };
        let status = response.code.unwrap();
        let header = |name: &str| {
            let found = response.headers.iter().find(|one| one.name.eq_ignore_ascii_case(name));
            found.map(|header| std::str::from_utf8(header.value).unwrap().to_owned())
        };
        let length: usize = header("content-length").unwrap().parse().unwrap();
        let retry_after = header("retry-after");
        let body = self.read.get(head..head + length)?.to_vec();
        self.read.drain(..head + length);
        Some(Answer { status, retry_after, body })
    }
}

/// A request with such a body.
pub(super) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: flood\r\ncontent-length: {length}\r\n\r\n{body}").into()
}
