//! A load generator for HTTP/1.1: connections that each send the next request when they have the
//! answer to the one before.
//!
//! On one thread and without a client library, so that most of the machine is left to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout};

use super::row::quantile;

/// An answer that takes longer has failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Headers that an answer may have.
const HEADERS_MAX: usize = 32;
/// A part of each run that is not counted: connections are made, caches filled.
const WARM_UP: f64 = 0.2;

/// What came of a load: all answers are those that were expected, or there is an error in its place.
#[derive(Debug)]
pub(super) struct Answers {
    /// Of each request, rising.
    seconds: Vec<f64>,
    lasted: Duration,
}

impl Answers {
    pub(super) fn rate(&self) -> f64 {
        self.seconds.len() as f64 / self.lasted.as_secs_f64()
    }

    /// In microseconds; 0.5 is the median.
    pub(super) fn quantile(&self, part: f64) -> f64 {
        quantile(&self.seconds, part) * 1e6
    }
}

/// A load that is under way on a thread of its own.
#[derive(Debug)]
pub(super) struct Load {
    end: Arc<AtomicBool>,
    answers: oneshot::Receiver<anyhow::Result<Answers>>,
}

impl Load {
    /// Sends `request` on so many connections until it is told to end.
    pub(super) fn start(address: SocketAddr, request: Bytes, connections: usize) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&end);
        let answers = on_own_thread(move || run(address, request, connections, ends));
        Self { end, answers }
    }

    pub(super) async fn end(self) -> anyhow::Result<Answers> {
        self.end.store(true, Ordering::Relaxed);
        self.answers.await.context("the load generator panicked")?
    }
}

/// Does what clients do beside the service, and tells what came of it.
#[expect(clippy::disallowed_methods, reason = "a client of the service, which is no node")]
pub(super) fn on_own_thread<T, Work>(
    work: impl FnOnce() -> Work + Send + 'static,
) -> oneshot::Receiver<anyhow::Result<T>>
where
    T: Send + 'static,
    Work: Future<Output = anyhow::Result<T>>,
{
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = runtime
            .context("runtime of the load")
            .and_then(|runtime| LocalSet::new().block_on(&runtime, work()));
        drop(tell.send(done));
    });
    told
}

/// The same for a given time.
pub(super) async fn load(
    address: SocketAddr,
    request: &Bytes,
    connections: usize,
    lasts: Duration,
) -> anyhow::Result<Answers> {
    let load = Load::start(address, request.clone(), connections);
    tokio::time::sleep(lasts).await;
    load.end().await
}

async fn run(
    address: SocketAddr,
    request: Bytes,
    connections: usize,
    end: Arc<AtomicBool>,
) -> anyhow::Result<Answers> {
    let started = Instant::now();
    let clients = (0..connections).map(|_| {
        let (request, end) = (request.clone(), Arc::clone(&end));
        tokio::task::spawn_local(async move {
            let mut client = Client::connect(address).await?;
            let mut times = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let asked = Instant::now();
                client.ask(&request).await?;
                times.push((asked, asked.elapsed()));
            }
            anyhow::Ok(times)
        })
    });
    let mut all = Vec::new();
    for client in clients.collect::<Vec<_>>() {
        all.extend(client.await??);
    }
    let lasted = started.elapsed();
    let counted = started + lasted.mul_f64(WARM_UP);
    let of_rest = all.into_iter().filter(|(asked, _)| *asked >= counted);
    let mut seconds: Vec<f64> = of_rest.map(|(_, took)| took.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    Ok(Answers { seconds, lasted: lasted.mul_f64(1.0 - WARM_UP) })
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    read: BytesMut,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("the service can't be reached")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: BytesMut::with_capacity(4096) })
    }

    /// The body of the answer, which has status 200.
    pub(super) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Bytes> {
        let (status, body) = self.exchange(request).await?;
        if status != 200 {
            bail!("a request of the load was refused: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Status and body of the answer.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, Bytes)> {
        self.stream.write_all(request).await?;
        let answer = timeout(ANSWER_MAX, self.answer()).await;
        answer.context("no answer to a request of the load")?
    }

    async fn answer(&mut self) -> anyhow::Result<(u16, Bytes)> {
        loop {
            if let Some((head, body, status)) = self.head()? {
                while self.read.len() < head + body {
                    self.fill().await?;
                }
                self.read.advance(head);
                return Ok((status, self.read.split_to(body).freeze()));
            }
            self.fill().await?;
        }
    }

    /// Lengths of head and body, and the status, once the head is there.
    fn head(&self) -> anyhow::Result<Option<(usize, usize, u16)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(head) = response.parse(&self.read)? else { return Ok(None) };
        let status = response.code.unwrap_or_default();
        let mut headers = response.headers.iter();
        let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.context("an answer without a length")?;
        Ok(Some((head, std::str::from_utf8(length.value)?.parse()?, status)))
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.read).await? == 0 {
            bail!("the service closed a connection of the load");
        }
        Ok(())
    }
}
