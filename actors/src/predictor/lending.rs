//! Runs on instances of other nodes where those of this one are busy, and theirs on idle ones here.

use std::rc::Rc;
use std::sync::Arc;

use actix::{Handler, ResponseFuture};
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::names::Name;
use super::waiting::Asked;
use super::{Predictor, Ready, Shared};
use crate::messages::{LendError, LendRun, Lent, Ran, Resolved};
use crate::peers::Borrowed;
use crate::runners::Place;
use crate::serving::ServedModel;
use crate::version::VersionRef;

/// Where a run takes place that takes long.
#[derive(Debug)]
pub(super) enum Instance {
    Here(Place),
    There(Borrowed),
}

impl Shared {
    /// An instance that has nothing to do now: one of this node, or else one that another node may have.
    pub(super) fn idle(&self, ready: &Ready) -> Option<Instance> {
        if let Some(place) = self.runners.try_place() {
            return Some(Instance::Here(place));
        }
        // The state of a running training has no number that others know it by.
        let published = ready.as_ref().is_ok_and(|(served, _)| served.version() > 0);
        published.then(|| self.peers.try_borrow()).flatten().map(Instance::There)
    }

    /// Has another node run a batch. Where it does not, the batch waits in its queue again, beside whoever came
    /// meanwhile; those who have gone by then are forgotten with it.
    pub(super) async fn run_there(
        self: Rc<Self>,
        borrowed: Borrowed,
        name: Name,
        served: Arc<ServedModel>,
        resolved: Resolved,
        batch: Vec<Asked>,
    ) {
        let requests: Vec<_> = batch.iter().map(|asked| asked.request.clone()).collect();
        let began = Instant::now();
        let Some(ran) = borrowed.run(&served, &requests).await else {
            let waited = began.elapsed();
            for mut asked in batch.into_iter().filter(|asked| !asked.is_gone()) {
                asked.request.limit = asked.request.limit.saturating_sub(waited);
                self.enqueue_again(asked);
            }
            return;
        };
        let senders = batch.into_iter().map(|asked| asked.split().1).collect();
        self.reply(&name, &served, resolved, senders, ran);
    }

    /// A version that another node would have run here, for the next time. One at a time.
    fn prepare(self: &Rc<Self>, model: String, version: u64) {
        if self.preparing.replace(true) {
            return;
        }
        let shared = self.clone();
        spawn_local(async move {
            let name = (model, VersionRef::Number(version));
            if let Ok((meaning, _)) = shared.resolve(&name).await
                && shared.offer.borrow().has(&name.0)
            {
                // Why not is told to whoever asks for it here.
                let _ = shared.get(&name.0, meaning).await;
                if !shared.offer.borrow().has(&name.0) {
                    shared.models.unload(&name.0);
                }
            }
            shared.preparing.set(false);
        });
    }
}

impl Handler<LendRun> for Predictor {
    type Result = ResponseFuture<Result<Lent, LendError>>;

    fn handle(&mut self, run: LendRun, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        let LendRun { model, version, digest, requests } = run;
        let Some(place) = shared.runners.try_place() else {
            return Box::pin(async { Err(LendError::Occupied) });
        };
        let here = shared.models.here(&model, version).filter(|here| *here.digest() == *digest);
        let Some(served) = here.filter(|_| shared.offer.borrow().has(&model)) else {
            shared.prepare(model.clone(), version);
            return Box::pin(async move { Err(LendError::NotThere { model, version }) });
        };
        Box::pin(async move {
            let Ran { answers, took } = place.run(served.clone(), requests).await;
            let rows = answers.iter().flatten().next().map(|answer| answer.run.rows);
            if let Some(rows) = rows {
                served.ran(rows, took);
            }
            if served.has_panicked() {
                shared.models.replace(&model, &served);
            }
            Ok(Lent { answers, took })
        })
    }
}
