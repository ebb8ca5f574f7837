//! The simulated network behind the transport trait, as one life of a node sees it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::network::{Network, PipeId};
use super::trace::NodeIndex;
use crate::transport::{Connection, Listener, Transport};

#[derive(Clone, Copy, Debug)]
pub(super) struct SimTransport {
    pub(super) node: NodeIndex,
}

impl Transport for SimTransport {
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async move {
            let called = Network::with(|wires| wires.call(self.node, address));
            let called = called.ok_or(io::ErrorKind::NetworkDown)?;
            called.await.unwrap_or_else(|_| Err(io::ErrorKind::NetworkDown.into()))
        }
        .boxed_local()
    }

    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let listening = Network::with(|wires| wires.listen(self.node, address));
            let (address, calls) = listening.ok_or(io::ErrorKind::NetworkDown)??;
            Ok(Box::new(Accepting { address, calls }) as Box<dyn Listener>)
        }
        .boxed_local()
    }
}

#[derive(Debug)]
struct Accepting {
    address: SocketAddr,
    calls: mpsc::Receiver<Connection>,
}

impl Listener for Accepting {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async { self.calls.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) }
            .boxed_local()
    }
}

/// One end, of one life of a node.
pub(super) fn connection(
    node: NodeIndex,
    life: u64,
    peer: SocketAddr,
    reads: PipeId,
    writes: PipeId,
) -> Connection {
    let owner = Owner { node, life };
    Connection {
        peer,
        reader: Box::new(Reader { owner, pipe: reads }),
        writer: Box::new(Writer { owner, pipe: writes }),
        same_host: None,
        socket: None,
    }
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    node: NodeIndex,
    life: u64,
}

impl Owner {
    /// Ends of a life that is over do nothing: no code of a killed node runs, even where its
    /// memory is dropped later.
    fn lives(self) -> bool {
        Network::with(|wires| wires.life(self.node) == self.life).unwrap_or(false)
    }
}

#[derive(Debug)]
struct Reader {
    owner: Owner,
    pipe: PipeId,
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Network::with(|wires| wires.read(self.pipe, buffer, cx.waker())) {
            None => Poll::Ready(Err(io::ErrorKind::NetworkDown.into())),
            Some(None) => Poll::Pending,
            Some(Some(read)) => Poll::Ready(read),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.owner.lives() {
            Network::with(|wires| wires.stop_reading(self.pipe));
        }
    }
}

#[derive(Debug)]
struct Writer {
    owner: Owner,
    pipe: PipeId,
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Network::with(|wires| wires.write(self.pipe, bytes, cx.waker())) {
            None => Poll::Ready(Err(io::ErrorKind::NetworkDown.into())),
            Some(None) => Poll::Pending,
            Some(Some(written)) => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Network::with(|wires| wires.close(self.pipe));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.owner.lives() {
            Network::with(|wires| wires.close(self.pipe));
        }
    }
}
