//! The body of a call, whose bytes count among those of all requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::service::{BODY_LIMIT, PLACE};

/// Bytes before each message: whether it is compressed, and its length, big-endian.
const PREFIX: usize = 5;

/// Takes places for a message while it is read. Whoever answers it takes them for the message that
/// came of it.
#[derive(Debug)]
pub(super) struct Metered {
    body: tonic::body::Body,
    places: Arc<Semaphore>,
    /// Of the newest bytes, in which a message may have begun.
    last: Option<OwnedSemaphorePermit>,
    /// Of those before, which belong to the same message.
    earlier: Option<OwnedSemaphorePermit>,
    message: Boundary,
    /// Whether a message ended in the newest bytes.
    ended: bool,
    /// When the message that has begun is to be whole; none is under way where there is none.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Where in the sequence of messages the body is.
#[derive(Debug, Default)]
struct Boundary {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Metered {
    pub(super) fn new(body: tonic::body::Body, places: Arc<Semaphore>) -> Self {
        let (last, earlier, deadline) = (None, None, None);
        Self { body, places, last, earlier, message: Boundary::default(), ended: false, deadline }
    }

    /// Gives the places of whole messages back: more is asked for when all of them were read.
    fn release(&mut self) {
        if std::mem::take(&mut self.ended) {
            self.earlier = None;
            self.last = self.last.take().filter(|_| !self.message.is_between());
        }
    }

    fn meter(&mut self, data: &[u8]) -> Result<(), Status> {
        let places = u32::try_from(data.len().div_ceil(PLACE)).unwrap_or(u32::MAX);
        let Ok(more) = self.places.clone().try_acquire_many_owned(places) else {
            return Err(Status::resource_exhausted(
                "too many bytes of requests are under way already; try again in a second",
            ));
        };
        match (self.last.replace(more), &mut self.earlier) {
            (Some(last), Some(earlier)) => earlier.merge(last),
            (Some(last), none) => *none = Some(last),
            (None, _) => {}
        }
        self.ended = self.message.pass(data);
        if self.ended {
            self.deadline = None;
        }
        if !self.message.is_between() && self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(BODY_LIMIT)));
        }
        Ok(())
    }
}

impl Boundary {
    fn is_between(&self) -> bool {
        self.prefix_len == 0
    }

    /// Whether a message ends in `data`.
    fn pass(&mut self, mut data: &[u8]) -> bool {
        let mut ended = false;
        while let Some((first, rest)) = data.split_first() {
            if self.prefix_len < PREFIX {
                self.prefix[self.prefix_len] = *first;
                self.prefix_len += 1;
                data = rest;
                let [_, len @ ..] = self.prefix;
                self.left = u32::from_be_bytes(len) as usize;
            } else {
                let part = self.left.min(data.len());
                self.left -= part;
                data = &data[part..];
            }
            if self.prefix_len == PREFIX && self.left == 0 {
                self.prefix_len = 0;
                ended = true;
            }
        }
        ended
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.release();
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let Some(deadline) = &mut self.deadline else { return Poll::Pending };
            ready!(deadline.as_mut().poll(cx));
            let text = format!("the message did not arrive within {} s", BODY_LIMIT.as_secs());
            return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
        };
        let frame = frame.transpose()?;
        if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
            self.meter(data)?;
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn message(len: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, len];
        bytes.resize(PREFIX + usize::from(len), 1);
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_they_are_cut() {
        let stream = [message(0), message(3), message(200)].concat();
        let ends = [5, 13, 218];
        for step in [1, 2, 3, 7, 300] {
            let mut boundary = Boundary::default();
            let mut passed = 0;
            for part in stream.chunks(step) {
                let before = passed;
                passed += part.len();
                let ended = ends.iter().any(|end| (before + 1..=passed).contains(end));
                assert_eq!(boundary.pass(part), ended, "{passed} by {step}");
                assert_eq!(boundary.is_between(), ends.contains(&passed), "{passed} by {step}");
            }
        }
    }

    #[actix_rt::test]
    async fn a_message_that_stops_coming_loses_its_places() {
        tokio::time::pause();
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Status>>(1);
        let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        let body = tonic::body::Body::new(http_body_util::StreamBody::new(Box::pin(frames)));
        let places = Arc::new(Semaphore::new(2));
        let mut metered = Metered::new(body, places.clone());
        let mut next = async || poll_fn(|cx| Pin::new(&mut metered).poll_frame(cx)).await;
        sender.send(Ok(Frame::data(Bytes::from_static(&[0, 0, 0])))).await.unwrap();
        assert!(next().await.unwrap().is_ok());
        let late = next().await.unwrap().unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        drop(metered);
        assert_eq!(places.available_permits(), 2);
    }

    #[actix_rt::test]
    async fn places_are_held_for_one_message_at_a_time() {
        let places = Arc::new(Semaphore::new(2));
        let mut metered = Metered::new(tonic::body::Body::empty(), places.clone());
        let mut pass = |data: &[u8]| {
            metered.release();
            metered.meter(data).unwrap();
        };
        // Also where the next one begins in the same bytes.
        let both = [message(100), message(100)].concat();
        for _ in 0..3 {
            pass(&both[..50]);
            pass(&both[50..150]);
            pass(&both[150..]);
        }
        for _ in 0..3 {
            let message = message(200);
            pass(&message[..100]);
            pass(&message[100..]);
            assert_eq!(places.available_permits(), 0);
        }
        let mut other = Metered::new(tonic::body::Body::empty(), places.clone());
        assert!(other.meter(&message(1)).is_err());
        // A stream that waits for its next message holds nothing.
        metered.release();
        assert!(other.meter(&message(1)).is_ok());
    }
}
