//! Connections inside one thread, for tests and for a cluster in one process.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;

use super::{Connection, Listener, Transport};

/// What one direction holds, like the socket buffers of a kernel: a writer stalls beyond it.
const PIPE_BYTES: usize = 256 << 10;
/// Callers that wait to be taken; more are refused, like beyond the backlog of a socket.
const BACKLOG: usize = 128;
/// First of the ports that are given out for port 0 and to callers.
const FIRST_EPHEMERAL_PORT: u16 = 49_152;

/// A network of its own; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTransport {
    table: Rc<RefCell<Table>>,
}

/// Empty once its connection is cut.
type End = RefCell<Option<DuplexStream>>;

#[derive(Debug, Default)]
struct Table {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<Connection>>,
    open: Vec<(SocketAddr, [Weak<End>; 2])>,
    cut: BTreeSet<SocketAddr>,
    ephemeral_ports: u16,
}

impl Table {
    fn ephemeral_port(&mut self) -> u16 {
        let port = FIRST_EPHEMERAL_PORT + self.ephemeral_ports;
        self.ephemeral_ports = (self.ephemeral_ports + 1) % (u16::MAX - FIRST_EPHEMERAL_PORT);
        port
    }
}

impl MemoryTransport {
    /// Breaks every connection to the listener at `address` and refuses new ones until
    /// [`MemoryTransport::heal`].
    pub fn cut(&self, address: SocketAddr) {
        let mut table = self.table.borrow_mut();
        table.cut.insert(address);
        let (broken, open) =
            std::mem::take(&mut table.open).into_iter().partition(|(at, _)| *at == address);
        table.open = open;
        drop(table);
        for (_, ends) in broken {
            // Both ends at once: each wakes whoever waits at the other.
            let streams = ends.map(|end| end.upgrade().and_then(|end| end.borrow_mut().take()));
            drop(streams);
        }
    }

    /// Lets new connections through again.
    pub fn heal(&self, address: SocketAddr) {
        self.table.borrow_mut().cut.remove(&address);
    }

    fn call(&self, address: SocketAddr) -> io::Result<Connection> {
        let mut table = self.table.borrow_mut();
        if table.cut.contains(&address) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let caller = SocketAddr::from((Ipv4Addr::LOCALHOST, table.ephemeral_port()));
        let (near, far) = duplex(PIPE_BYTES);
        let [near, far] = [near, far].map(|end| Rc::new(RefCell::new(Some(end))));
        let ends = [Rc::downgrade(&near), Rc::downgrade(&far)];
        let listener = table.listeners.get(&address).ok_or(io::ErrorKind::ConnectionRefused)?;
        listener
            .try_send(connection(far, caller))
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        table.open.retain(|(_, ends)| ends.iter().any(|end| end.strong_count() > 0));
        table.open.push((address, ends));
        Ok(connection(near, address))
    }

    fn take_calls(&self, mut address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let mut table = self.table.borrow_mut();
        if address.port() == 0 {
            address.set_port(table.ephemeral_port());
        }
        if table.listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (calls, waiting) = mpsc::channel(BACKLOG);
        table.listeners.insert(address, calls);
        Ok(Box::new(Accepting { waiting, address }))
    }
}

impl Transport for MemoryTransport {
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async move { self.call(address) }.boxed_local()
    }

    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move { self.take_calls(address) }.boxed_local()
    }
}

#[derive(Debug)]
struct Accepting {
    waiting: mpsc::Receiver<Connection>,
    address: SocketAddr,
}

impl Listener for Accepting {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async {
            // Another listener has taken the address over.
            self.waiting.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
        }
        .boxed_local()
    }
}

fn connection(end: Rc<End>, peer: SocketAddr) -> Connection {
    let half = Half(end);
    let (reader, writer) = (Box::new(half.clone()), Box::new(half));
    Connection { peer, reader, writer, same_host: None, socket: None }
}

/// Reader or writer of one end.
#[derive(Clone, Debug)]
struct Half(Rc<End>);

impl Half {
    fn with_stream<T>(
        &self,
        poll: impl FnOnce(Pin<&mut DuplexStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.0.borrow_mut().as_mut() {
            Some(stream) => poll(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Half {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Half {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with_stream(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_stream(|stream| stream.poll_shutdown(cx))
    }
}
