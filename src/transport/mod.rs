//! Byte streams between addresses: TCP, one in memory, later TLS and the simulated network.
//!
//! Everything above encodes its messages whatever runs below, so a test over memory exercises the
//! same bytes as a cluster over TCP.

mod memory;
mod tcp;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub use memory::MemoryTransport;
pub use tcp::{TcpTransport, moved};

/// Makes and takes connections. All of it stays on the thread that asked.
pub trait Transport: fmt::Debug {
    /// Calls `address`.
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>>;

    /// Takes calls at `address`; port 0 picks a free one.
    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>>;
}

/// Takes the connections that others make; dropped, it takes no more.
pub trait Listener: fmt::Debug {
    /// Where others call.
    fn address(&self) -> SocketAddr;

    /// The next caller. Cancel-safe.
    fn accept(&mut self) -> LocalBoxFuture<'_, io::Result<Connection>>;
}

/// Both directions of one connection, apart, because one side reads while it writes. It closes
/// when both are dropped.
pub struct Connection {
    /// The other side's address.
    pub peer: SocketAddr,
    pub reader: Box<dyn AsyncRead + Unpin>,
    pub writer: Box<dyn AsyncWrite + Unpin>,
    /// This side's address, if both ends are on one machine: there, processes may be able to read each
    /// other's memory.
    pub same_host: Option<SocketAddr>,
    /// The same connection, for [`moved`] on another thread; of those that were taken over TCP.
    pub socket: Option<std::net::TcpStream>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}
