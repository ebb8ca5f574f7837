//! Requests that wait for their turn, by the name of the version that they ask for.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use actix::dev::OneshotSender;

use super::names::Name;
use crate::messages::{Predict, PredictError, Prediction};
use crate::request_queue::{Arrivals, RequestQueue, Taken};
use crate::shadows::Comparison;

/// Requests of all models, beside the limit of each: bodies of a thousand small requests are a few
/// megabytes, and large ones have a limit of their own in the service.
const REQUESTS_MAX: usize = 8192;

/// Bytes of inputs that wait on one thread. The service has a limit for the bodies of requests; this is
/// for those that shadows are asked, and those whose senders have gone while nobody looked.
const BYTES_MAX: usize = 256 << 20;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: Predict,
    pub(super) reply: Reply,
    /// Where another version is asked the same.
    pub(super) compared: Option<Rc<Comparison>>,
}

#[derive(Debug)]
pub(super) enum Reply {
    To(OneshotSender<Result<Prediction, PredictError>>),
    /// It is asked for the sake of the comparison.
    Nobody,
}

impl Asked {
    pub(super) fn answer(self, answer: Result<Prediction, PredictError>) {
        self.split().1.answer(answer);
    }

    /// What the model is asked, and who hears the answer.
    pub(super) fn split(self) -> (Predict, Answers) {
        let Self { request, reply, compared } = self;
        let request_id = request.request_id.clone();
        (request, Answers { reply, compared, request_id })
    }

    fn bytes(&self) -> usize {
        self.request.bytes()
    }

    pub(super) fn is_gone(&self) -> bool {
        match &self.reply {
            Reply::To(sender) => sender.is_closed(),
            Reply::Nobody => false,
        }
    }
}

/// Who hears the answer to a request.
#[derive(Debug)]
pub(super) struct Answers {
    reply: Reply,
    compared: Option<Rc<Comparison>>,
    pub(super) request_id: String,
}

impl Answers {
    /// Whoever asked may have gone, which is nobody's fault.
    pub(super) fn answer(self, answer: Result<Prediction, PredictError>) {
        match self.reply {
            Reply::Nobody => self.compared.iter().for_each(|one| one.shadowed(&answer)),
            Reply::To(sender) => {
                self.compared.iter().for_each(|one| one.answered(&answer));
                let _ = sender.send(answer);
            }
        }
    }
}

/// Whether somebody has to begin to work on a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queued {
    First(Name),
    Behind,
    /// There was no room, and whoever asked knows.
    Refused,
}

/// A queue is there for as long as somebody works on it.
#[derive(Debug, Default)]
pub(super) struct WaitingRequests {
    queues: BTreeMap<Name, RequestQueue<Asked>>,
    requests: usize,
    /// Of their inputs.
    bytes: usize,
}

impl WaitingRequests {
    /// `limit`: requests of one name.
    pub(super) fn push(&mut self, now: Duration, asked: Asked, limit: usize) -> Queued {
        let name = (asked.request.model.clone(), asked.request.version.clone());
        // Nobody waits for what a shadow says: it is not asked where others soon have no room.
        let part = if matches!(asked.reply, Reply::Nobody) { 2 } else { 1 };
        let (limit, bytes) = (limit.div_ceil(part), asked.bytes());
        let refusal = |all: &Self| {
            if all.queues.get(&name).map_or(0, RequestQueue::len) >= limit {
                Some(PredictError::Full { model: name.0.clone(), limit })
            } else if all.requests >= REQUESTS_MAX / part {
                Some(PredictError::Busy { limit: REQUESTS_MAX / part })
            } else {
                let full = all.bytes.saturating_add(bytes) > BYTES_MAX / part;
                full.then_some(PredictError::Bytes { limit: BYTES_MAX / part })
            }
        };
        if refusal(self).is_some() {
            self.forget(now);
        }
        if let Some(refusal) = refusal(self) {
            asked.answer(Err(refusal));
            return Queued::Refused;
        }
        self.requests += 1;
        self.bytes += bytes;
        let first = !self.queues.contains_key(&name);
        let (rows, priority, wait) =
            (asked.request.rows(), asked.request.priority, asked.request.limit);
        let queue = self.queues.entry(name.clone()).or_default();
        queue.push(now, asked, rows, priority, wait);
        if first { Queued::First(name) } else { Queued::Behind }
    }

    /// Those that nobody waits for any more make room, whatever holds up their queues.
    fn forget(&mut self, now: Duration) {
        self.queues.values_mut().for_each(|queue| queue.forget(now, Asked::is_gone));
        self.count();
    }

    pub(super) fn queue(&self, name: &Name) -> Option<&RequestQueue<Asked>> {
        self.queues.get(name)
    }

    pub(super) fn take(
        &mut self,
        now: Duration,
        name: &Name,
        cut: Arrivals,
        rows_max: usize,
    ) -> Taken<Asked> {
        let Some(queue) = self.queues.get_mut(name) else {
            return Taken { batch: Vec::new(), late: Vec::new() };
        };
        let taken = queue.take(now, cut, rows_max);
        let all = taken.batch.iter().chain(taken.late.iter().map(|(asked, _)| asked));
        let (count, bytes) =
            all.fold((0, 0), |(count, bytes), asked| (count + 1, bytes + asked.bytes()));
        self.requests -= count;
        self.bytes -= bytes;
        taken
    }

    /// Nobody works on it any more, and whoever is in it hears so.
    pub(super) fn abandon(&mut self, name: &Name) {
        self.queues.remove(name);
        self.count();
    }

    fn count(&mut self) {
        self.requests = self.queues.values().map(RequestQueue::len).sum();
        self.bytes = self.queues.values().flat_map(RequestQueue::iter).map(Asked::bytes).sum();
    }

    /// Whether nobody is left, and nobody works on the queue from here on.
    pub(super) fn close(&mut self, name: &Name) -> bool {
        let empty = self.queues.get(name).is_none_or(RequestQueue::is_empty);
        if empty {
            self.queues.remove(name);
        }
        empty
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::shadows::Shadows;
    use crate::version::VersionRef;

    const NOW: Duration = Duration::ZERO;

    fn asked(values: usize, reply: Reply) -> Asked {
        let inputs = vec![0.0; values].into();
        let request = Predict::of_rows("m", VersionRef::Latest, 1, values, inputs).unwrap();
        Asked { request, reply, compared: None }
    }

    #[test]
    fn shadows_leave_half_of_the_room_to_those_who_wait_for_answers() {
        let (mut waiting, shadows) = (WaitingRequests::default(), Shadows::default());
        let shadow = || Asked {
            compared: Some(Comparison::new(shadows.clone(), "m".into(), "next".into())),
            ..asked(1, Reply::Nobody)
        };
        assert!(matches!(waiting.push(NOW, shadow(), 4), Queued::First(_)));
        assert_eq!(waiting.push(NOW, shadow(), 4), Queued::Behind);
        assert_eq!(waiting.push(NOW, shadow(), 4), Queued::Refused);
        assert_eq!(shadows.counts()[0].2.failed, 1);
        let (sender, _answer) = oneshot::channel();
        assert_eq!(waiting.push(NOW, asked(1, Reply::To(sender)), 4), Queued::Behind);
    }

    #[test]
    fn inputs_beyond_their_bytes_are_refused_until_nobody_waits_for_those_before() {
        let mut waiting = WaitingRequests::default();
        let half = BYTES_MAX / size_of::<f32>() / 2;
        let (first, answer) = oneshot::channel();
        let (second, _second) = oneshot::channel();
        waiting.push(NOW, asked(half, Reply::To(first)), 9);
        waiting.push(NOW, asked(half, Reply::To(second)), 9);
        let (third, mut refused) = oneshot::channel();
        assert_eq!(waiting.push(NOW, asked(1, Reply::To(third)), 9), Queued::Refused);
        let expected = PredictError::Bytes { limit: BYTES_MAX };
        assert_eq!(refused.try_recv().unwrap().unwrap_err(), expected);
        drop(answer);
        let (fourth, _fourth) = oneshot::channel();
        assert_eq!(waiting.push(NOW, asked(1, Reply::To(fourth)), 9), Queued::Behind);
    }
}
