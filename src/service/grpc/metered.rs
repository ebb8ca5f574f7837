//! The body of a call, whose bytes count among those of all requests.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use actix_web::http::StatusCode;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, Sleep, sleep};
use tonic::Status;

use crate::service::request_metrics::RequestMetrics;
use crate::service::{BODY_LIMIT, PLACE};

/// Bytes before each message: whether it is compressed, and its length, big-endian.
const PREFIX: usize = 5;

/// The one call that takes more than a message.
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The most that deflate makes of a byte.
const UNPACKED_MAX: usize = 1032;

/// How long a call may take to end when its one message is there: until then that is in memory.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Takes places for a message as its bytes come, and for what it will be when it is unpacked as soon
/// as it is whole. A call of one message has them until all of it is read, its end included; whoever
/// answers it takes them for the message that came of it. Those of a stream's whole messages are
/// laid into [`Answered`], which is emptied when a message is answered, whoever reads that answer.
#[derive(Debug)]
pub(super) struct Metered {
    body: tonic::body::Body,
    meter: Meter,
    /// Of the message that is under way.
    held: Option<OwnedSemaphorePermit>,
    places: usize,
    message: Boundary,
    /// Where the places of whole messages go; none where the call has one message.
    answered: Option<Answered>,
    /// When the message, or the whole call, is to be there.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// The places of a stream's messages that are not answered yet, among the extensions of its request.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

/// What all bodies share.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) places: Arc<Semaphore>,
    /// Bytes of the largest message.
    pub(super) largest: usize,
    pub(super) requests: RequestMetrics,
}

/// Where in the sequence of messages the body is.
#[derive(Debug, Default)]
struct Boundary {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    /// Bytes since the last message ended.
    since: usize,
}

/// What ended in some bytes: messages as they are, and what those that are packed may become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ended {
    messages: usize,
    unpacked: usize,
}

impl Answered {
    /// A message has been answered; those that came in the same bytes as it are small.
    pub(super) fn one(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn put(&self, more: Option<OwnedSemaphorePermit>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *all, more) {
            (Some(all), Some(more)) => all.merge(more),
            (none @ None, more) => *none = more,
            (Some(_), None) => {}
        }
    }
}

impl Meter {
    fn refuse(&self, code: StatusCode, status: Status) -> Status {
        self.requests.count_refused(code);
        status
    }
}

/// Whether a call takes more than one message.
pub(super) fn is_stream(path: &str) -> bool {
    path == STREAM
}

impl Metered {
    /// `answered`: of a stream.
    pub(super) fn new(body: tonic::body::Body, answered: Option<Answered>, meter: Meter) -> Self {
        // A stream may wait for its next message for as long as its connection lives.
        let deadline = answered.is_none().then(|| Box::pin(sleep(BODY_LIMIT)));
        let (held, places, message) = (None, 0, Boundary::default());
        Self { body, meter, held, places, message, answered, deadline }
    }

    fn meter(&mut self, data: &[u8]) -> Result<(), Status> {
        let before = self.message.since;
        let ended = self.message.pass(data, self.meter.largest);
        self.take(before + data.len() + ended.unpacked)?;
        if ended.messages > 0 {
            if let Some(answered) = &self.answered {
                answered.put(self.held.take());
                self.places = 0;
                self.take(self.message.since)?;
            } else if let Some(deadline) = &mut self.deadline {
                deadline.as_mut().reset(Instant::now() + END_LIMIT);
            }
        }
        if self.answered.is_some() {
            match (self.message.is_between(), &mut self.deadline) {
                (true, deadline) => *deadline = None,
                (false, Some(deadline)) if ended.messages > 0 => {
                    deadline.as_mut().reset(Instant::now() + BODY_LIMIT);
                }
                (false, deadline @ None) => *deadline = Some(Box::pin(sleep(BODY_LIMIT))),
                (false, Some(_)) => {}
            }
        }
        Ok(())
    }

    /// Has places for so many bytes in all.
    fn take(&mut self, bytes: usize) -> Result<(), Status> {
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
        Ok(())
    }
}

impl Boundary {
    fn is_between(&self) -> bool {
        self.prefix_len == 0
    }

    /// What ends in `data`. `largest`: bytes of an unpacked message.
    fn pass(&mut self, mut data: &[u8], largest: usize) -> Ended {
        let mut ended = Ended::default();
        while let Some((first, rest)) = data.split_first() {
            if self.prefix_len < PREFIX {
                self.prefix[self.prefix_len] = *first;
                self.prefix_len += 1;
                self.since += 1;
                data = rest;
                let [_, len @ ..] = self.prefix;
                self.left = u32::from_be_bytes(len) as usize;
            } else {
                let part = self.left.min(data.len());
                self.left -= part;
                self.since += part;
                data = &data[part..];
            }
            if self.prefix_len == PREFIX && self.left == 0 {
                let [packed, len @ ..] = self.prefix;
                ended.messages += 1;
                if packed != 0 {
                    let most = (u32::from_be_bytes(len) as usize).saturating_mul(UNPACKED_MAX);
                    ended.unpacked = ended.unpacked.saturating_add(most.min(largest));
                }
                (self.prefix_len, self.since) = (0, 0);
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

    fn one(places: &Arc<Semaphore>) -> Metered {
        Metered::new(tonic::body::Body::empty(), None, meter(places))
    }

    fn stream(places: &Arc<Semaphore>) -> (Metered, Answered) {
        let answered = Answered::default();
        let body = tonic::body::Body::empty();
        (Metered::new(body, Some(answered.clone()), meter(places)), answered)
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
                let ended = ends.iter().filter(|end| (before + 1..=passed).contains(*end));
                assert_eq!(boundary.pass(part, 2048).messages, ended.count(), "{passed} by {step}");
                assert_eq!(boundary.is_between(), ends.contains(&passed), "{passed} by {step}");
                let since = passed - ends.iter().filter(|end| **end <= passed).max().unwrap_or(&0);
                assert_eq!(boundary.since, since, "{passed} by {step}");
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
        for (answered, bytes, limit) in [
            (None, &message(9)[..], END_LIMIT),
            (None, &[0, 0], BODY_LIMIT),
            (None, &[], BODY_LIMIT),
            (Some(Answered::default()), &[0, 0], BODY_LIMIT),
        ] {
            let mut metered = Metered::new(endless(bytes), answered, meter(&places));
            let began = Instant::now();
            let mut next = async || poll_fn(|cx| Pin::new(&mut metered).poll_frame(cx)).await;
            assert!(next().await.unwrap().is_ok());
            let late = next().await.unwrap().unwrap_err();
            assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
            assert!(began.elapsed() < limit + Duration::from_millis(2));
            drop(metered);
            assert_eq!(places.available_permits(), 2);
        }
    }

    #[actix_rt::test]
    async fn a_stream_may_wait_for_its_next_message_and_has_places_until_its_last_is_answered() {
        tokio::time::pause();
        let places = Arc::new(Semaphore::new(2));
        let answered = Answered::default();
        let body = endless(&message(9));
        let mut metered = Metered::new(body, Some(answered.clone()), meter(&places));
        let mut next = async || poll_fn(|cx| Pin::new(&mut metered).poll_frame(cx)).await;
        assert!(next().await.unwrap().is_ok());
        assert_eq!(places.available_permits(), 1);
        // Also where nobody asks for more: the answer waits for a client that doesn't read.
        answered.one();
        assert_eq!(places.available_permits(), 2);
        assert!(tokio::time::timeout(2 * BODY_LIMIT, next()).await.is_err());
    }

    #[actix_rt::test]
    async fn a_call_of_one_message_has_its_places_until_it_is_read() {
        let places = Arc::new(Semaphore::new(2));
        let mut metered = one(&places);
        metered.meter(&message(200)).unwrap();
        assert_eq!(places.available_permits(), 1);
        drop(metered);
        assert_eq!(places.available_permits(), 2);
    }

    #[actix_rt::test]
    async fn messages_that_are_cut_anywhere_leave_no_places_behind() {
        let places = Arc::new(Semaphore::new(2));
        let (mut metered, answered) = stream(&places);
        let both = [message(100), message(100)].concat();
        for _ in 0..20 {
            for part in [&both[..50], &both[50..150], &both[150..]] {
                metered.meter(part).unwrap();
                answered.one();
            }
        }
        assert_eq!(places.available_permits(), 2);
        // Never at the end of a message.
        metered.meter(&both[..50]).unwrap();
        for _ in 0..2000 {
            metered.meter(&[&both[50..105], &both[..50]].concat()).unwrap();
            answered.one();
        }
        assert_eq!(places.available_permits(), 1);
    }

    #[actix_rt::test]
    async fn bytes_are_counted_together_however_they_are_cut() {
        let places = Arc::new(Semaphore::new(3));
        let (mut metered, answered) = stream(&places);
        let long = [&[0, 0, 0, 8, 0][..], &[1; 2048]].concat();
        for byte in &long[..1024] {
            metered.meter(std::slice::from_ref(byte)).unwrap();
        }
        assert_eq!(places.available_permits(), 2);
        metered.meter(&long[1024..]).unwrap();
        assert_eq!(places.available_permits(), 0);
        assert!(one(&places).meter(&message(1)).is_err());
        answered.one();
        assert!(one(&places).meter(&message(1)).is_ok());
    }

    #[actix_rt::test]
    async fn what_is_packed_is_counted_as_what_it_may_become_once_it_is_whole() {
        let places = Arc::new(Semaphore::new(3));
        let (mut metered, answered) = stream(&places);
        metered.meter(&[1, 0, 0, 0]).unwrap();
        metered.meter(&[1]).unwrap();
        assert_eq!(places.available_permits(), 2);
        metered.meter(&[7]).unwrap();
        assert_eq!(places.available_permits(), 1);
        answered.one();
        // No more than the largest message.
        metered.meter(&[1, 0, 0, 0, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1]).unwrap();
        assert_eq!(places.available_permits(), 0);
    }
}
