//! ParameterServer from its mailbox: restorations and sums that can't be right cost it nothing.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

mod support;

use actix::{Actor, Context, Handler};
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::checkpoint::Manifest;
use gradmesh_actors::ids::{ShardCopy, ShardId, Version, View};
use gradmesh_actors::layout::{Init, TensorSpec};
use gradmesh_actors::ledger::Ledger;
use gradmesh_actors::messages::checkpoint_store::{
    CheckpointError, LoadRange, LoadedRange, SavePart,
};
use gradmesh_actors::messages::{
    Appointment, CombineNorm, FetchModel, FetchedModel, FillShard, FindError, FindModel, NormError,
    NormPart, PullParameters, Replicate, ReplicateError, ReportFenced, ReportPart, ReportShard,
    RestoreError, RestoreShard,
};
use gradmesh_actors::parameter_server::{ParameterServer, ServerLinks};
use gradmesh_actors::version::{Artifact, TensorShape, VersionDescription};
use support::{COPY, answers, links, offer, primary, restore, server};

/// The server holds version 0 of view 1; the restoration is refused, and it still does.
async fn check_refused(spoil: impl FnOnce(&mut RestoreShard), words: &str) {
    let server = server();
    server.send(restore(1)).await.unwrap().unwrap();
    let mut wrong = restore(2);
    spoil(&mut wrong);
    let refused = server.send(wrong).await.unwrap().unwrap_err();
    assert!(matches!(refused, RestoreError::Plan { .. }), "{refused:?}");
    assert!(refused.to_string().contains(words), "{refused}");
    let pull = PullParameters { view: View(1), shard: ShardId(0), version: None };
    assert_eq!(server.send(pull).await.unwrap().unwrap().version, Version(0));
}

#[actix_rt::test]
async fn a_plan_that_would_divide_by_zero_is_refused() {
    check_refused(|restore| restore.offer.job.batch_size = 0, "job.batch_size is 0").await;
    check_refused(|restore| restore.offer.job.virtual_workers = 0, "virtual_workers is 0").await;
    check_refused(|restore| restore.shards = 0, "servers.shards is 0").await;
    check_refused(|restore| restore.checkpoint_every = 0, "checkpoint.every_steps is 0").await;
}

#[actix_rt::test]
async fn a_model_beyond_memory_is_refused() {
    let spoil = |restore: &mut RestoreShard| restore.offer.tensors[0].shape = vec![usize::MAX, 8];
    check_refused(spoil, "more than 17179869184 parameters").await;
}

#[actix_rt::test]
async fn a_version_beyond_the_last_is_refused() {
    let spoil = |restore: &mut RestoreShard| restore.version = Version(13);
    check_refused(spoil, "version 13 is beyond the last one, version 12").await;
}

#[actix_rt::test]
async fn a_shard_that_the_cut_does_not_have_is_refused() {
    let copy = ShardCopy { shard: ShardId(1), ..COPY };
    let server = ParameterServer::new(copy, links(&support::Others.start())).start();
    let appointment = Appointment { copy, ..primary(1) };
    let refused = server.send(RestoreShard { appointment, ..restore(1) }).await.unwrap();
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the job can't run: shard-1 is not one of 1 shards"
    );
}

/// A store whose checkpoint is one value short.
struct ShortStore;

impl Actor for ShortStore {
    type Context = Context<Self>;
}

answers!(ShortStore, ReportShard, Ok(()));
answers!(ShortStore, ReportPart, Ok(()));
answers!(ShortStore, ReportFenced, Ok(()));
answers!(ShortStore, SavePart, Err(CheckpointError::Closed));
answers!(ShortStore, CombineNorm, Err(NormError::NotReady));
answers!(ShortStore, Replicate, Err(ReplicateError::Empty(COPY)));
answers!(ShortStore, FillShard, Err(ReplicateError::Empty(COPY)));
answers!(
    ShortStore,
    LoadRange,
    Ok(LoadedRange {
        parameters: vec![0.0; 2],
        state: Vec::new(),
        manifest: Manifest {
            version: Version(4),
            run: "run".into(),
            job_digest: "j".into(),
            offer: offer(),
            parts: Vec::new(),
            ledger: Ledger::default(),
        },
    })
);

#[actix_rt::test]
async fn a_checkpoint_of_another_length_is_refused() {
    let store = ShortStore.start();
    let server = ParameterServer::new(COPY, links(&store)).start();
    let refused = server.send(RestoreShard { version: Version(4), ..restore(1) }).await.unwrap();
    assert!(matches!(refused, Err(RestoreError::Checkpoint { .. })), "{refused:?}");
}

#[actix_rt::test]
async fn sums_for_the_norm_that_no_shard_has_are_refused() {
    let server = server();
    server.send(restore(1)).await.unwrap().unwrap();
    let combine = |shard, sums| {
        let part = NormPart::Sums(sums);
        CombineNorm { step: Version(0), shard: ShardId(shard), part }
    };
    for wrong in [combine(1, vec![1.0]), combine(0, vec![f64::NAN]), combine(0, vec![1.0; 2])] {
        let refused = server.send(wrong).await.unwrap();
        assert!(matches!(refused, Err(NormError::WrongSums { .. })), "{refused:?}");
    }
    let sum = server.send(combine(0, vec![25.0])).await.unwrap().unwrap();
    assert_eq!(sum.sum_of_squares, 25.0);
}

/// A registry with one version of `toy`, whose parameters count from 0; its tensors have these lengths.
struct Parents(Vec<usize>);

impl Actor for Parents {
    type Context = Context<Self>;
}

impl Handler<FindModel> for Parents {
    type Result = Result<VersionDescription, FindError>;

    fn handle(&mut self, find: FindModel, ctx: &mut Self::Context) -> Self::Result {
        let FindModel { model, version } = find;
        Handler::<FetchModel>::handle(self, FetchModel { model, version }, ctx)
            .map(|fetched| fetched.description)
    }
}

impl Handler<FetchModel> for Parents {
    type Result = Result<FetchedModel, FindError>;

    fn handle(&mut self, fetch: FetchModel, _: &mut Self::Context) -> Self::Result {
        if fetch.version.to_string() != "3" {
            return Err(CatalogError::NoVersions { model: fetch.model }.into());
        }
        let named =
            |(at, len): (usize, &usize)| TensorShape { name: format!("w{at}"), shape: vec![*len] };
        let description = VersionDescription {
            model: "toy".into(),
            version: 3,
            architecture: offer().architecture,
            tensors: self.0.iter().enumerate().map(named).collect(),
            features: 2,
            outputs: 1,
            classes: None,
            scaling: gradmesh_actors::dataset::Scaling::None,
            job: serde_json::Value::Null,
            job_digest: "j".into(),
            data_digest: "d".into(),
            run: "run".into(),
            digest: "state".into(),
            steps: 1,
            epochs: 1,
            metrics: Default::default(),
            created_unix_ms: 0,
            artifact: Artifact { file: "f".into(), blake3: "b".into(), bytes: 0 },
            signature: None,
            made_of: Vec::new(),
            parent: None,
        };
        let mut next = 0;
        let tensors = self.0.iter().map(|len| {
            let values = (next..next + len).map(|value| value as f32).collect::<Vec<_>>();
            next += len;
            values.into()
        });
        Ok(FetchedModel { description, tensors: tensors.collect(), file: None })
    }
}

/// What a copy of a job that begins with `from` holds at first, one of two shards of 600 parameters.
async fn begun(lens: &[usize], from: &str, shard: u32) -> Result<Vec<f32>, RestoreError> {
    let copy = ShardCopy { shard: ShardId(shard), ..COPY };
    let parents = Parents(lens.to_vec()).start();
    let (find, fetch) = (parents.clone().recipient(), parents.recipient());
    let links = ServerLinks { find, fetch, ..links(&support::Others.start()) };
    let server = ParameterServer::new(copy, links).start();
    let mut offer = offer();
    offer.job.model.from = Some(from.parse().unwrap());
    offer.tensors = [("w0", 300), ("w1", 300)]
        .map(|(name, len)| TensorSpec::new(name, vec![len], Init::Zeros))
        .into();
    let appointment = Appointment { copy, ..primary(1) };
    let begin = RestoreShard { appointment, offer, shards: 2, ..restore(1) };
    server.send(begin).await.unwrap()?;
    let pull = PullParameters { view: View(1), shard: copy.shard, version: None };
    Ok(server.send(pull).await.unwrap().unwrap().values.to_vec())
}

#[actix_rt::test]
async fn a_job_that_begins_with_a_version_has_its_parameters_at_first_however_they_are_cut() {
    let mut all = Vec::new();
    for shard in [0, 1] {
        let part = begun(&[300, 300], "toy/3", shard).await.unwrap();
        assert!(!part.is_empty());
        all.extend(part);
    }
    assert_eq!(all, (0..600).map(|value| value as f32).collect::<Vec<_>>());
}

#[actix_rt::test]
async fn a_version_that_is_none_or_has_other_tensors_is_no_beginning_and_one_that_is_away_may_be() {
    let other = begun(&[300, 299], "toy/3", 0).await.unwrap_err();
    assert!(matches!(other, RestoreError::Plan { .. }), "{other:?}");
    assert!(other.to_string().contains("toy/3 has other tensors"), "{other}");
    let none = begun(&[300, 300], "toy/4", 0).await.unwrap_err();
    assert!(matches!(none, RestoreError::Plan { .. }), "{none:?}");
    assert!(none.to_string().ends_with("change job.model.from"), "{none}");

    let mut offer = offer();
    offer.job.model.from = Some("toy/3".parse().unwrap());
    let away = server().send(RestoreShard { offer, ..restore(1) }).await.unwrap();
    assert!(matches!(away, Err(RestoreError::Store { .. })), "{away:?}");
}
