//! The body of a call, whose bytes count among those of all requests.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use actix_web::http::StatusCode;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use crate::service::request_metrics::RequestMetrics;
use crate::service::{BODY_LIMIT, PLACE};

/// Bytes before each message: whether it is compressed, and its length, big-endian.
const PREFIX: usize = 5;

/// The one call that takes more than a message.
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// Takes places for a message as its bytes come, and for as long as it is read. A call of one
/// message has them until all of it is read, its end included; whoever answers it takes them for the
/// message that came of it. A stream has them until its next message is asked for, which is when
/// this one is answered.
#[derive(Debug)]
pub(super) struct Metered {
    body: tonic::body::Body,
    meter: Meter,
    /// Of the message that is under way, and of whole ones that are not answered yet.
    held: Option<OwnedSemaphorePermit>,
    places: usize,
    /// Bytes of the message that is under way.
    bytes: usize,
    message: Boundary,
    /// Whether a message has ended since more was asked for.
    ended: bool,
    is_stream: bool,
    /// When the message, or the whole call, is to be there.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// What all bodies share.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) places: Arc<Semaphore>,
    /// Bytes of the largest message.
    pub(super) largest: usize,
    pub(super) requests: RequestMetrics,
}

impl Meter {
    fn refuse(&self, code: StatusCode, status: Status) -> Status {
        self.requests.count_refused(code);
        status
    }
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
    pub(super) fn new(body: tonic::body::Body, path: &str, meter: Meter) -> Self {
        let is_stream = path == STREAM;
        Self {
            body,
            meter,
            held: None,
            places: 0,
            bytes: 0,
            message: Boundary::default(),
            ended: false,
            is_stream,
            // A stream may wait for its next message for as long as its connection lives.
            deadline: (!is_stream).then(|| Box::pin(sleep(BODY_LIMIT))),
        }
    }

    /// Gives the places of whole messages of a stream back: more is asked for when all of them were
    /// answered.
    fn release(&mut self) {
        if self.is_stream && std::mem::take(&mut self.ended) && self.message.is_between() {
            self.held = None;
            (self.places, self.bytes) = (0, 0);
        }
    }

    fn meter(&mut self, data: &[u8]) -> Result<(), Status> {
        self.bytes = self.bytes.saturating_add(data.len());
        self.ended |= self.message.pass(data);
        // Unpacked, it may have as many bytes as any message.
        let bytes = if self.message.is_packed() { self.meter.largest } else { self.bytes };
        let more = bytes.div_ceil(PLACE).saturating_sub(self.places);
        let taken = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(taken) = self.meter.places.clone().try_acquire_many_owned(taken) else {
            let text = "too many bytes of requests are under way already; try again in a second";
            let status = Status::resource_exhausted(text);
            return Err(self.meter.refuse(StatusCode::TOO_MANY_REQUESTS, status));
        };
        self.places += more;
        match &mut self.held {
            Some(held) => held.merge(taken),
            none => *none = Some(taken),
        }
        if self.is_stream {
            match (self.message.is_between(), &mut self.deadline) {
                (true, deadline) => *deadline = None,
                (false, Some(deadline)) if self.ended => {
                    deadline.as_mut().reset(Instant::now() + BODY_LIMIT);
                }
                (false, deadline @ None) => *deadline = Some(Box::pin(sleep(BODY_LIMIT))),
                (false, Some(_)) => {}
            }
        }
        Ok(())
    }
}

impl Boundary {
    fn is_between(&self) -> bool {
        self.prefix_len == 0
    }

    /// Whether the newest message is compressed.
    fn is_packed(&self) -> bool {
        self.prefix[0] != 0
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
            let status = Status::deadline_exceeded(text);
            return Poll::Ready(Some(Err(self.meter.refuse(StatusCode::REQUEST_TIMEOUT, status))));
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
    use crate::metrics::Metrics;

    fn meter(places: &Arc<Semaphore>) -> Meter {
        let requests = RequestMetrics::new(&Metrics::new());
        Meter { places: places.clone(), largest: 2048, requests }
    }

    fn message(len: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, len];
        bytes.resize(PREFIX + usize::from(len), 1);
        bytes
    }

    fn empty(path: &str, places: &Arc<Semaphore>) -> Metered {
        Metered::new(tonic::body::Body::empty(), path, meter(places))
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

    /// A body of these bytes, which does not end.
    fn endless(bytes: &[u8]) -> tonic::body::Body {
        let frames = [Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(bytes)))];
        let frames = futures_util::stream::iter(frames);
        let frames = futures_util::StreamExt::chain(frames, futures_util::stream::pending());
        tonic::body::Body::new(http_body_util::StreamBody::new(frames))
    }

    #[actix_rt::test]
    async fn a_call_that_does_not_end_loses_its_places_whether_its_message_is_whole_or_not() {
        tokio::time::pause();
        let places = Arc::new(Semaphore::new(2));
        for (path, bytes) in
            [("/one", &message(9)[..]), ("/one", &[0, 0]), ("/one", &[]), (STREAM, &[0, 0])]
        {
            let mut metered = Metered::new(endless(bytes), path, meter(&places));
            let mut next = async || poll_fn(|cx| Pin::new(&mut metered).poll_frame(cx)).await;
            assert!(next().await.unwrap().is_ok());
            let late = next().await.unwrap().unwrap_err();
            assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
            drop(metered);
            assert_eq!(places.available_permits(), 2);
        }
    }

    #[actix_rt::test]
    async fn a_stream_may_wait_for_its_next_message() {
        tokio::time::pause();
        let places = Arc::new(Semaphore::new(2));
        let mut metered = Metered::new(endless(&message(9)), STREAM, meter(&places));
        let mut next = async || poll_fn(|cx| Pin::new(&mut metered).poll_frame(cx)).await;
        assert!(next().await.unwrap().is_ok());
        assert!(tokio::time::timeout(2 * BODY_LIMIT, next()).await.is_err());
        assert_eq!(places.available_permits(), 2);
    }

    #[actix_rt::test]
    async fn a_message_has_its_places_until_its_call_is_read_or_its_stream_asks_for_more() {
        let places = Arc::new(Semaphore::new(2));
        for (path, left) in [("/one", 1), (STREAM, 2)] {
            let mut metered = empty(path, &places);
            metered.meter(&message(200)).unwrap();
            assert_eq!(places.available_permits(), 1, "{path}");
            metered.release();
            assert_eq!(places.available_permits(), left, "{path}");
            drop(metered);
            assert_eq!(places.available_permits(), 2, "{path}");
        }
    }

    #[actix_rt::test]
    async fn bytes_are_counted_together_however_they_are_cut() {
        let places = Arc::new(Semaphore::new(3));
        let mut metered = empty(STREAM, &places);
        let long = [&[0, 0, 0, 8, 0][..], &[1; 2048]].concat();
        for byte in &long[..1024] {
            metered.meter(std::slice::from_ref(byte)).unwrap();
        }
        assert_eq!(places.available_permits(), 2);
        metered.meter(&long[1024..]).unwrap();
        assert_eq!(places.available_permits(), 0);
        assert!(empty(STREAM, &places).meter(&message(1)).is_err());
        metered.release();
        assert!(empty(STREAM, &places).meter(&message(1)).is_ok());
        // What is compressed may be as large as any.
        metered.meter(&[1, 0, 0, 0, 9, 1]).unwrap();
        assert_eq!(places.available_permits(), 1);
    }
}
