//! How often bulk data is copied between a message and its connection: counted, so that no change adds a copy
//! unseen.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use gradmesh::wire::{Class, Frame, FrameReader, FrameWriter, Limits, Pulse};
use gradmesh_actors::messages::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of a tensor: 4 MiB.
const VALUES: usize = 1 << 20;
/// What a reader has read ahead when it comes upon a tensor, and copies.
const AHEAD_MAX: usize = 64 << 10;

/// Where something lies in memory.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
    len: usize,
}

impl Place {
    fn of(bytes: &[u8]) -> Self {
        Self { start: bytes.as_ptr() as usize, len: bytes.len() }
    }

    fn holds(self, other: Self) -> bool {
        self.start <= other.start && other.start + other.len <= self.start + self.len
    }
}

/// A connection that remembers from where it was given bytes, or where it was to put them.
#[derive(Default)]
struct Watched {
    bytes: Vec<u8>,
    read: usize,
    places: Rc<RefCell<Vec<Place>>>,
}

impl Watched {
    /// Bytes that were read or written right there.
    fn bytes_in(&self, place: Place) -> usize {
        let places = self.places.borrow();
        places.iter().filter(|other| place.holds(**other)).map(|other| other.len).sum()
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        for part in parts {
            self.places.borrow_mut().push(Place::of(part));
            self.bytes.extend_from_slice(part);
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buffer.remaining().min(self.bytes.len() - self.read);
        let place = Place::of(&buffer.initialize_unfilled()[..count]);
        self.places.borrow_mut().push(place);
        let from = self.read;
        buffer.put_slice(&self.bytes[from..from + count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

#[actix::test]
async fn a_long_tensor_goes_from_its_memory_to_the_socket_and_from_there_to_where_it_stays() {
    let values = Arc::new((0..VALUES).map(|at| at as f32).collect::<Vec<_>>());
    let bodies = vec![Body::F32(Arc::clone(&values))];
    let frame = Frame { meta: vec![7; 100], bodies, ..Frame::bare(Class::Request, 1) };
    let memory = Place::of(bytemuck::cast_slice(&values));
    let mut sent = Watched::default();
    let mut writer = FrameWriter::new(&mut sent, Pulse::new());
    writer.write(&frame).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    assert_eq!(sent.bytes_in(memory), memory.len, "some of it was copied before it was written");

    // Memory for the first one grows with what comes, so that a lie costs no more than the liar sends; those
    // after it are read into memory of those before.
    let mut arrived = Watched { bytes: sent.bytes.repeat(2), ..Watched::default() };
    let places = Rc::clone(&arrived.places);
    let mut reader = FrameReader::new(&mut arrived, Limits::TRUSTED, Pulse::new());
    drop(reader.read().await.unwrap().unwrap());
    places.borrow_mut().clear();
    let read = reader.read().await.unwrap().unwrap();
    assert_eq!(read, frame);
    let Body::F32(values) = &read.bodies[0] else { panic!("{read:?}") };
    let place = Place::of(bytemuck::cast_slice(values));
    drop(reader);
    let copied = place.len - arrived.bytes_in(place);
    assert!(
        copied <= AHEAD_MAX,
        "{copied} of {} bytes were copied after they were read",
        place.len
    );
}
