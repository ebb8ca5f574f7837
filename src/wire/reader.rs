//! Frames from a stream of bytes that nobody vouches for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytemuck::Pod;
use bytes::Bytes;
use crc32fast::Hasher;
use gradmesh_actors::messages::{Body, Values};
use gradmesh_actors::pool::Pool;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::yield_now;

use super::attachment::{LENT_BYTES_MIN, LENT_MAX};
use super::deadline::in_time;
use super::frame::{ADDRESS_BYTES, BodyKind, CHECKSUM_BYTES, Entry, HEAD_BYTES, Head, entries};
use super::read_buffer::ReadBuffer;
use super::{Attachment, Class, Frame, FrameError, Limits, Pulse};

/// Read, then summed while it is in the second-level cache.
const STEP_BYTES: usize = 256 << 10;
/// Of what the other side lends, read without a turn for others: less than a millisecond.
const PIECE_BYTES: usize = 4 << 20;
/// Memory that a length alone gets, before its bytes arrive. Beyond it a body at most doubles
/// what has come, so a lie costs no more than the liar sends.
const UNSEEN_BYTES_MAX: usize = 1 << 20;
/// Tensors from this length on are read into memory that is used again: fresh memory costs as much
/// as the copy, shorter ones are cheap to allocate.
const POOLED_BYTES_MIN: usize = 16 << 10;
/// Tensors of one connection that are used again: one that is worked on and one that arrives, for
/// each of a few shards.
const TENSORS_KEPT: usize = 8;

/// Reads frames one after another.
#[derive(Debug)]
pub struct FrameReader<R> {
    inner: ReadBuffer<Observed<R>>,
    limits: Limits,
    tensors: Tensors,
}

/// Where tensors of frames come from.
#[derive(Debug)]
struct Tensors {
    /// Into memory that whoever had the last one has let go.
    pool: Pool,
    /// Those that the other side lends.
    attachment: Option<Attachment>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `pulse` beats whenever bytes arrive.
    pub fn new(reader: R, limits: Limits, pulse: Pulse) -> Self {
        let inner = ReadBuffer::new(Observed { inner: reader, pulse });
        let tensors = Tensors { pool: Pool::new(TENSORS_KEPT), attachment: None };
        Self { inner, limits, tensors }
    }

    /// Bodies that the other side lends are read from its memory from now on.
    pub fn attach(&mut self, attachment: Attachment) {
        self.tensors.attachment = Some(attachment);
    }

    /// What it has read beyond the last frame.
    pub fn into_rest(self) -> Vec<u8> {
        self.inner.into_rest()
    }

    /// Accepts other frames from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The next frame; `None` where the stream ends between two. Waits without limit for a frame
    /// to begin, then [`FRAME_TIME_MAX`](super::FRAME_TIME_MAX) for its end.
    ///
    /// Not cancel-safe: a dropped call loses the bytes that it has read.
    ///
    /// # Errors
    /// [`FrameError`]; where the next frame begins is then unknown.
    pub async fn read(&mut self) -> Result<Option<Frame>, FrameError> {
        let buffered = self.inner.fill().await?;
        if buffered.is_empty() {
            return Ok(None);
        }
        if let Some((frame, length)) = whole_frame(buffered, &self.limits, &mut self.tensors)? {
            self.inner.consume(length);
            return Ok(Some(frame));
        }
        in_time(self.read_begun()).await.map(Some)
    }

    async fn read_begun(&mut self) -> Result<Frame, FrameError> {
        let mut sum = Hasher::new();
        let mut raw = [0; HEAD_BYTES];
        self.fill(&mut raw).await?;
        sum.update(&raw);
        let head = Head::parse(&raw, &self.limits)?;

        let mut table = vec![0; head.table_bytes()];
        self.fill(&mut table).await?;
        sum.update(&table);
        head.bodies_bytes(&table, &self.limits)?;

        let meta = self.read_values::<u8>(head.meta_bytes as usize, &mut sum).await?;
        let mut bodies = Vec::with_capacity(usize::from(head.bodies));
        for (index, entry) in entries(&table).enumerate() {
            let Entry { kind, bytes } = entry?;
            let bytes = bytes as usize;
            bodies.push(match kind {
                BodyKind::Lent => {
                    let mut address = [0; ADDRESS_BYTES];
                    self.fill(&mut address).await?;
                    sum.update(&address);
                    Body::F32(self.read_lent(&head, index, bytes, address).await?)
                }
                BodyKind::F32 => {
                    let count = bytes / size_of::<f32>();
                    Body::F32(self.read_tensor(count, &mut sum).await?)
                }
                BodyKind::Bytes => {
                    Body::Bytes(self.read_values::<u8>(bytes, &mut sum).await?.into())
                }
            });
        }

        let mut checksum = [0; CHECKSUM_BYTES];
        self.fill(&mut checksum).await?;
        let (got, computed) = (u32::from_le_bytes(checksum), sum.finalize());
        if got != computed {
            return Err(FrameError::Checksum { got, computed });
        }
        let Head { class, kind, request, target, .. } = head;
        Ok(Frame { class, kind, request, target, meta, bodies })
    }

    /// Into memory that whoever had the last one has let go, if it is there.
    async fn read_tensor(&mut self, count: usize, sum: &mut Hasher) -> Result<Values, FrameError> {
        if count < POOLED_BYTES_MIN / size_of::<f32>() {
            return Ok(Arc::new(self.read_values(count, sum).await?));
        }
        let values = match self.tensors.pool.take(count) {
            Some(mut values) => {
                for step in values.chunks_mut(STEP_BYTES / size_of::<f32>()) {
                    let bytes = bytemuck::cast_slice_mut(step);
                    self.fill(bytes).await?;
                    sum.update(bytes);
                }
                values
            }
            None => self.read_values(count, sum).await?,
        };
        Ok(self.tensors.pool.lend(values))
    }

    /// Reads what the other side lends: body `index` of its frame. Piece by piece, so that others have
    /// their turns.
    async fn read_lent(
        &mut self,
        head: &Head,
        index: usize,
        bytes: usize,
        address: [u8; ADDRESS_BYTES],
    ) -> Result<Values, FrameError> {
        let Some(attachment) = self.tensors.attachment.clone() else {
            return Err(FrameError::BodyKind { index, got: 3 });
        };
        if bytes < LENT_BYTES_MIN {
            return Err(FrameError::LentTooShort { index, got: bytes, min: LENT_BYTES_MIN });
        }
        if head.class == Class::Request && !attachment.borrows(head.request) {
            return Err(FrameError::LentTooMany { max: LENT_MAX });
        }
        let mut values = self.tensors.pool.take_or_new(bytes / size_of::<f32>());
        let mut at = u64::from_le_bytes(address);
        for piece in bytemuck::cast_slice_mut(&mut values).chunks_mut(PIECE_BYTES) {
            attachment.read(at, piece)?;
            at = at.wrapping_add(piece.len() as u64);
            self.inner.reader().pulse.beat();
            if bytes > PIECE_BYTES {
                yield_now().await;
            }
        }
        Ok(self.tensors.pool.lend(values))
    }

    /// `count` values straight into memory of their own alignment.
    async fn read_values<T: Pod>(
        &mut self,
        count: usize,
        sum: &mut Hasher,
    ) -> Result<Vec<T>, FrameError> {
        let mut values: Vec<T> = Vec::new();
        while values.len() < count {
            let (start, left) = (values.len(), count - values.len());
            let step = left.min(STEP_BYTES / size_of::<T>());
            if values.capacity() - start < step {
                values.reserve_exact(left.min(start.max(UNSEEN_BYTES_MAX / size_of::<T>())));
            }
            values.resize(start + step, T::zeroed());
            let bytes = bytemuck::cast_slice_mut(&mut values[start..]);
            self.fill(bytes).await?;
            sum.update(bytes);
        }
        Ok(values)
    }

    async fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FrameError> {
        match self.inner.read_exact(bytes).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(FrameError::Truncated)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The frame at the beginning of `bytes` and its length, where all of it is there: most are, and
/// need no wait for each of their parts.
fn whole_frame(
    bytes: &[u8],
    limits: &Limits,
    tensors: &mut Tensors,
) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(raw) = bytes.first_chunk() else { return Ok(None) };
    let head = Head::parse(raw, limits)?;
    let bodies_start = HEAD_BYTES + head.table_bytes() + head.meta_bytes as usize;
    let Some(table) = bytes.get(HEAD_BYTES..HEAD_BYTES + head.table_bytes()) else {
        return Ok(None);
    };
    // What is lent is long, and read piece by piece.
    if entries(table).any(|entry| matches!(entry, Ok(Entry { kind: BodyKind::Lent, .. }))) {
        return Ok(None);
    }
    // At most the limit of a frame.
    let bodies_bytes = head.bodies_bytes(table, limits)? as usize;
    let Some((summed, rest)) = bytes.split_at_checked(bodies_start + bodies_bytes) else {
        return Ok(None);
    };
    let Some(checksum) = rest.first_chunk() else { return Ok(None) };
    let (got, computed) = (u32::from_le_bytes(*checksum), crc32fast::hash(summed));
    if got != computed {
        return Err(FrameError::Checksum { got, computed });
    }

    let (before, mut left) = summed.split_at(bodies_start);
    let mut bodies = Vec::with_capacity(usize::from(head.bodies));
    for entry in entries(table) {
        let entry = entry?;
        let (body, after) = left.split_at(entry.framed_bytes());
        left = after;
        bodies.push(match entry.kind {
            BodyKind::Lent => return Ok(None),
            BodyKind::F32 if body.len() < POOLED_BYTES_MIN => {
                let (values, _) = body.as_chunks();
                Body::F32(Arc::new(values.iter().copied().map(f32::from_le_bytes).collect()))
            }
            BodyKind::F32 => {
                let mut values = tensors.pool.take_or_new(body.len() / size_of::<f32>());
                bytemuck::cast_slice_mut(&mut values).copy_from_slice(body);
                Body::F32(tensors.pool.lend(values))
            }
            BodyKind::Bytes => Body::Bytes(Bytes::copy_from_slice(body)),
        });
    }
    let meta = before[HEAD_BYTES + head.table_bytes()..].to_vec();
    let Head { class, kind, request, target, .. } = head;
    let frame = Frame { class, kind, request, target, meta, bodies };
    Ok(Some((frame, summed.len() + CHECKSUM_BYTES)))
}

/// Beats when bytes arrive.
#[derive(Debug)]
struct Observed<R> {
    inner: R,
    pulse: Pulse,
}

impl<R: AsyncRead + Unpin> AsyncRead for Observed<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pulse.beat();
        }
        polled
    }
}
