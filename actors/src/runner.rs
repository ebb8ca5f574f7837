//! Runner: a thread for what takes long: runs of large models, and their loading. No thread that
//! reads requests waits for it.

use actix::{Actor, Context, Handler, MessageResult, Supervised};
use tokio::time::Instant;

use crate::messages::{BuildModel, PredictError, Ran, RunModel};
use crate::serving::ServedModel;

/// Answers [`RunModel`] and [`BuildModel`], one after the other.
#[derive(Debug, Default)]
pub struct Runner {}

impl Actor for Runner {
    type Context = Context<Self>;
}

impl Supervised for Runner {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<RunModel> for Runner {
    type Result = MessageResult<RunModel>;

    fn handle(&mut self, run: RunModel, _ctx: &mut Self::Context) -> Self::Result {
        let start = Instant::now();
        let answers = run.served.predict(run.requests);
        MessageResult(Ran { answers, took: start.elapsed() })
    }
}

impl Handler<BuildModel> for Runner {
    type Result = Result<ServedModel, PredictError>;

    fn handle(&mut self, build: BuildModel, _ctx: &mut Self::Context) -> Self::Result {
        let served = ServedModel::new(&build.kinds, build.fetched, build.members)?;
        served.try_out();
        // The first run has found nothing in the caches.
        let start = Instant::now();
        served.try_out();
        served.ran(1, start.elapsed());
        Ok(served)
    }
}
