//! Predictor: answers requests with published versions.
//!
//! Requests for the same version that wait at the same time are answered together: a product of
//! matrices with 64 rows takes a small part of the time of 64 products. Who goes when is decided in
//! `request_queue.rs`, what a name means in `predictor/names.rs`, which models are in memory in
//! `shelf.rs`; how a version answers is `serving.rs`.

mod lending;
mod loading;
mod names;
mod routes;
mod waiting;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Context, Handler, Recipient, ResponseFuture, Supervised};
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use lending::Instance;
use names::{Meaning, Name, Names};
use routes::Routes;
use waiting::{Answers, Asked, Queued, Reply, WaitingRequests};

use crate::in_memory::{Followed, Models};
use crate::log_seen::LogFeed;
use crate::messages::{
    FetchModel, FindError, FindModel, FindRoute, LoadModel, ModelLoaded, ModelUnloaded, Predict,
    PredictError, Prediction, Ran, Resolved, UnloadModel,
};
use crate::model::ModelKinds;
use crate::offer::Offer;
use crate::peers::Peers;
use crate::request_queue::{Batching, Taken};
use crate::runners::Runners;
use crate::serving::ServedModel;
use crate::shadows::Shadows;
use crate::version::VersionRef;

/// Messages that wait for the actor to look at them. It puts them in a queue at once, which has
/// limits of its own.
const MAILBOX: usize = 1024;

/// The version that is asked for, if it can answer.
type Ready = Result<(Arc<ServedModel>, Resolved), PredictError>;

/// Bytes of models in memory where nobody has said how many.
const BUDGET: u64 = 4 << 30;

/// Answers [`Predict`] for the models that it offers, and changes its offer.
#[derive(Debug)]
pub struct Predictor {
    shared: Rc<Shared>,
}

/// What the tasks hold. Changed between two awaits only, on one thread.
#[derive(Debug)]
struct Shared {
    kinds: ModelKinds,
    /// Shared with whoever shows it, and with the predictor that takes this one's place.
    offer: watch::Sender<Offer>,
    names: Rc<Names>,
    fetch: Recipient<FetchModel>,
    models: Models,
    followed: Option<Followed>,
    runners: Runners,
    peers: Peers,
    /// Whether a version is being loaded for another node.
    preparing: Cell<bool>,
    shadows: Shadows,
    routes: Routes,
    batching: Batching,
    waiting: RefCell<WaitingRequests>,
    /// Told when a request comes that others may wait for.
    came: Notify,
    /// Times of the queues are since then.
    origin: Instant,
}

/// What a predictor is made of.
#[derive(Clone, Debug)]
pub struct PredictorParts {
    pub kinds: ModelKinds,
    /// It goes on with this offer and publishes its changes there.
    pub offer: watch::Sender<Offer>,
    pub find: Recipient<FindModel>,
    pub fetch: Recipient<FetchModel>,
    /// Of the registry in this process. Without it the registry is asked before each run of a model.
    pub log: Option<LogFeed>,
    /// Shared by the predictors of a process, as the next one.
    pub models: Models,
    /// The state of a running training, which is the newest version of its model while it is there.
    pub followed: Option<Followed>,
    pub runners: Runners,
    /// Other nodes, which are asked where no runner is idle.
    pub peers: Peers,
    pub shadows: Shadows,
    /// Who says how a model's requests are split. Without it none are.
    pub find_route: Option<Recipient<FindRoute>>,
    pub batching: Batching,
    /// Whether no registry answered when one was asked last.
    away: Arc<AtomicBool>,
}

impl PredictorParts {
    /// With 4 GiB of models in memory, and no other thread than its own.
    pub fn new(
        kinds: ModelKinds,
        offer: watch::Sender<Offer>,
        find: Recipient<FindModel>,
        fetch: Recipient<FetchModel>,
    ) -> Self {
        Self {
            kinds,
            offer,
            find,
            fetch,
            log: None,
            models: Models::new(BUDGET),
            followed: None,
            runners: Runners::new(Vec::new()),
            peers: Peers::default(),
            shadows: Shadows::default(),
            find_route: None,
            batching: Batching::default(),
            away: Arc::default(),
        }
    }
}

impl Predictor {
    pub fn new(parts: PredictorParts) -> Self {
        let PredictorParts { kinds, offer, find, fetch, log, models, followed, runners, .. } =
            parts;
        let shared = Shared {
            kinds,
            offer,
            names: Rc::new(Names::new(find, log.clone(), parts.away.clone())),
            fetch,
            models,
            followed,
            runners,
            peers: parts.peers,
            preparing: Cell::new(false),
            shadows: parts.shadows,
            routes: Routes::new(parts.find_route, log, parts.away),
            batching: parts.batching,
            waiting: RefCell::default(),
            came: Notify::new(),
            origin: Instant::now(),
        };
        Self { shared: Rc::new(shared) }
    }
}

impl Actor for Predictor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Supervised for Predictor {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<Predict> for Predictor {
    type Result = InQueue;

    fn handle(&mut self, request: Predict, _ctx: &mut Self::Context) -> Self::Result {
        InQueue { shared: self.shared.clone(), request }
    }
}

/// Puts a request in its queue, with whoever waits for its answer: who has gone by the time that
/// it would be answered costs no work. A `ResponseFuture` would not know.
#[derive(Debug)]
pub struct InQueue {
    shared: Rc<Shared>,
    request: Predict,
}

impl MessageResponse<Predictor, Predict> for InQueue {
    fn handle(
        self,
        _ctx: &mut Context<Predictor>,
        sender: Option<OneshotSender<Result<Prediction, PredictError>>>,
    ) {
        let Some(sender) = sender else { return };
        let (request, reply) = (self.request, Reply::To(sender));
        self.shared.route(Asked { request, reply, compared: None });
    }
}

impl Handler<LoadModel> for Predictor {
    type Result = ResponseFuture<<LoadModel as actix::Message>::Result>;

    fn handle(&mut self, request: LoadModel, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.offer_again(request.model).await })
    }
}

impl Handler<UnloadModel> for Predictor {
    type Result = ResponseFuture<<UnloadModel as actix::Message>::Result>;

    fn handle(&mut self, request: UnloadModel, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.unload(request.model).await })
    }
}

/// Whoever works on a queue. Where that ends by a panic, those in it are not left to wait for nobody.
#[derive(Debug)]
struct Working<'a> {
    shared: &'a Shared,
    name: &'a Name,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(mut waiting) = self.shared.waiting.try_borrow_mut()
        {
            waiting.abandon(self.name);
        }
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn enqueue(self: &Rc<Self>, asked: Asked) {
        self.push(asked, self.batching.queue);
    }

    /// One that has been in the queue before has its place there.
    fn enqueue_again(self: &Rc<Self>, asked: Asked) {
        self.push(asked, usize::MAX);
    }

    fn push(self: &Rc<Self>, asked: Asked, limit: usize) {
        let queued = self.waiting.borrow_mut().push(self.now(), asked, limit);
        match queued {
            Queued::First(name) => {
                // Not before the messages that wait have been looked at: they go along.
                spawn_local(self.clone().work(name));
            }
            Queued::Behind => self.came.notify_waiters(),
            Queued::Refused => {}
        }
    }

    /// Answers those who ask for one version, until there are none.
    async fn work(self: Rc<Self>, name: Name) {
        let _working = Working { shared: &self, name: &name };
        let mut place = None;
        loop {
            self.gather(&name).await;
            // Whoever comes later may know of a newer version than the registry will say.
            let cut = self.waiting.borrow().queue(&name).map(|queue| queue.arrivals());
            let Some(cut) = cut else { return };
            let ready = self.ready(&name, &mut place).await;
            if place.is_none() && self.takes_long(&name, &ready) {
                place = self.idle(&ready);
                if place.is_none() {
                    place = self.runners.place().await.map(Instance::Here);
                    // More have come, and the name may mean something else.
                    continue;
                }
            }
            let rows_max = self.batching.rows_max;
            let taken = self.waiting.borrow_mut().take(self.now(), &name, cut, rows_max);
            self.answer(&name, ready, taken, place.take());
            if self.waiting.borrow_mut().close(&name) {
                return;
            }
            // Other models have their turn, and requests that came meanwhile are looked at.
            yield_now().await;
        }
    }

    fn takes_long(&self, name: &Name, ready: &Ready) -> bool {
        let waiting = self.waiting.borrow();
        let rows_max = self.batching.rows_max;
        let rows = waiting.queue(name).map_or(0, |queue| queue.next_rows(rows_max));
        ready.as_ref().is_ok_and(|(served, _)| self.runners.take(served, rows))
    }

    /// Waits until a batch is full, or the first one has waited for long enough.
    async fn gather(&self, name: &Name) {
        let Batching { rows_max, wait, .. } = self.batching;
        if wait.is_zero() {
            return;
        }
        loop {
            let came = self.came.notified();
            let until = {
                let waiting = self.waiting.borrow();
                let Some(queue) = waiting.queue(name) else { return };
                let Some(due) = queue.due(wait).filter(|_| queue.rows() < rows_max) else { return };
                self.origin + due
            };
            if timeout_at(until, came).await.is_err() {
                return;
            }
        }
    }

    /// The version that a name means now, in memory. No runner is kept waiting while it is loaded.
    async fn ready(&self, name: &Name, place: &mut Option<Instance>) -> Ready {
        if let Some(served) = self.followed(name) {
            return match self.offer.borrow().has(&name.0) {
                true => Ok((served, Resolved::Now)),
                false => Err(PredictError::Unloaded { model: name.0.clone() }),
            };
        }
        let (meaning, resolved) = self.resolve(name).await?;
        // Not before: nothing of a model that is unloaded meanwhile may get into memory.
        if !self.offer.borrow().has(&name.0) {
            return Err(PredictError::Unloaded { model: name.0.clone() });
        }
        if let Some(served) = self.models.here(&name.0, meaning.version) {
            return Ok((served, resolved));
        }
        *place = None;
        let served = self.get(&name.0, meaning).await?;
        if !self.offer.borrow().has(&name.0) {
            self.models.unload(&name.0);
            return Err(PredictError::Unloaded { model: name.0.clone() });
        }
        Ok((served, resolved))
    }

    /// The state of a running training, where the name means that.
    fn followed(&self, name: &Name) -> Option<Arc<ServedModel>> {
        let followed = self.followed.as_ref().filter(|_| name.1 == VersionRef::Latest)?;
        followed.borrow().clone().filter(|served| served.model() == name.0)
    }

    async fn resolve(&self, name: &Name) -> Result<(Meaning, Resolved), PredictError> {
        let resolved = self.names.resolve(name).await;
        if let (Err(FindError::Catalog(_)), VersionRef::Number(number)) = (&resolved, &name.1) {
            self.models.forget(&name.0, *number);
        }
        Ok(resolved?)
    }

    fn answer(
        self: &Rc<Self>,
        name: &Name,
        ready: Ready,
        taken: Taken<Asked>,
        place: Option<Instance>,
    ) {
        for (asked, waited) in taken.late {
            let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
            asked.answer(Err(PredictError::Late { model: name.0.clone(), waited_ms }));
        }
        let batch: Vec<Asked> = taken.batch.into_iter().filter(|asked| !asked.is_gone()).collect();
        let (served, resolved) = match ready {
            Ok(_) if batch.is_empty() => return,
            Ok(ready) => ready,
            Err(error) => {
                return batch.into_iter().for_each(|asked| asked.answer(Err(error.clone())));
            }
        };
        for Asked { request, .. } in batch.iter().filter(|one| !one.request.request_id.is_empty()) {
            let Predict { model, request_id, .. } = request;
            let rows = request.rows();
            debug!(request_id, model, rows, together = batch.len(), "request has its turn");
        }
        let place = match place {
            Some(Instance::There(borrowed)) => {
                let run = self.clone().run_there(borrowed, name.clone(), served, resolved, batch);
                spawn_local(run);
                return;
            }
            Some(Instance::Here(place)) => Some(place),
            None => None,
        };
        let (requests, senders): (Vec<_>, Vec<_>) = batch.into_iter().map(Asked::split).unzip();
        if let Some(place) = place {
            let (shared, name) = (self.clone(), name.clone());
            spawn_local(async move {
                let ran = place.run(served.clone(), requests).await;
                shared.reply(&name, &served, resolved, senders, ran);
            });
        } else {
            let start = Instant::now();
            let answers = served.predict(requests);
            let ran = Ran { answers, took: start.elapsed() };
            self.reply(name, &served, resolved, senders, ran);
        }
    }

    fn reply(
        &self,
        name: &Name,
        served: &Arc<ServedModel>,
        resolved: Resolved,
        senders: Vec<Answers>,
        ran: Ran,
    ) {
        let Ran { answers, took } = ran;
        let rows = answers.iter().flatten().next().map(|answer| answer.run.rows);
        if let Some(rows) = rows {
            served.ran(rows, took);
        }
        for (answer, sender) in std::iter::zip(&answers, &senders) {
            if let Err(error @ PredictError::Model { .. }) = answer {
                warn!(%error, request_id = sender.request_id, "a model failed");
            }
        }
        if served.has_panicked() {
            self.models.replace(&name.0, served);
        }
        let compute_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        for (sender, answer) in senders.into_iter().zip(answers) {
            sender.answer(answer.map(|answer| Prediction { resolved, compute_ns, ..answer }));
        }
    }

    /// Offers a model whose newest version can be loaded, if nobody unloads it meanwhile.
    async fn offer_again(&self, model: String) -> Result<ModelLoaded, PredictError> {
        let name = (model, VersionRef::Latest);
        if let Some(served) = self.followed(&name) {
            self.offer.send_modify(|offer| offer.load(&name.0));
            return Ok(ModelLoaded { version: served.version() });
        }
        let (meaning, _) = self.resolve(&name).await?;
        let (model, version) = (name.0, meaning.version);
        let unloaded_by = self.offer.borrow().unloaded_by(&model);
        self.get(&model, meaning).await?;
        if self.offer.borrow().unloaded_by(&model) != unloaded_by {
            self.models.unload(&model);
            return Err(PredictError::Unloaded { model });
        }
        self.offer.send_modify(|offer| offer.load(&model));
        info!(model, version, "model offered");
        Ok(ModelLoaded { version })
    }

    async fn unload(&self, model: String) -> Result<ModelUnloaded, PredictError> {
        let name = (model, VersionRef::Latest);
        if self.followed(&name).is_none() {
            self.resolve(&name).await?;
        }
        let model = name.0;
        self.offer.send_modify(|offer| offer.unload(&model));
        let versions = self.models.unload(&model);
        info!(model, versions, "model unloaded");
        Ok(ModelUnloaded { versions })
    }
}

#[cfg(test)]
mod tests;
