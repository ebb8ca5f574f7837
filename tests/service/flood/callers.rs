//! Callers as they should not be.

use super::client::{Answer, Connection, post};
use super::{BODY, PANICS, assert_right, gated};
use crate::support::{Server, rows, sentence};

const PICK: &str = "/v2/models/pick/infer";

/// Answers that one caller asks for and doesn't read: more bytes than sockets hold.
const UNREAD: usize = 160;

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, text: &str) {
    let body = answer.json();
    assert_eq!(answer.status, status, "{body}");
    assert!(sentence(&body).contains(text), "{body}");
}

/// The answer of the model's, or of whoever looked for it: again where it is told to come again.
async fn ask_again(server: &Server, request: &[u8]) -> Answer {
    let mut caller = Connection::open(server.address).await;
    loop {
        let answer = caller.ask(request).await;
        if answer.status != 429 {
            return answer;
        }
        assert_eq!(answer.retry_after.as_deref(), Some("1"));
    }
}

/// Requests that are whole and wrong, or at which a model panics: each is told why.
pub(super) async fn refused_as_wrong(server: &Server) {
    let ask = async |request: Vec<u8>| Connection::open(server.address).await.ask(&request).await;
    let large = " ".repeat(BODY + 1);
    let larger = "the body is larger than 65536 bytes; send fewer rows a request";
    assert_refused(&ask(post(PICK, &large)).await, 413, larger);
    assert_refused(&ask(chunked(&large)).await, 413, larger);
    assert_refused(&ask(post(PICK, "{\"inputs\": [")).await, 400, "not an inference request");
    assert_refused(&ask(post(PICK, "\u{0}\u{1}")).await, 400, "not a JSON object");
    // It has a turn as any other, in which its model looks at it.
    let none = post(PICK, "{\"inputs\": []}");
    assert_refused(&ask_again(server, &none).await, 400, "expected one input");
    let unknown = post("/v2/models/none/infer", &rows(&[1.0, 1.0]).to_string());
    assert_refused(&ask_again(server, &unknown).await, 404, "no model \"none\"");
    let panics = post(PICK, &rows(&[PANICS, 1.0]).to_string());
    assert_refused(&ask_again(server, &panics).await, 500, "it panicked: thirteen");
}

/// The same, and some who are gone in the middle of it.
pub(super) async fn wrong_or_cut(server: &Server) {
    let request = gated(50.0);
    let (head, body) = (20, request.len() - 10);
    for reset in [false, true] {
        for until in [0, head, body, request.len()] {
            let mut caller = Connection::open(server.address).await;
            caller.send(&request[..until]).await;
            caller.cut(reset);
        }
    }
    refused_as_wrong(server).await;
}

/// A body whose length is told with each of its parts.
fn chunked(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {PICK} HTTP/1.1\r\nhost: flood\r\ntransfer-encoding: chunked\r\n\r\n");
    format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n").into()
}

/// Callers that take their time.
pub(super) struct Slow {
    /// Have sent the half of a body.
    halves: Vec<Connection>,
    /// The same without a length, which takes the places of a largest body.
    chunks: Connection,
    /// Have sent a part of a head.
    heads: Vec<Connection>,
    /// Have asked a lot and read nothing.
    deaf: Vec<Connection>,
}

impl Slow {
    pub(super) async fn begin(server: &Server) -> Self {
        let open = |count| Connection::open_many(server.address, count);
        let [mut halves, mut heads, mut deaf] = [open(8).await, open(4).await, open(2).await];
        let mut chunks = Connection::open(server.address).await;
        let (whole, in_chunks) = (gated(50.0), chunked(&rows(&[1.0, 2.0]).to_string()));
        for half in &mut halves {
            half.send(&whole[..whole.len() - 20]).await;
        }
        for head in &mut heads {
            head.send(&whole[..20]).await;
        }
        let document = b"GET /gradmesh/openapi.json HTTP/1.1\r\nhost: flood\r\n\r\n";
        for caller in &mut deaf {
            caller.send(&document.repeat(UNREAD)).await;
        }
        chunks.send(&in_chunks[..in_chunks.len() - 20]).await;
        Self { halves, chunks, heads, deaf }
    }

    /// They send or read what was left, and are answered as anybody. Whoever has not even sent a
    /// head is not waited for.
    pub(super) async fn end(mut self) {
        let (whole, in_chunks) = (gated(50.0), chunked(&rows(&[1.0, 2.0]).to_string()));
        for half in &mut self.halves {
            assert_right(50.0, &half.ask(&whole[whole.len() - 20..]).await);
        }
        let answer = self.chunks.ask(&in_chunks[in_chunks.len() - 20..]).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        for caller in &mut self.deaf {
            for _ in 0..UNREAD {
                assert_eq!(caller.answer().await.status, 200);
            }
        }
        self.heads.into_iter().for_each(|head| head.cut(false));
    }
}
