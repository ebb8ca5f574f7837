//! How a Worker asks the shards: each request until it is answered, all shards together.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use actix::Recipient;
use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::warn;

use crate::clock;
use crate::ids::{ShardId, Version, View, WorkerId};
use crate::lazy_timer::LazyTimer;
use crate::messages::{
    LinkError, PullError, PullParameters, PushError, PushGradient, Pushed, Values, answered, ask,
};
use crate::planted::{self, Bug};
use crate::slot_work::StepWork;

/// How long an answer may take; that to a push too, for which others' slots may have to be computed again
/// first.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long an answer is waited for at most: four times what the longest frame may take.
const ANSWER_LONGEST: Duration = Duration::from_secs(120);
/// Between two tries of the same request: first, and at most (it doubles).
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long the answers of a worker's shards are waited for. Where many workers share a slow link, one that is
/// always given up shortly before it comes would never come, and what is sent again makes the link slower:
/// each that was given up doubles it, for the steps after this one too, and those that come soon halve it.
#[derive(Clone, Debug)]
pub(crate) struct Patience(Rc<Cell<Duration>>);

impl Default for Patience {
    fn default() -> Self {
        Self(Rc::new(Cell::new(ANSWER_MAX)))
    }
}

impl Patience {
    fn given_up_after(&self, limit: Duration) {
        let doubled = (limit * 2).min(ANSWER_LONGEST);
        self.0.set(self.0.get().max(doubled));
    }

    /// How long to wait, and, where that is not the least, since when.
    fn ask(&self) -> (Duration, Option<Instant>) {
        let limit = self.0.get();
        (limit, (limit > ANSWER_MAX).then(Instant::now))
    }

    fn answered(&self, asked: Option<Instant>) {
        let limit = self.0.get();
        if asked.is_some_and(|asked| asked.elapsed() < limit / 4) {
            self.0.set((limit / 2).max(ANSWER_MAX));
        }
    }
}

/// How an exchange ended, if not with its purpose.
#[derive(Debug)]
pub(crate) enum Halt {
    /// Our view is over: a new lease is on its way.
    Stale,
    /// The shards have moved on without us.
    Resync,
    /// It would happen again.
    Failed(String),
}

/// What one shard is sent. Reports are for the first one.
pub(crate) fn push(
    worker: WorkerId,
    view: View,
    step: Version,
    computed: &StepWork,
    shard: usize,
) -> PushGradient {
    let StepWork { parts, payloads, reports } = computed;
    PushGradient {
        view,
        worker,
        shard: ShardId(u32::try_from(shard).unwrap_or(u32::MAX)),
        step,
        parts: parts.clone(),
        reports: if shard == 0 { reports.clone() } else { Vec::new() },
        payload: payloads.get(shard).cloned().unwrap_or_default(),
    }
}

/// Who takes a shard's pushes, one after another.
#[derive(Debug)]
pub(crate) struct Primary {
    push: Recipient<PushGradient>,
    timer: RefCell<LazyTimer>,
}

impl From<Recipient<PushGradient>> for Primary {
    fn from(push: Recipient<PushGradient>) -> Self {
        Self { push, timer: RefCell::default() }
    }
}

impl Primary {
    /// As [`ask`], with the timer of the pushes before.
    async fn ask(&self, push: PushGradient, limit: Duration) -> Result<Pushed, PushError> {
        let (deadline, mut answer) = (clock::after(limit), pin!(self.push.send(push)));
        let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => self.timer.borrow_mut().poll_until(deadline, cx).map(|()| None),
        });
        answered::<PushGradient>(answer.await, limit)
    }
}

/// Repeats a push until it is answered.
pub(crate) async fn push_one(
    to: Rc<Primary>,
    push: impl Fn() -> PushGradient,
    patience: Patience,
) -> Result<Values, Halt> {
    let (mut pause, mut told) = (RETRY_FIRST, false);
    loop {
        let (limit, asked) = patience.ask();
        let push = push();
        let PushGradient { step, shard, .. } = push;
        let evaluates = push.payload.is_empty();
        match to.ask(push, limit).await {
            Ok(pushed) if pushed.version == step.next() || evaluates => {
                patience.answered(asked);
                return Ok(pushed.values);
            }
            Ok(_) | Err(PushError::OutOfWindow { .. }) => return Err(Halt::Resync),
            Err(PushError::StaleView { .. }) => return Err(Halt::Stale),
            Err(PushError::Link(_)) if planted::is(Bug::ComputesAgain) => return Err(Halt::Resync),
            Err(PushError::Link(LinkError::Timeout { .. })) => {
                patience.given_up_after(limit);
                wait(&mut pause).await;
            }
            // It may be too long for a frame, of slots that were others': it goes when they are back.
            Err(PushError::Link(error @ LinkError::Protocol { .. })) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(%error, %step, %shard, "push not sent, trying again");
                }
                wait(&mut pause).await;
            }
            Err(
                PushError::NotReady(_)
                | PushError::Link(_)
                | PushError::Superseded
                | PushError::Busy { .. },
            ) => {
                wait(&mut pause).await;
            }
            Err(refused) => return Err(Halt::Failed(refused.to_string())),
        }
    }
}

/// Pulls one version of all shards: the newest that the slowest has, which the others still keep.
pub(crate) async fn pull_all(
    from: Vec<Recipient<PullParameters>>,
    view: View,
    patience: Patience,
) -> Result<(Version, Vec<Values>), Halt> {
    loop {
        let newest = try_join_all((0u32..).zip(&from).map(|(shard, from)| {
            let pull = PullParameters { view, shard: ShardId(shard), version: None };
            pull_one(from, pull, &patience)
        }))
        .await?;
        let version = newest.iter().flatten().map(|(version, _)| *version).min();
        let Some(version) = version else { return Err(Halt::Resync) };
        let mut values = Vec::with_capacity(from.len());
        for ((shard, from), newest) in (0u32..).zip(&from).zip(newest) {
            let pulled = match newest {
                Some((newest, values)) if newest == version || planted::is(Bug::MixedVersions) => {
                    Some((newest, values))
                }
                _ => {
                    let shard = ShardId(shard);
                    let pull = PullParameters { view, shard, version: Some(version) };
                    pull_one(from, pull, &patience).await?
                }
            };
            values.extend(pulled.map(|(_, values)| values));
        }
        if values.len() == from.len() {
            return Ok((version, values));
        }
    }
}

/// `None` if that version is gone meanwhile.
pub(crate) async fn pull_one(
    from: &Recipient<PullParameters>,
    pull: PullParameters,
    patience: &Patience,
) -> Result<Option<(Version, Values)>, Halt> {
    let mut pause = RETRY_FIRST;
    loop {
        let (limit, asked) = patience.ask();
        match ask(from, pull.clone(), limit).await {
            Ok(pulled) if pull.version.is_none_or(|wanted| wanted == pulled.version) => {
                patience.answered(asked);
                return Ok(Some((pulled.version, pulled.values)));
            }
            // Values of another version would be mixed into the one that was asked for.
            Ok(pulled) => {
                let (shard, got) = (pull.shard, pulled.version);
                return Err(Halt::Failed(format!(
                    "{shard} answered with {got}, not the one asked for"
                )));
            }
            Err(PullError::OutOfWindow { .. }) => return Ok(None),
            Err(PullError::StaleView { .. }) => return Err(Halt::Stale),
            Err(PullError::Link(LinkError::Timeout { .. })) => {
                patience.given_up_after(limit);
                wait(&mut pause).await;
            }
            Err(PullError::NotReady(_) | PullError::Link(_)) => wait(&mut pause).await,
            Err(refused @ PullError::WrongShard { .. }) => {
                return Err(Halt::Failed(refused.to_string()));
            }
        }
    }
}

pub(crate) async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(RETRY_MAX);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use actix::{Actor, Addr, Context, Handler, ResponseFuture};
    use tokio::time::timeout;

    use super::*;
    use crate::messages::Parameters;

    /// Answers each request, after so long.
    struct Slow(Duration);

    impl Actor for Slow {
        type Context = Context<Self>;
    }

    impl Slow {
        fn answer<T: 'static, E: 'static>(&self, answer: T) -> ResponseFuture<Result<T, E>> {
            let takes = self.0;
            Box::pin(async move {
                tokio::time::sleep(takes).await;
                Ok(answer)
            })
        }
    }

    impl Handler<PushGradient> for Slow {
        type Result = ResponseFuture<Result<Pushed, PushError>>;

        fn handle(&mut self, push: PushGradient, _: &mut Self::Context) -> Self::Result {
            self.answer(Pushed { version: push.step.next(), values: Arc::new(vec![1.0]) })
        }
    }

    impl Handler<PullParameters> for Slow {
        type Result = ResponseFuture<Result<Parameters, PullError>>;

        fn handle(&mut self, _: PullParameters, _: &mut Self::Context) -> Self::Result {
            self.answer(Parameters { version: Version(3), values: Arc::new(vec![1.0]) })
        }
    }

    /// As over a link that many workers with long pushes share.
    #[actix::test]
    async fn an_answer_that_takes_longer_than_its_limit_each_time_comes_in_the_end() {
        tokio::time::pause();
        let slow = Slow(Duration::from_secs(33)).start();
        let push = PushGradient {
            view: View(1),
            worker: WorkerId(0),
            shard: ShardId(0),
            step: Version(2),
            parts: Vec::new(),
            reports: Vec::new(),
            payload: vec![crate::messages::Payload::Dense(Arc::new(vec![1.0]))],
        };
        // Of the clock that goes on by itself where nothing else does.
        let limit = Duration::from_secs(600);
        let patience = Patience::default();
        let push = || push.clone();
        let to = |slow: &Addr<Slow>| Rc::new(Primary::from(slow.clone().recipient()));
        let pushing = push_one(to(&slow), push, patience.clone());
        let pushed = timeout(limit, pushing).await;
        assert_eq!(*pushed.expect("never answered").unwrap(), vec![1.0]);
        let pull = PullParameters { view: View(1), shard: ShardId(0), version: None };
        let pulled = timeout(limit, pull_one(&slow.clone().recipient(), pull, &patience)).await;
        let pulled = pulled.expect("never answered").unwrap();
        assert_eq!(pulled.map(|(version, _)| version), Some(Version(3)));
        // The next ones are not given up any more.
        let asked = Instant::now();
        push_one(to(&slow), push, patience.clone()).await.unwrap();
        assert_eq!(asked.elapsed().as_secs(), 33);
        let soon = Slow(Duration::from_millis(1)).start();
        let soon = to(&soon);
        for _ in 0..10 {
            push_one(Rc::clone(&soon), push, patience.clone()).await.unwrap();
        }
        assert_eq!(patience.0.get(), ANSWER_MAX);
    }
}
