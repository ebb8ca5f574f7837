//! The frame: what one message looks like on a connection.
//!
//! All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `GMSH` |
//! | 1 | protocol version |
//! | 1 | class |
//! | 2 | kind of the message (`WireMessage::KIND`) |
//! | 8 | request id, chosen by the side that asks; 0 means the connection itself |
//! | 1 + 1 | role of the target, then a zero |
//! | 2 | number of bodies |
//! | 4 | index of the target |
//! | 4 | length of the typed part |
//! | 5 each | body table: kind (1 = f32, 2 = bytes, 3 = f32 in the sender's memory), length in bytes |
//! | … | the typed part, MessagePack |
//! | … | the bodies, raw, in the order of the table; of kind 3, 8 bytes of address |
//! | 4 | CRC-32 of everything before |
//!
//! The first five bytes keep their meaning in every version, so that nodes of two versions can
//! tell each other so.

use std::io;

use gradmesh_actors::messages::Body;

use super::attachment::lendable;
use super::{Role, Target};

#[cfg(target_endian = "big")]
compile_error!("bodies travel as the memory of little-endian machines");

/// First bytes of each frame; whatever else talks to the port is recognised by them.
pub const MAGIC: [u8; 4] = *b"GMSH";
/// Raised whenever a frame or a message changes its layout.
pub const PROTOCOL: u8 = 3;
/// Longest frame: twice a push of 64 MB of gradient with as much of residuals. Parameters beyond
/// it are cut into more shards, so that one frame never holds a connection for long.
pub const FRAME_BYTES_MAX: u64 = 256 << 20;
/// Longest typed part: bulk data goes into bodies, so what is left is a few numbers a slot.
pub const META_BYTES_MAX: u32 = 1 << 20;
/// Most bodies: a push of a lossy codec has one for each of at most 4096 slots, and a lease that
/// moves has the slot's residual too.
pub const BODIES_MAX: u16 = 8192;

pub(super) const HEAD_BYTES: usize = 28;
pub(super) const ENTRY_BYTES: usize = 5;
pub(super) const CHECKSUM_BYTES: usize = 4;
/// Of a body that stays in the sender's memory.
pub(super) const ADDRESS_BYTES: usize = 8;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Hello = 1,
    Request = 2,
    Reply = 3,
    /// The actor's own refusal, typed by the message.
    Refusal = 4,
    /// A [`Fault`](super::Fault): the request didn't reach an actor, or the connection ends.
    Error = 5,
    Ping = 6,
    Pong = 7,
    /// How the two sides find out whether they can read each other's memory: see
    /// [`Attachment`](super::Attachment).
    Memory = 8,
    /// What was lent with the answer to this request has been read.
    Taken = 9,
    /// The caller lives, in the life that stands in place of the request's id, and what it said with the
    /// word whose number stands in place of the target's index is still so. Not answered.
    Beat = 10,
    /// The other side leads and doesn't know who is on this node: it is to say so.
    RollCall = 11,
}

impl Class {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Request,
            3 => Self::Reply,
            4 => Self::Refusal,
            5 => Self::Error,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::Memory,
            9 => Self::Taken,
            10 => Self::Beat,
            11 => Self::RollCall,
            _ => return None,
        })
    }
}

/// One message on a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub class: Class,
    pub kind: u16,
    /// Pairs an answer with its request; 0 where the frame concerns the connection itself.
    pub request: u64,
    pub target: Target,
    /// The typed part, MessagePack.
    pub meta: Vec<u8>,
    pub bodies: Vec<Body>,
}

/// Why a frame can't be read or written. After any of them the connection is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended inside a frame")]
    Truncated,
    #[error("starts with {got:02x?}, not with a frame of gradmesh")]
    Magic { got: [u8; 4] },
    #[error("protocol version {there} there, {here} here; run the same release on both nodes")]
    Protocol { here: u8, there: u8 },
    #[error("unknown frame class {got}")]
    Class { got: u8 },
    #[error("unknown role {got}")]
    Role { got: u8 },
    #[error("reserved byte is {got}, not 0")]
    Reserved { got: u8 },
    #[error("typed part of {got} bytes, limit {max}")]
    MetaTooLong { got: u64, max: u64 },
    #[error("{got} bodies, limit {max}")]
    TooManyBodies { got: usize, max: usize },
    #[error("body {index} has the unknown kind {got}")]
    BodyKind { index: usize, got: u8 },
    #[error("body {index} has {got} bytes, not a whole number of f32")]
    BodyLength { index: usize, got: u32 },
    #[error("body {index} of {got} bytes is in the sender's memory, where no less than {min} are")]
    LentTooShort { index: usize, got: usize, min: usize },
    #[error("more than {max} requests whose bodies are in the sender's memory wait for an answer")]
    LentTooMany { max: usize },
    #[error("frame of {got} bytes, limit {max}; cut the parameters into more shards")]
    FrameTooLong { got: u64, max: u64 },
    #[error("checksum {got:08x}, computed {computed:08x}")]
    Checksum { got: u32, computed: u32 },
    #[error("frame took longer than {limit_ms} ms")]
    TooSlow { limit_ms: u64 },
}

/// What a reader accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub frame_bytes: u64,
    pub meta_bytes: u32,
    pub bodies: u16,
}

impl Limits {
    /// Between nodes that have shaken hands.
    pub const TRUSTED: Self =
        Self { frame_bytes: FRAME_BYTES_MAX, meta_bytes: META_BYTES_MAX, bodies: BODIES_MAX };
    /// Before the handshake: names and a digest are a few hundred bytes.
    pub const HELLO: Self = Self { frame_bytes: 4096, meta_bytes: 4096, bodies: 0 };
}

#[derive(Clone, Copy, Debug)]
pub(super) enum BodyKind {
    F32,
    Bytes,
    /// `f32` in the sender's memory.
    Lent,
}

/// One row of the body table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) kind: BodyKind,
    pub(super) bytes: u32,
}

impl Entry {
    /// What the body takes in its frame.
    pub(super) fn framed_bytes(self) -> usize {
        match self.kind {
            BodyKind::F32 | BodyKind::Bytes => self.bytes as usize,
            BodyKind::Lent => ADDRESS_BYTES,
        }
    }
}

/// The fixed part of a frame, as read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) class: Class,
    pub(super) kind: u16,
    pub(super) request: u64,
    pub(super) target: Target,
    pub(super) bodies: u16,
    pub(super) meta_bytes: u32,
}

impl Head {
    pub(super) fn parse(raw: &[u8; HEAD_BYTES], limits: &Limits) -> Result<Self, FrameError> {
        let [
            m0,
            m1,
            m2,
            m3,
            protocol,
            class,
            k0,
            k1,
            id @ ..,
            role,
            reserved,
            b0,
            b1,
            i0,
            i1,
            i2,
            i3,
            l0,
            l1,
            l2,
            l3,
        ] = *raw;
        let magic = [m0, m1, m2, m3];
        if magic != MAGIC {
            return Err(FrameError::Magic { got: magic });
        }
        if protocol != PROTOCOL {
            return Err(FrameError::Protocol { here: PROTOCOL, there: protocol });
        }
        if reserved != 0 {
            return Err(FrameError::Reserved { got: reserved });
        }
        let head = Self {
            class: Class::from_byte(class).ok_or(FrameError::Class { got: class })?,
            kind: u16::from_le_bytes([k0, k1]),
            request: u64::from_le_bytes(id),
            target: Target {
                role: Role::from_byte(role).ok_or(FrameError::Role { got: role })?,
                index: u32::from_le_bytes([i0, i1, i2, i3]),
            },
            bodies: u16::from_le_bytes([b0, b1]),
            meta_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
        };
        if head.meta_bytes > limits.meta_bytes {
            let (got, max) = (u64::from(head.meta_bytes), u64::from(limits.meta_bytes));
            return Err(FrameError::MetaTooLong { got, max });
        }
        if head.bodies > limits.bodies {
            let (got, max) = (usize::from(head.bodies), usize::from(limits.bodies));
            return Err(FrameError::TooManyBodies { got, max });
        }
        Ok(head)
    }

    pub(super) fn table_bytes(&self) -> usize {
        usize::from(self.bodies) * ENTRY_BYTES
    }

    /// What all bodies take in the frame; checks the body table, and the length of the whole message,
    /// wherever its bodies are.
    pub(super) fn bodies_bytes(&self, table: &[u8], limits: &Limits) -> Result<u64, FrameError> {
        let (mut bodies_bytes, mut framed_bytes) = (0, 0);
        for entry in entries(table) {
            let entry = entry?;
            bodies_bytes += u64::from(entry.bytes);
            framed_bytes += entry.framed_bytes() as u64;
        }
        let got = bodies_bytes
            + frame_bytes_without_bodies(u64::from(self.bodies), u64::from(self.meta_bytes));
        if got > limits.frame_bytes {
            return Err(FrameError::FrameTooLong { got, max: limits.frame_bytes });
        }
        Ok(framed_bytes)
    }
}

/// The rows of a body table.
pub(super) fn entries(table: &[u8]) -> impl Iterator<Item = Result<Entry, FrameError>> {
    let (rows, _) = table.as_chunks::<ENTRY_BYTES>();
    rows.iter().enumerate().map(|(index, &[kind, length @ ..])| {
        let bytes = u32::from_le_bytes(length);
        let kind = match kind {
            1 | 3 if !(bytes as usize).is_multiple_of(size_of::<f32>()) => {
                return Err(FrameError::BodyLength { index, got: bytes });
            }
            1 => BodyKind::F32,
            2 => BodyKind::Bytes,
            3 => BodyKind::Lent,
            got => return Err(FrameError::BodyKind { index, got }),
        };
        Ok(Entry { kind, bytes })
    })
}

/// What a stretch of bytes begins with.
#[cfg(feature = "sim")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// With a frame of this length, which may not all be there yet.
    Frame {
        class: Class,
        kind: u16,
        bytes: usize,
    },
    /// Too short to tell.
    Unknown,
    NoFrame,
}

/// Looks at the head and the body table of a frame, and at nothing behind them.
#[cfg(feature = "sim")]
pub(crate) fn begins(bytes: &[u8]) -> Begins {
    let Some(raw) = bytes.first_chunk::<HEAD_BYTES>() else { return Begins::Unknown };
    let Ok(head) = Head::parse(raw, &Limits::TRUSTED) else { return Begins::NoFrame };
    let Some(table) = bytes.get(HEAD_BYTES..HEAD_BYTES + head.table_bytes()) else {
        return Begins::Unknown;
    };
    let Ok(bodies) = head.bodies_bytes(table, &Limits::TRUSTED) else { return Begins::NoFrame };
    let rest = frame_bytes_without_bodies(u64::from(head.bodies), u64::from(head.meta_bytes));
    Begins::Frame { class: head.class, kind: head.kind, bytes: (rest + bodies) as usize }
}

fn frame_bytes_without_bodies(bodies: u64, meta_bytes: u64) -> u64 {
    (HEAD_BYTES + CHECKSUM_BYTES) as u64 + bodies * ENTRY_BYTES as u64 + meta_bytes
}

impl Frame {
    /// A frame that consists of its head: a ping, a pong.
    #[must_use]
    pub fn bare(class: Class, request: u64) -> Self {
        let target = Target::NODE;
        Self { class, kind: 0, request, target, meta: Vec::new(), bodies: Vec::new() }
    }

    /// Checks that every reader accepts this frame.
    ///
    /// # Errors
    /// The limit that it breaks: [`FrameError::MetaTooLong`], [`FrameError::TooManyBodies`] or
    /// [`FrameError::FrameTooLong`].
    pub fn check(&self) -> Result<(), FrameError> {
        let meta_bytes = self.meta.len() as u64;
        if meta_bytes > u64::from(META_BYTES_MAX) {
            return Err(FrameError::MetaTooLong { got: meta_bytes, max: META_BYTES_MAX.into() });
        }
        if self.bodies.len() > usize::from(BODIES_MAX) {
            let (got, max) = (self.bodies.len(), usize::from(BODIES_MAX));
            return Err(FrameError::TooManyBodies { got, max });
        }
        let bodies_bytes: u64 = self.bodies.iter().map(|body| body.byte_len() as u64).sum();
        let got = frame_bytes_without_bodies(self.bodies.len() as u64, meta_bytes) + bodies_bytes;
        if got > FRAME_BYTES_MAX {
            return Err(FrameError::FrameTooLong { got, max: FRAME_BYTES_MAX });
        }
        Ok(())
    }

    /// Head and body table; `lends`: long bodies stay where they are. The casts keep every bit:
    /// [`Frame::check`] came first.
    #[expect(clippy::cast_possible_truncation, reason = "check() bounds each length")]
    pub(super) fn put_head(&self, lends: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[PROTOCOL, self.class as u8]);
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.request.to_le_bytes());
        out.extend_from_slice(&[self.target.role as u8, 0]);
        out.extend_from_slice(&(self.bodies.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.target.index.to_le_bytes());
        out.extend_from_slice(&(self.meta.len() as u32).to_le_bytes());
        for body in &self.bodies {
            out.push(match body {
                body if lends && lendable(body).is_some() => 3,
                Body::F32(_) => 1,
                Body::Bytes(_) => 2,
            });
            out.extend_from_slice(&(body.byte_len() as u32).to_le_bytes());
        }
    }
}
