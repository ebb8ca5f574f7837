//! Connections of the gRPC server, so many at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, Sleep, sleep};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::service::CONNECTIONS_MAX;

/// The wait before the next connection where the system has no room for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A client that sends nothing for so long is gone, or never meant to speak HTTP/2: one that does
/// answers a ping in every twenty seconds of silence.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A connection, with its place among all.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// When it has been silent for too long.
    silent: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }

    /// Who calls beyond the limit waits in the queue of the system.
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Connection>> {
        unfold(self, async |connections| {
            let place = connections.places.clone().acquire_owned().await.ok()?;
            let stream = connections.accept().await;
            let silent = Box::pin(sleep(SILENCE_MAX));
            Some((Ok(Connection { stream, silent, _place: place }), connections))
        })
    }

    async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Answers are small and whole; a socket that refuses is as good without it.
                    let _ = stream.set_nodelay(true);
                    return stream;
                }
                Err(error) => {
                    warn!(%error, "a gRPC connection could not be taken");
                    sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.peer_addr().ok()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) else {
            ready!(this.silent.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        };
        this.silent.as_mut().reset(Instant::now() + SILENCE_MAX);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
