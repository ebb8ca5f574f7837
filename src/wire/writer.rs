//! Frames onto a stream of bytes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crc32fast::Hasher;
use gradmesh_actors::messages::Body;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::attachment::{address, lendable};
use super::deadline::in_time;
use super::frame::ENTRY_BYTES;
use super::spare;
use super::{Attachment, Frame, FrameError, Pulse};

/// What is shorter is copied into the buffer: a system call of its own costs more than the copy.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Small frames gather up to here and leave together.
const STAGED_BYTES_MAX: usize = 40 << 10;
/// Summed, then written while it is in the second-level cache.
const STEP_BYTES: usize = 256 << 10;

/// Writes frames one after another. Small ones stay in a buffer until [`FrameWriter::flush`].
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    staged: Vec<u8>,
    /// Follows a part of a body that is held back; empty between two frames.
    after: Vec<u8>,
    pulse: Pulse,
    attachment: Option<Attachment>,
}

/// Whether it is copied as a whole: then no body of it is [lent](Attachment) either.
fn is_short(frame: &Frame) -> bool {
    let table = frame.bodies.len() * ENTRY_BYTES;
    let bodies: usize = frame.bodies.iter().map(Body::byte_len).sum();
    table + bodies + frame.meta.len() < COPY_BYTES_MAX
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// `pulse` beats for each part of a long body that the other side takes: while it does, it
    /// can't answer a ping. Short writes are no sign of life, the kernel takes many for the dead.
    pub fn new(writer: W, pulse: Pulse) -> Self {
        Self { inner: writer, staged: Vec::new(), after: Vec::new(), pulse, attachment: None }
    }

    /// Long bodies stay where they are from now on, where the other side can read them there.
    pub fn attach(&mut self, attachment: Attachment) {
        self.attachment = Some(attachment);
    }

    /// Writes one frame; its bodies are borrowed, not copied, where they are long.
    ///
    /// # Errors
    /// A limit of [`Frame::check`] (nothing was written), [`FrameError::Io`], or
    /// [`FrameError::TooSlow`] where the other side doesn't take it within [`FRAME_TIME_MAX`](super::FRAME_TIME_MAX).
    pub async fn write(&mut self, frame: &Frame) -> Result<(), FrameError> {
        frame.check()?;
        if !is_short(frame) {
            return in_time(self.put_frame(frame)).await;
        }
        self.stage_short(frame);
        match self.staged.len() < STAGED_BYTES_MAX {
            true => Ok(()),
            false => in_time(self.send(&[])).await,
        }
    }

    /// Whether [`FrameWriter::write_now`] takes this frame: nothing waits, and it is short.
    #[must_use]
    pub fn stages(&self, frame: &Frame) -> bool {
        self.staged.is_empty() && is_short(frame)
    }

    /// Writes a frame that it [stages](FrameWriter::stages), and sends it as far as the other side takes it now.
    /// `false` where there is something left to [flush](FrameWriter::flush), which tells of errors too.
    #[must_use]
    pub fn write_now(&mut self, frame: &Frame) -> bool {
        // Short ones are within all limits.
        self.stage_short(frame);
        self.sends_now()
    }

    /// Whether all that is staged could be sent at once.
    fn sends_now(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.staged.is_empty() {
            match Pin::new(&mut self.inner).poll_write(&mut cx, &self.staged) {
                Poll::Ready(Ok(written)) if written >= self.staged.len() => self.let_go(),
                Poll::Ready(Ok(written)) if written > 0 => drop(self.staged.drain(..written)),
                _ => return false,
            }
        }
        matches!(Pin::new(&mut self.inner).poll_flush(&mut cx), Poll::Ready(Ok(())))
    }

    /// Memory of what was sent.
    fn let_go(&mut self) {
        spare::give(std::mem::take(&mut self.staged));
    }

    /// What is staged, in memory with room for more.
    fn staged(&mut self) -> &mut Vec<u8> {
        if self.staged.capacity() == 0 {
            self.staged = spare::take();
        }
        &mut self.staged
    }

    /// Sends what is staged.
    ///
    /// # Errors
    /// [`FrameError::Io`], [`FrameError::TooSlow`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        if self.sends_now() {
            return Ok(());
        }
        in_time(async {
            self.send(&[]).await?;
            self.inner.flush().await.map_err(FrameError::from)
        })
        .await
    }

    /// Sends what is staged and tells the other side that nothing follows.
    ///
    /// # Errors
    /// [`FrameError::Io`], [`FrameError::TooSlow`].
    pub async fn shutdown(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        in_time(async { self.inner.shutdown().await.map_err(FrameError::from) }).await
    }

    /// Takes a frame that is short, after what is staged.
    fn stage_short(&mut self, frame: &Frame) {
        if let Some(attachment) = &self.attachment {
            attachment.answered(frame.request);
        }
        let staged = self.staged();
        let start = staged.len();
        frame.put_head(false, staged);
        staged.extend_from_slice(&frame.meta);
        for body in &frame.bodies {
            staged.extend_from_slice(match body {
                Body::F32(values) => bytemuck::cast_slice(values),
                Body::Bytes(bytes) => bytes,
            });
        }
        let sum = crc32fast::hash(&staged[start..]);
        staged.extend_from_slice(&sum.to_le_bytes());
    }

    async fn put_frame(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let mut sum = Hasher::new();
        let start = self.staged.len();
        let lends = self.attachment.as_ref().is_some_and(|attachment| {
            attachment.answered(frame.request);
            attachment.lend(frame)
        });
        frame.put_head(lends, self.staged());
        sum.update(&self.staged[start..]);
        let mut held = self.put(&frame.meta, &[], &mut sum).await?;
        for body in &frame.bodies {
            if lends && let Some(values) = lendable(body) {
                let address = address(values).to_le_bytes();
                sum.update(&address);
                self.stage(&address, held);
                continue;
            }
            held = match body {
                Body::F32(values) => self.put(bytemuck::cast_slice(values), held, &mut sum).await?,
                Body::Bytes(bytes) => self.put(bytes, held, &mut sum).await?,
            };
        }
        self.stage(&sum.finalize().to_le_bytes(), held);
        if !held.is_empty() || self.staged.len() >= STAGED_BYTES_MAX {
            self.send(held).await?;
        }
        Ok(())
    }

    /// Takes a part of a frame after what is staged and `held`; returns what it holds back of it,
    /// which goes out together with what follows.
    async fn put<'a>(
        &mut self,
        bytes: &'a [u8],
        held: &'a [u8],
        sum: &mut Hasher,
    ) -> Result<&'a [u8], FrameError> {
        if bytes.len() < COPY_BYTES_MAX {
            sum.update(bytes);
            self.stage(bytes, held);
            if self.staged.len() + self.after.len() < STAGED_BYTES_MAX {
                return Ok(held);
            }
            self.send(held).await?;
            return Ok(&[]);
        }
        if !held.is_empty() {
            self.send(held).await?;
        }
        let mut steps = bytes.chunks(STEP_BYTES).peekable();
        while let Some(step) = steps.next() {
            sum.update(step);
            if steps.peek().is_none() {
                return Ok(step);
            }
            self.send(step).await?;
        }
        Ok(&[])
    }

    fn stage(&mut self, bytes: &[u8], held: &[u8]) {
        let to = if held.is_empty() { self.staged() } else { &mut self.after };
        to.extend_from_slice(bytes);
    }

    /// Sends what is staged, `held`, and what was staged after it, by as few system calls as the
    /// other side's buffers allow.
    async fn send(&mut self, held: &[u8]) -> Result<(), FrameError> {
        let mut parts = [&self.staged, held, &self.after].map(IoSlice::new);
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            let written = self.inner.write_vectored(left).await?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        if held.len() >= COPY_BYTES_MAX {
            self.pulse.beat();
        }
        self.let_go();
        self.after = Vec::new();
        Ok(())
    }
}
