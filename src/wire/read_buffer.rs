//! What has arrived of a stream, and was not taken yet.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Of a connection that has sent little. A thousand connections then need 4 MB, and what they use of their
/// buffers is not all in the same few places of a core's cache, as the beginnings of longer ones are.
const BYTES_MIN: usize = 4 << 10;
/// Of one that fills its buffer again and again: a frame of so many bytes arrives by one system call. What is
/// longer bypasses the buffer.
const BYTES_MAX: usize = 64 << 10;

/// A reader with a buffer that is as long as what comes at once.
#[derive(Debug)]
pub(super) struct ReadBuffer<R> {
    reader: R,
    buffer: BytesMut,
    /// What a read may take.
    bytes: usize,
}

impl<R: AsyncRead + Unpin> ReadBuffer<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: BytesMut::new(), bytes: BYTES_MIN }
    }

    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    /// What was not taken.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.buffer.into()
    }

    /// What has arrived, after a read where nothing is left; empty at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<&[u8]> {
        if self.buffer.is_empty() {
            self.read_more().await?;
        }
        Ok(&self.buffer)
    }

    /// Takes what [`fill`](Self::fill) has shown.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.buffer.advance(bytes.min(self.buffer.len()));
    }

    /// # Errors
    /// `UnexpectedEof` where the stream ends before.
    pub(super) async fn read_exact(&mut self, mut to: &mut [u8]) -> io::Result<()> {
        loop {
            let (now, later) = to.split_at_mut(self.buffer.len().min(to.len()));
            self.buffer.copy_to_slice(now);
            to = later;
            if to.is_empty() {
                return Ok(());
            }
            if to.len() >= self.bytes {
                return self.reader.read_exact(to).await.map(drop);
            }
            if self.read_more().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Into an empty buffer.
    async fn read_more(&mut self) -> io::Result<usize> {
        self.buffer.reserve(self.bytes);
        let read = self.reader.read_buf(&mut self.buffer).await?;
        if read >= self.bytes {
            self.bytes = (self.bytes * 2).min(BYTES_MAX);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_is_read_as_it_came_whatever_is_asked_for() {
        let sent: Vec<u8> = (0..200_000u32).map(|at| (at % 251) as u8).collect();
        let mut buffer = ReadBuffer::new(&sent[..]);
        let mut read = Vec::new();
        for bytes in [1, 4095, 4097, 0, 10, 70_000, 3] {
            let mut part = vec![0; bytes];
            buffer.read_exact(&mut part).await.unwrap();
            read.extend_from_slice(&part);
            let shown = buffer.fill().await.unwrap();
            let taken = shown.len().min(5);
            read.extend_from_slice(&shown[..taken]);
            buffer.consume(taken);
        }
        read.extend_from_slice(buffer.fill().await.unwrap());
        assert_eq!(read, sent[..read.len()]);
        let rest = buffer.into_rest();
        assert_eq!(rest, sent[read.len() - rest.len()..read.len()]);
    }

    #[tokio::test]
    async fn a_stream_that_ends_too_early_is_an_error_and_one_that_ends_is_none() {
        let mut buffer = ReadBuffer::new(&b"abc"[..]);
        let mut four = [0; 4];
        let ended = buffer.read_exact(&mut four).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
        assert!(buffer.fill().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn it_grows_where_it_is_filled_again_and_again_up_to_a_limit() {
        let sent = vec![7; 1 << 20];
        let mut buffer = ReadBuffer::new(&sent[..]);
        let mut shown = Vec::new();
        for _ in 0..7 {
            let bytes = buffer.fill().await.unwrap().len();
            buffer.consume(bytes);
            shown.push(bytes);
        }
        assert!(shown.is_sorted() && shown[0] < 2 * BYTES_MIN, "{shown:?}");
        assert!((BYTES_MAX..2 * BYTES_MAX).contains(&shown[6]), "{shown:?}");
    }
}
