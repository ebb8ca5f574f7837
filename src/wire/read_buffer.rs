//! What has arrived of a stream, and was not taken yet.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::spare::{self, SPARE_BYTES};

/// A reader that takes what comes at once by one system call, so that a small frame takes one. Its buffer is
/// the thread's while nothing is in it.
#[derive(Debug)]
pub(super) struct ReadBuffer<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Of its bytes.
    taken: usize,
}

impl<R: AsyncRead + Unpin> ReadBuffer<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), taken: 0 }
    }

    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// What was not taken.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.rest().to_vec()
    }

    /// What has arrived, after a read where nothing is left; empty at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            self.read_more().await?;
        }
        Ok(self.rest())
    }

    /// Takes what [`fill`](Self::fill) has shown.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.taken = self.buffer.len().min(self.taken + bytes);
        if self.taken == self.buffer.len() {
            spare::give(std::mem::take(&mut self.buffer));
            self.taken = 0;
        }
    }

    /// What is as long as the buffer, or longer, bypasses it.
    ///
    /// # Errors
    /// `UnexpectedEof` where the stream ends before.
    pub(super) async fn read_exact(&mut self, mut to: &mut [u8]) -> io::Result<()> {
        loop {
            let (now, later) = to.split_at_mut(self.rest().len().min(to.len()));
            now.copy_from_slice(&self.rest()[..now.len()]);
            self.consume(now.len());
            to = later;
            if to.is_empty() {
                return Ok(());
            }
            // A rest that is shorter comes together with what follows.
            let is_long = to.len() >= SPARE_BYTES;
            let read = if is_long { self.reader.read(to).await? } else { self.read_more().await? };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if is_long {
                to = &mut to[read..];
            }
        }
    }

    /// Into an empty buffer.
    async fn read_more(&mut self) -> io::Result<usize> {
        let Self { reader, buffer, .. } = self;
        poll_fn(|cx| {
            let mut new = spare::take();
            let read = pin!(reader.read_buf(&mut new)).poll(cx);
            match read {
                Poll::Ready(Ok(1..)) => *buffer = new,
                _ => spare::give(new),
            }
            read
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_is_read_as_it_came_whatever_is_asked_for() {
        let sent: Vec<u8> = (0..500_000u32).map(|at| (at % 251) as u8).collect();
        let mut buffer = ReadBuffer::new(&sent[..]);
        let mut read = Vec::new();
        for bytes in [1, 4095, 4097, 0, 10, 64_000, 200_000, 3] {
            let mut part = vec![0; bytes];
            buffer.read_exact(&mut part).await.unwrap();
            read.extend_from_slice(&part);
            let shown = buffer.fill().await.unwrap();
            let taken = shown.len().min(5);
            read.extend_from_slice(&shown[..taken]);
            buffer.consume(taken);
        }
        let before = read.len();
        read.extend_from_slice(buffer.fill().await.unwrap());
        assert_eq!(read, sent[..read.len()]);
        assert_eq!(buffer.into_rest(), sent[before..read.len()]);
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
    async fn it_holds_memory_while_something_is_in_it() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut buffer = ReadBuffer::new(near);
        {
            let mut waits = pin!(buffer.fill());
            let waker = std::task::Waker::noop();
            assert!(waits.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
        }
        assert_eq!(buffer.buffer.capacity(), 0);
        tokio::io::AsyncWriteExt::write_all(&mut far, b"four").await.unwrap();
        assert_eq!(buffer.fill().await.unwrap(), b"four");
        buffer.consume(3);
        assert_eq!(buffer.rest(), b"r");
        buffer.consume(1);
        assert_eq!(buffer.buffer.capacity(), 0);
    }
}
