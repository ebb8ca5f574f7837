//! A follower beside a store and a registry that say what they are told to.

use actix::{Addr, Handler};

use super::*;
use crate::catalog::CatalogError;
use crate::checkpoint::tests::manifest;
use crate::checkpoint::{PartContent, SavedPart, StateSnapshot};
use crate::layout::{Init, TensorSpec};
use crate::messages::{FindError, Predict};
use crate::new_version::tests::{artifact, new_version};
use crate::serving::tests::toy_kinds;
use crate::version::{ServedVersion, VersionDescription};

/// The newest checkpoint, what it weighs, and the run that is published.
#[derive(Clone, Debug, Default, actix::Message)]
#[rtype(result = "()")]
struct World {
    newest: Option<u64>,
    weight: f32,
    published: Option<&'static str>,
    damaged: bool,
}

impl World {
    fn checkpoint(newest: u64, weight: f32) -> Self {
        Self { newest: Some(newest), weight, ..Self::default() }
    }
}

impl Actor for World {
    type Context = Context<Self>;
}

impl Handler<World> for World {
    type Result = ();

    fn handle(&mut self, world: World, _: &mut Self::Context) {
        *self = world;
    }
}

/// Of the toy model, with a part of a kilobyte.
fn of_toy(version: u64) -> Manifest {
    let mut manifest = manifest(version);
    let offer = &mut manifest.offer;
    (offer.data.features, offer.data.train_rows) = (2, 400);
    offer.architecture.kind = "toy".to_owned();
    offer.tensors = vec![TensorSpec::new("w", vec![2], Init::Zeros)];
    let content = PartContent::Parameters { start: 0, end: 2 };
    let (path, digest) = (String::new(), String::new());
    manifest.parts = vec![SavedPart { content, path, bytes: 1024, digest }];
    manifest
}

impl Handler<FindCheckpoint> for World {
    type Result = Result<FoundCheckpoint, CheckpointError>;

    fn handle(&mut self, find: FindCheckpoint, _: &mut Self::Context) -> Self::Result {
        Ok(match self.newest {
            None => FoundCheckpoint::Nothing,
            Some(newest) if find.known == Some(Version(newest)) => FoundCheckpoint::Known,
            Some(newest) => FoundCheckpoint::Other(Box::new(of_toy(newest))),
        })
    }
}

impl Handler<LoadState> for World {
    type Result = Result<StateSnapshot, CheckpointError>;

    fn handle(&mut self, load: LoadState, _: &mut Self::Context) -> Self::Result {
        if self.damaged {
            let (path, cause) = ("v1".to_owned(), "a bit has changed".to_owned());
            return Err(CheckpointError::Damaged { path, cause });
        }
        let (version, parameters) = (load.version, vec![self.weight; 2]);
        Ok(StateSnapshot { version, parameters, optimizer: Vec::new(), residuals: Vec::new() })
    }
}

impl Handler<FindModel> for World {
    type Result = Result<VersionDescription, FindError>;

    fn handle(&mut self, _: FindModel, _: &mut Self::Context) -> Self::Result {
        match self.published {
            Some(run) => Ok(new_version("toy", run).numbered(7, artifact())),
            None => Err(CatalogError::NoVersions { model: "toy".into() })?,
        }
    }
}

type Feed = watch::Receiver<Option<Arc<ServedModel>>>;

fn start(world: World, bytes_max: u64) -> (Addr<World>, Feed) {
    tokio::time::pause();
    let world = world.start();
    let (followed, feed) = watch::channel(None);
    let parts = FollowerParts {
        find_checkpoint: world.clone().recipient(),
        load_state: world.clone().recipient(),
        find: world.clone().recipient(),
        model: "toy".to_owned(),
        job_digest: manifest(1).job_digest,
        kinds: toy_kinds(),
        runners: Runners::new(Vec::new()),
        bytes_max,
        started: Duration::from_millis(5),
        followed,
    };
    Follower::new(parts).start();
    (world, feed)
}

/// What answers next, and what it says to ones.
async fn next(feed: &mut Feed) -> Option<(ServedVersion, f32)> {
    feed.changed().await.unwrap();
    let served = feed.borrow_and_update().clone()?;
    let ones = Predict::of_rows("toy", VersionRef::Latest, 1, 2, vec![1.0; 2].into()).unwrap();
    let answer = served.predict(vec![ones]).pop().unwrap().unwrap();
    Some((answer.version, answer.values().0[0]))
}

#[actix_rt::test]
async fn each_checkpoint_answers_until_the_run_is_published() {
    let (world, mut feed) = start(World::checkpoint(100, 1.0), 1 << 20);
    assert_eq!(next(&mut feed).await, Some((ServedVersion::Step(100), 2.0)));
    let description = feed.borrow().as_ref().unwrap().description().clone();
    let state = StateSnapshot {
        version: Version(100),
        parameters: vec![1.0; 2],
        optimizer: Vec::new(),
        residuals: Vec::new(),
    };
    assert_eq!((description.digest, description.steps), (state.digest(), 100));
    world.send(World::checkpoint(200, 3.0)).await.unwrap();
    assert_eq!(next(&mut feed).await, Some((ServedVersion::Step(200), 6.0)));
    let published = World { published: Some("run"), ..World::checkpoint(200, 3.0) };
    world.send(published).await.unwrap();
    assert_eq!(next(&mut feed).await, None);
    // The next run.
    world.send(World { published: Some("before"), ..World::checkpoint(100, 4.0) }).await.unwrap();
    assert_eq!(next(&mut feed).await, Some((ServedVersion::Step(100), 8.0)));
}

#[actix_rt::test]
async fn a_state_that_panics_is_loaded_again() {
    let (_world, mut feed) = start(World::checkpoint(100, 1.0), 1 << 20);
    next(&mut feed).await.unwrap();
    let served = feed.borrow().clone().unwrap();
    let bad = Predict::of_rows("toy", VersionRef::Latest, 1, 2, vec![13.0, 1.0].into()).unwrap();
    assert!(served.predict(vec![bad])[0].is_err() && served.has_panicked());
    assert_eq!(next(&mut feed).await, Some((ServedVersion::Step(100), 2.0)));
    assert!(!feed.borrow().as_ref().unwrap().has_panicked());
}

#[actix_rt::test]
async fn a_checkpoint_that_is_damaged_leaves_the_one_before_in_place() {
    let (world, mut feed) = start(World::checkpoint(100, 1.0), 1 << 20);
    next(&mut feed).await.unwrap();
    let damaged = World { damaged: true, ..World::checkpoint(200, 3.0) };
    world.send(damaged).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!feed.has_changed().unwrap());
    world.send(World::checkpoint(200, 3.0)).await.unwrap();
    assert_eq!(next(&mut feed).await, Some((ServedVersion::Step(200), 6.0)));
}

#[actix_rt::test]
async fn a_checkpoint_larger_than_all_models_may_be_is_not_loaded() {
    let (_world, feed) = start(World::checkpoint(100, 1.0), 1023);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(feed.borrow().is_none());
}
