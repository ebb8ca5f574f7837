//! What travels between nodes: frames, the messages in them, and the handshake before them.
//!
//! Knows bytes and [`WireMessage`](gradmesh_actors::messages::WireMessage), no actor, and of sockets only
//! whose they are.

mod attachment;
mod deadline;
mod fault;
mod frame;
mod hello;
mod message;
mod pulse;
mod read_buffer;
mod reader;
mod spare;
mod target;
mod when_woken;
mod writer;

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

pub use attachment::Attachment;
pub use deadline::FRAME_TIME_MAX;
pub use fault::Fault;
pub use frame::{
    BODIES_MAX, Class, FRAME_BYTES_MAX, Frame, FrameError, Limits, MAGIC, META_BYTES_MAX, PROTOCOL,
};
#[cfg(feature = "sim")]
pub(crate) use frame::{Begins, begins};
pub use hello::{ConfigDigest, HELLO_TIME_MAX, Hello, HelloError, shake_hands};
pub use message::{MessageError, decode, encode};
pub use pulse::Pulse;
pub use reader::FrameReader;
pub use target::{Role, Target};
pub(crate) use when_woken::WhenWoken;
pub use writer::FrameWriter;

/// Has both halves of a connection read and lend bodies by memory; `own`: this side's address, where it
/// is one of the other side's machine.
#[must_use]
pub fn attach<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    own: Option<SocketAddr>,
    peer: SocketAddr,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) -> Option<Attachment> {
    let attachment = Attachment::new(own?, peer)?;
    reader.attach(attachment.clone());
    writer.attach(attachment.clone());
    Some(attachment)
}
