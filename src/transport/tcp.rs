//! TCP.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
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
    let (reader, writer) = stream.into_split();
    Ok(Connection { peer, reader: Box::new(reader), writer: Box::new(writer), socket: None })
}
