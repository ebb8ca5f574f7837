//! Long bodies between processes of one machine: read from the sender's memory, not sent.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use gradmesh::transport::{Connection, Listener, TcpTransport, Transport};
use gradmesh::wire::{
    Attachment, Class, Frame, FrameError, FrameReader, FrameWriter, Limits, Pulse,
};
use gradmesh_actors::messages::Body;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::support::{DESK, ECHO_MAX, Echo, Server, echo, link};

const VALUES: usize = 1 << 18;

/// What two sides on one machine have said to each other. This process may read itself.
fn attached() -> [Attachment; 2] {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ends = [near, listener.accept().unwrap().0];
    let [caller, callee] = ends
        .each_ref()
        .map(|end| Attachment::new(end.local_addr().unwrap(), end.peer_addr().unwrap()).unwrap());
    let offer = callee.hear(caller.offer().unwrap(), false).unwrap();
    let found = caller.hear(offer, true).unwrap();
    let found = callee.hear(found, false).unwrap();
    assert_eq!(caller.hear(found, true), None);
    [caller, callee]
}

fn frame(request: u64) -> (Frame, Arc<Vec<f32>>) {
    // Bit patterns of all kinds.
    let patterns = (0..VALUES as u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
    let values = Arc::new(patterns.collect::<Vec<_>>());
    let long = Body::F32(Arc::clone(&values));
    let short = Body::F32(Arc::new(vec![0.5; 3]));
    let bodies = vec![short.clone(), long, Body::Bytes(vec![7; 100_000].into()), short];
    let frame = Frame { meta: vec![1, 2, 3], bodies, ..Frame::bare(Class::Request, request) };
    (frame, values)
}

/// A way that keeps what nobody has read.
fn way() -> (FrameWriter<DuplexStream>, FrameReader<DuplexStream>) {
    let (near, far) = duplex(4 << 20);
    let reader = FrameReader::new(far, Limits::TRUSTED, Pulse::new());
    (FrameWriter::new(near, Pulse::new()), reader)
}

fn assert_same_bits(got: &Frame, sent: &Frame) {
    assert_eq!((&got.meta, got.request, got.bodies.len()), (&sent.meta, sent.request, 4));
    for (got, sent) in got.bodies.iter().zip(&sent.bodies) {
        match (got, sent) {
            (Body::F32(got), Body::F32(sent)) => assert!(
                bytemuck::cast_slice::<f32, u32>(got) == bytemuck::cast_slice::<f32, u32>(sent)
            ),
            (got, sent) => assert!(got == sent),
        }
    }
}

#[actix::test]
async fn a_lent_body_arrives_with_the_same_bits_between_others_that_are_sent() {
    let [here, there] = attached();
    let (mut writer, mut reader) = way();
    writer.attach(here.clone());
    reader.attach(there.clone());
    let (sent, values) = frame(1);

    // The second one into memory that the first one had.
    for request in [1, 2] {
        let sent = Frame { request, ..sent.clone() };
        writer.write(&sent).await.unwrap();
        writer.flush().await.unwrap();
        let got = reader.read().await.unwrap().unwrap();
        assert_same_bits(&got, &sent);
        assert!(there.has_read());
        here.release(request);
    }

    drop((sent, writer));
    assert_eq!(Arc::strong_count(&values), 1);
}

#[actix::test]
async fn a_body_that_was_let_go_ends_the_connection_instead_of_being_read() {
    let [here, there] = attached();
    let (mut writer, mut reader) = way();
    writer.attach(here.clone());
    reader.attach(there);
    writer.write(&frame(1).0).await.unwrap();
    writer.flush().await.unwrap();

    // The sender's side of the connection has ended.
    drop((writer, here));

    let read = reader.read().await;
    assert!(matches!(read, Err(FrameError::Io(_))), "{read:?}");
}

#[actix::test]
async fn nobody_reads_memory_who_has_not_asked_for_it() {
    let [here, _there] = attached();
    let (mut writer, mut reader) = way();
    writer.attach(here);
    writer.write(&frame(1).0).await.unwrap();
    writer.flush().await.unwrap();

    let read = reader.read().await;
    assert!(matches!(read, Err(FrameError::BodyKind { index: 1, got: 3 })), "{read:?}");
}

#[actix::test]
async fn an_address_that_is_none_ends_the_connection() {
    let [here, there] = attached();
    let bytes = {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, Pulse::new());
        writer.attach(here.clone());
        let (frame, _) = frame(1);
        let frame = Frame { bodies: vec![frame.bodies[1].clone()], ..frame };
        writer.write(&frame).await.unwrap();
        writer.flush().await.unwrap();
        bytes
    };
    let address = bytes.len() - 12..bytes.len() - 4;
    for lie in [0, 1, u64::MAX, 1 << 63] {
        let mut bytes = bytes.clone();
        bytes[address.clone()].copy_from_slice(&u64::to_le_bytes(lie));
        let end = bytes.len() - 4;
        let sum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
        let mut reader = FrameReader::new(&bytes[..], Limits::TRUSTED, Pulse::new());
        reader.attach(there.clone());
        let read = reader.read().await;
        assert!(matches!(read, Err(FrameError::Io(_))), "{lie:x}: {read:?}");
    }
}

#[actix::test]
async fn between_two_ends_of_one_machine_long_bodies_are_not_sent() {
    let counted = Counted::default();
    let transport: Rc<dyn Transport> = Rc::new(counted.clone());
    let server = Server::start(&*transport).await;
    let link = link(&transport, server.address);
    let values = Arc::new(vec![0.25; ECHO_MAX]);
    let long = || Echo { text: String::new(), values: Arc::clone(&values) };
    // Until both know that they can read each other: a few frames, in order.
    while {
        let before = counted.bytes.get();
        assert_eq!(link.request(DESK, long()).await, Ok(long()));
        counted.bytes.get() - before > 1000
    } {}

    let before = counted.bytes.get();
    for _ in 0..10 {
        assert_eq!(link.request(DESK, long()).await, Ok(long()));
    }
    assert!(counted.bytes.get() - before < 5000, "{} bytes", counted.bytes.get() - before);

    // Its answer says that the one before has been read: nothing is kept.
    link.request(DESK, echo("short")).await.unwrap();
    drop(link);
    assert_eq!(Arc::strong_count(&values), 1);
}

/// TCP that counts what the callers' sockets carry, both ways.
#[derive(Clone, Debug, Default)]
struct Counted {
    bytes: Rc<Cell<u64>>,
}

impl Transport for Counted {
    fn connect(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Connection>> {
        async move {
            let Connection { peer, reader, writer, same_host, socket } =
                TcpTransport.connect(address).await?;
            let reader = Box::new(Counting { inner: reader, bytes: Rc::clone(&self.bytes) });
            let writer = Box::new(Counting { inner: writer, bytes: Rc::clone(&self.bytes) });
            Ok(Connection { peer, reader, writer, same_host, socket })
        }
        .boxed_local()
    }

    fn listen(&self, address: SocketAddr) -> LocalBoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move { TcpTransport.listen(address).await }.boxed_local()
    }
}

struct Counting<T> {
    inner: T,
    bytes: Rc<Cell<u64>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counting<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.bytes.set(self.bytes.get() + (buffer.filled().len() - before) as u64);
        polled
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Counting<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.bytes.set(self.bytes.get() + *written as u64);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
