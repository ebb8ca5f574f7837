//! Where models run: here, or on a thread for what takes long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Recipient;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::messages::{
    BuildModel, FetchedModel, LinkError, Predict, PredictError, Prediction, Ran, RunModel,
};
use crate::model::ModelKinds;
use crate::serving::ServedModel;

/// A run that takes longer holds up a thread that reads requests for longer than reading a large one
/// would.
const HERE_MAX: Duration = Duration::from_millis(1);

/// Where runs and versions are made that take long.
#[derive(Clone, Debug)]
pub struct RunnerLink {
    pub run: Recipient<RunModel>,
    pub build: Recipient<BuildModel>,
}

/// The runners of a process, each with one run at a time: whoever has to wait for one meanwhile
/// gathers requests. Clones share them.
#[derive(Clone, Debug)]
pub struct Runners {
    all: Arc<[RunnerLink]>,
    /// Those that have nothing to do, as many as there are permits.
    idle: Arc<Mutex<Vec<usize>>>,
    places: Arc<Semaphore>,
}

/// A runner that waits for a run.
#[derive(Debug)]
pub(crate) struct Place {
    runners: Runners,
    index: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.runners.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

impl Runners {
    /// Without any, all models run where they are asked.
    pub fn new(all: Vec<RunnerLink>) -> Self {
        let count = all.len();
        Self {
            all: all.into(),
            idle: Arc::new(Mutex::new((0..count).rev().collect())),
            places: Arc::new(Semaphore::new(count)),
        }
    }

    /// Whether so many rows are to run on one of them, and there is one that works.
    pub(crate) fn take(&self, served: &ServedModel, rows: usize) -> bool {
        self.are_there() && served.expected(rows).is_none_or(|run| run > HERE_MAX)
    }

    fn are_there(&self) -> bool {
        self.all.iter().any(|runner| runner.run.connected())
    }

    /// A version that is ready to answer.
    pub(crate) async fn build(
        &self,
        kinds: &ModelKinds,
        fetched: FetchedModel,
        members: Vec<Arc<ServedModel>>,
    ) -> Result<ServedModel, PredictError> {
        let place = if self.are_there() { self.place().await } else { None };
        let Some(place) = place else { return ServedModel::new(kinds, fetched, members) };
        let build = BuildModel { kinds: kinds.clone(), fetched, members };
        let built = self.all[place.index].build.send(build).await;
        built.unwrap_or_else(|_| Err(LinkError::Closed.into()))
    }

    /// One that is idle now.
    pub(crate) fn try_place(&self) -> Option<Place> {
        self.places.clone().try_acquire_owned().ok().and_then(|permit| self.idle(permit))
    }

    /// One as soon as it is idle.
    pub(crate) async fn place(&self) -> Option<Place> {
        self.places.clone().acquire_owned().await.ok().and_then(|permit| self.idle(permit))
    }

    fn idle(&self, permit: OwnedSemaphorePermit) -> Option<Place> {
        let index = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        if !self.all[index].run.connected() {
            // It has given up, and nobody shall be sent to it again.
            permit.forget();
            return None;
        }
        Some(Place { runners: self.clone(), index, _permit: permit })
    }
}

impl Place {
    /// The answers in the order of the requests. Where the runner ends meanwhile, each is that.
    pub(crate) async fn run(self, served: Arc<ServedModel>, requests: Vec<Predict>) -> Ran {
        let count = requests.len();
        let gone = || -> Vec<Result<Prediction, PredictError>> {
            (0..count).map(|_| Err(LinkError::Closed.into())).collect()
        };
        let start = Instant::now();
        let sent = self.runners.all[self.index].run.send(RunModel { served, requests });
        sent.await.unwrap_or_else(|_| Ran { answers: gone(), took: start.elapsed() })
    }
}
