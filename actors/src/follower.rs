//! Follower: lets a service answer with what a running training has made so far.
//!
//! It reads the checkpoints that the training writes anyway: no training actor is asked, none waits, and the
//! service goes on with the last state whoever is killed. What happens after a look is decided in
//! `following.rs`.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Recipient, Supervised, WrapFuture};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::checkpoint::Manifest;
use crate::following::{Following, Newest, Next};
use crate::ids::Version;
use crate::messages::checkpoint_store::{
    CheckpointError, FindCheckpoint, FoundCheckpoint, LoadState,
};
use crate::messages::{FetchedModel, FindError, FindModel, PublishModel, ask};
use crate::model::ModelKinds;
use crate::publication::describe;
use crate::runners::Runners;
use crate::serving::ServedModel;
use crate::version::{Artifact, VersionDescription, VersionRef};

/// Between two looks, each of which lists a folder. A checkpoint is served within so long and what loading it
/// takes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// After a checkpoint could not be loaded: it was removed meanwhile, and there is another one, or it is damaged
/// and reading it again at once would say the same.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The longest wait for the registry, which answers from memory.
const FIND_LIMIT: Duration = Duration::from_secs(1);

/// Makes the newest checkpoint of a job ready to answer, again and again.
#[derive(Debug)]
pub struct Follower {
    parts: FollowerParts,
    following: Following,
    /// Whether the last look failed; it is reported once.
    failed: bool,
    started: Instant,
}

/// What a follower is made of.
#[derive(Clone, Debug)]
pub struct FollowerParts {
    pub find_checkpoint: Recipient<FindCheckpoint>,
    pub load_state: Recipient<LoadState>,
    pub find: Recipient<FindModel>,
    /// `job.model.name`.
    pub model: String,
    pub job_digest: String,
    pub kinds: ModelKinds,
    /// Those of the predictors.
    pub runners: Runners,
    /// Checkpoints that are larger are not loaded: all of one is in memory while its digest is taken.
    pub bytes_max: u64,
    /// When the node was started, since 1970.
    pub started: Duration,
    /// The state that answers.
    pub followed: watch::Sender<Option<Arc<ServedModel>>>,
}

/// What a look has shown.
#[derive(Debug)]
struct Found {
    checkpoint: Result<FoundCheckpoint, CheckpointError>,
    /// The newest version.
    newest: Result<VersionDescription, FindError>,
}

impl Found {
    fn newest(&self) -> Newest<'_> {
        match &self.newest {
            Ok(version) => Newest::Run(&version.run),
            Err(FindError::Catalog(_)) => Newest::None,
            Err(_) => Newest::Unknown,
        }
    }
}

/// Why a look has led to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "the checkpoint of {version} has {bytes} bytes, all models together may have {max}; raise service.memory_mb"
    )]
    TooLarge { version: u64, bytes: u64, max: u64 },
    #[error("the checkpoint of {version} can't be served: {cause}")]
    Unserved { version: u64, cause: String },
}

impl Follower {
    pub fn new(parts: FollowerParts) -> Self {
        let following = Following::new(parts.job_digest.clone());
        Self { parts, following, failed: false, started: Instant::now() }
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let broken = self.parts.followed.borrow().as_ref().is_some_and(|held| held.has_panicked());
        if broken {
            self.following.forget();
        }
        let (parts, known) = (self.parts.clone(), self.following.known());
        let found = async move { parts.found(known).await }.into_actor(self);
        ctx.spawn(found.map(|found, follower, ctx| follower.found(found, ctx)));
    }

    fn found(&mut self, found: Found, ctx: &mut Context<Self>) {
        let next = match &found.checkpoint {
            Ok(checkpoint) => self.following.next(checkpoint.clone(), found.newest()),
            Err(_) if self.following.is_over(found.newest()) => self.following.leave(),
            Err(error) => return self.fail(&error.clone().into(), ctx),
        };
        match next {
            Next::Stay => {
                self.failed = false;
                self.pause(LOOK_EVERY, ctx);
            }
            Next::Leave => {
                if self.parts.followed.send_replace(None).is_some() {
                    let model = &self.parts.model;
                    info!(model, "no training to follow, the registry's version serves");
                }
                self.pause(LOOK_EVERY, ctx);
            }
            Next::Load(manifest) => {
                let parts = self.parts.clone();
                let created = self.started.elapsed().saturating_add(self.parts.started);
                let loaded = async move {
                    let served = parts.load(&manifest, created).await?;
                    Ok((manifest, served))
                };
                let loaded = loaded.into_actor(self);
                ctx.spawn(loaded.map(|loaded, follower, ctx| match loaded {
                    Ok((manifest, served)) => follower.serve(*manifest, served, ctx),
                    Err(error) => follower.fail(&error, ctx),
                }));
            }
        }
    }

    fn serve(&mut self, manifest: Manifest, served: ServedModel, ctx: &mut Context<Self>) {
        self.failed = false;
        let (model, step, digest) = (served.model(), manifest.version.0, served.digest());
        info!(model, step, digest, "the training's state serves");
        self.following.loaded(manifest.version, manifest.run);
        self.parts.followed.send_replace(Some(Arc::new(served)));
        self.pause(LOOK_EVERY, ctx);
    }

    fn fail(&mut self, error: &LookError, ctx: &mut Context<Self>) {
        if !std::mem::replace(&mut self.failed, true) {
            warn!(%error, "the training can't be followed; what served last goes on");
        }
        self.pause(AFTER_FAILURE, ctx);
    }

    fn pause(&self, pause: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(pause, Self::look);
    }
}

impl FollowerParts {
    /// The newest checkpoint, and the run of the registry's newest version, where that is known.
    async fn found(&self, known: Option<Version>) -> Found {
        // First the registry: a run that ends in between is still followed, and left after the next look.
        let find = FindModel { model: self.model.clone(), version: VersionRef::Latest };
        let newest = ask(&self.find, find, FIND_LIMIT).await;
        let found = self.find_checkpoint.send(FindCheckpoint { known }).await;
        let checkpoint = found.unwrap_or(Err(CheckpointError::Closed));
        Found { checkpoint, newest }
    }

    /// The state of a checkpoint, ready to answer. Its digest is the one that the run's version would have,
    /// were it published now; the store checks each part.
    async fn load(&self, manifest: &Manifest, created: Duration) -> Result<ServedModel, LookError> {
        let version = manifest.version;
        let bytes = manifest.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
        let max = self.bytes_max;
        if bytes > max {
            return Err(LookError::TooLarge { version: version.0, bytes, max });
        }
        let state = self.load_state.send(LoadState { version }).await;
        let state = state.unwrap_or(Err(CheckpointError::Closed))?;
        let unserved = |cause: String| LookError::Unserved { version: version.0, cause };
        let created_unix_ms = u64::try_from(created.as_millis()).unwrap_or(u64::MAX);
        let published = describe(manifest, &state, created_unix_ms).map_err(unserved)?;
        drop(state);
        let PublishModel { description, tensors, .. } = published;
        let bytes = tensors.iter().map(|values| 4 * values.len() as u64).sum();
        let artifact = Artifact { file: String::new(), blake3: String::new(), bytes };
        let fetched =
            FetchedModel { description: description.numbered(0, artifact), tensors, file: None };
        let built = self.runners.build(&self.kinds, fetched, Vec::new()).await;
        built.map_err(|error| unserved(error.to_string()))
    }
}

impl Actor for Follower {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Supervised for Follower {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

#[cfg(test)]
mod tests;
