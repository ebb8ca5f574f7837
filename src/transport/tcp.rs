//! TCP.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::AsyncWrite;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

use super::{Connection, Listener, Transport};

/// Connections of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async move { connection(TcpStream::connect(address).await?, address) }.boxed_local()
    }

    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Box::new(Accepting { listener, address }) as Box<dyn Listener>)
        }
        .boxed_local()
    }
}

#[derive(Debug)]
struct Accepting {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener for Accepting {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async {
            let (stream, peer) = self.listener.accept().await?;
            let socket = stream.as_fd().try_clone_to_owned()?;
            Ok(Connection { socket: Some(socket.into()), ..connection(stream, peer)? })
        }
        .boxed_local()
    }
}

/// A connection that another thread took, on this one's runtime. There, reader and writer must be
/// gone.
///
/// # Errors
/// The system refuses to watch it.
pub fn moved(socket: std::net::TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    connection(TcpStream::from_std(socket)?, peer)
}

fn connection(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    // A reply never waits for an acknowledgement of the one before it: frames are written whole.
    stream.set_nodelay(true)?;
    let own = stream.local_addr()?;
    let same_host = (own.ip() == peer.ip()).then_some(own);
    let (reader, writer) = stream.into_split();
    let writer = Writer(Some(writer));
    let (reader, writer) = (Box::new(reader), Box::new(writer));
    Ok(Connection { peer, reader, writer, same_host, socket: None })
}

/// Ends the connection only together with its reader: tokio's own ends it for all who have it, which
/// may be another thread by now.
struct Writer(Option<OwnedWriteHalf>);

impl Writer {
    fn with<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut OwnedWriteHalf>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.0 {
            Some(half) => poll(Pin::new(half)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(OwnedWriteHalf::forget);
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|half| half.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|half| half.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|half| half.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|half| half.poll_shutdown(cx))
    }
}
