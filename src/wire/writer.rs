//! Frames onto a stream of bytes.

use crc32fast::Hasher;
use gradmesh_actors::messages::Body;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::deadline::in_time;
use super::{Frame, FrameError, Pulse};

/// What is shorter is copied into the buffer: a system call of its own costs more than the copy.
const COPY_BYTES_MAX: usize = 16 << 10;
/// Small frames gather up to here and leave together.
const STAGED_BYTES_MAX: usize = 64 << 10;
/// Summed, then written while it is in the second-level cache.
const STEP_BYTES: usize = 256 << 10;

/// Writes frames one after another. Small ones stay in a buffer until [`FrameWriter::flush`].
#[derive(Debug)]
pub struct FrameWriter<W> {
    inner: W,
    staged: Vec<u8>,
    pulse: Pulse,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// `pulse` beats for each part of a long body that the other side takes: while it does, it
    /// can't answer a ping. Short writes are no sign of life, the kernel takes many for the dead.
    pub fn new(writer: W, pulse: Pulse) -> Self {
        Self { inner: writer, staged: Vec::new(), pulse }
    }

    /// Writes one frame; its bodies are borrowed, not copied, where they are long.
    ///
    /// # Errors
    /// A limit of [`Frame::check`] (nothing was written), [`FrameError::Io`], or
    /// [`FrameError::TooSlow`] where the other side doesn't take it within [`FRAME_TIME_MAX`](super::FRAME_TIME_MAX).
    pub async fn write(&mut self, frame: &Frame) -> Result<(), FrameError> {
        frame.check()?;
        in_time(self.put_frame(frame)).await
    }

    /// Sends what is staged.
    ///
    /// # Errors
    /// [`FrameError::Io`], [`FrameError::TooSlow`].
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        in_time(async {
            self.send_staged().await?;
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

    async fn put_frame(&mut self, frame: &Frame) -> Result<(), FrameError> {
        let mut sum = Hasher::new();
        let start = self.staged.len();
        frame.put_head(&mut self.staged);
        sum.update(&self.staged[start..]);
        self.put(&frame.meta, &mut sum).await?;
        for body in &frame.bodies {
            match body {
                Body::F32(values) => self.put(bytemuck::cast_slice(values), &mut sum).await?,
                Body::Bytes(bytes) => self.put(bytes, &mut sum).await?,
            }
        }
        self.staged.extend_from_slice(&sum.finalize().to_le_bytes());
        if self.staged.len() >= STAGED_BYTES_MAX { self.send_staged().await } else { Ok(()) }
    }

    async fn put(&mut self, bytes: &[u8], sum: &mut Hasher) -> Result<(), FrameError> {
        if bytes.len() < COPY_BYTES_MAX {
            sum.update(bytes);
            self.staged.extend_from_slice(bytes);
            if self.staged.len() >= STAGED_BYTES_MAX {
                self.send_staged().await?;
            }
            return Ok(());
        }
        self.send_staged().await?;
        for step in bytes.chunks(STEP_BYTES) {
            sum.update(step);
            self.inner.write_all(step).await?;
            self.pulse.beat();
        }
        Ok(())
    }

    async fn send_staged(&mut self) -> Result<(), FrameError> {
        if !self.staged.is_empty() {
            self.inner.write_all(&self.staged).await?;
            self.staged.clear();
        }
        Ok(())
    }
}
