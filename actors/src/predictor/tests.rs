//! A predictor beside a registry that does what it is told.

mod followed;
mod lending;
mod pipelines;
mod routes;

use actix::Addr;

use super::*;
use crate::catalog::CatalogError;
use crate::log_seen::{LogSeen, SEEN_MAX};
use crate::messages::{BuildModel, FetchedModel, FoundRoute, RegistryStoreError, Run, RunModel};
use crate::new_version::tests::{artifact, new_version};
use crate::route::{Route, Split};
use crate::runners::RunnerLink;
use crate::serving::tests::toy_kinds;
use crate::shadows::ShadowCounts;
use crate::version::VersionDescription;

/// Knows the versions 1 to `newest` of every model; version `n` answers `n` times the sum.
struct Registry {
    newest: u64,
    away: bool,
    fetched: Vec<u64>,
}

impl Registry {
    fn describe(&self, version: &VersionRef) -> Result<VersionDescription, FindError> {
        let number = match version {
            VersionRef::Number(number) if *number <= self.newest => *number,
            VersionRef::Latest if self.newest > 0 => self.newest,
            _ => Err(CatalogError::NoVersions { model: "m".into() })?,
        };
        Ok(new_version("m", "run").numbered(number, artifact()))
    }
}

impl Actor for Registry {
    type Context = Context<Self>;
}

impl Handler<FindModel> for Registry {
    type Result = Result<VersionDescription, FindError>;

    fn handle(&mut self, find: FindModel, _: &mut Self::Context) -> Self::Result {
        if self.away {
            return Err(RegistryStoreError::Gone.into());
        }
        self.describe(&find.version)
    }
}

impl Handler<FetchModel> for Registry {
    type Result = Result<FetchedModel, FindError>;

    fn handle(&mut self, fetch: FetchModel, _: &mut Self::Context) -> Self::Result {
        let description = self.describe(&fetch.version)?;
        self.fetched.push(description.version);
        let weight = description.version as f32;
        Ok(FetchedModel { description, tensors: vec![vec![weight; 2].into()], file: None })
    }
}

#[derive(actix::Message)]
#[rtype(result = "Vec<u64>")]
struct Change(u64, bool);

impl Handler<Change> for Registry {
    type Result = Vec<u64>;

    fn handle(&mut self, change: Change, _: &mut Self::Context) -> Self::Result {
        (self.newest, self.away) = (change.0, change.1);
        self.fetched.clone()
    }
}

fn start() -> (Addr<Registry>, Addr<Predictor>) {
    let registry = Registry { newest: 1, away: false, fetched: Vec::new() }.start();
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    (registry, Predictor::new(parts).start())
}

fn predict(version: VersionRef) -> Predict {
    Predict::of_rows("m", version, 1, 2, vec![1.0, 2.0].into()).unwrap()
}

async fn latest(predictor: &Addr<Predictor>) -> (u64, f32) {
    let answer = predictor.send(predict(VersionRef::Latest)).await.unwrap().unwrap();
    (answer.version.number(), answer.values().0[0])
}

#[actix_rt::test]
async fn a_new_version_answers_the_next_request() {
    let (registry, predictor) = start();
    assert_eq!(latest(&predictor).await, (1, 3.0));
    registry.send(Change(2, false)).await.unwrap();
    assert_eq!(latest(&predictor).await, (2, 6.0));
}

#[actix_rt::test]
async fn requests_that_wait_for_one_version_load_it_once() {
    let (registry, predictor) = start();
    let first = actix_rt::spawn(predictor.send(predict(VersionRef::Latest)));
    let second = predictor.send(predict(VersionRef::Number(1))).await.unwrap().unwrap();
    let first = first.await.unwrap().unwrap().unwrap();
    assert_eq!((first.version, first.outputs), (second.version, second.outputs));
    assert_eq!(registry.send(Change(1, false)).await.unwrap(), [1]);
}

#[actix_rt::test]
async fn a_loaded_version_answers_while_the_registry_is_away() {
    let (registry, predictor) = start();
    latest(&predictor).await;
    registry.send(Change(2, true)).await.unwrap();
    assert_eq!(latest(&predictor).await, (1, 3.0));
    let unknown = predictor.send(predict(VersionRef::Number(2))).await.unwrap();
    assert_eq!(unknown, Err(FindError::Store(RegistryStoreError::Gone).into()));
}

#[actix_rt::test]
async fn an_answer_says_whether_a_registry_has_resolved_its_name() {
    let (registry, predictor) = start();
    let resolved =
        async || predictor.send(predict(VersionRef::Latest)).await.unwrap().unwrap().resolved;
    assert_eq!(resolved().await, Resolved::Now);
    registry.send(Change(1, true)).await.unwrap();
    assert_eq!(resolved().await, Resolved::Before);
    assert_eq!(resolved().await, Resolved::Before);
    registry.send(Change(1, false)).await.unwrap();
    let back = async { while resolved().await == Resolved::Before {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it is asked again");
}

#[actix_rt::test]
async fn a_loaded_version_answers_to_its_number_while_the_registry_is_away() {
    let (registry, predictor) = start();
    latest(&predictor).await;
    registry.send(Change(1, true)).await.unwrap();
    let answer = predictor.send(predict(VersionRef::Number(1))).await.unwrap().unwrap();
    assert_eq!((answer.version.number(), answer.resolved), (1, Resolved::Before));
}

#[actix_rt::test]
async fn a_version_that_is_gone_from_the_registry_answers_no_more() {
    let (registry, predictor) = start();
    let one = || predict(VersionRef::Number(1));
    assert!(predictor.send(one()).await.unwrap().is_ok());
    registry.send(Change(0, false)).await.unwrap();
    let gone = predictor.send(one()).await.unwrap();
    assert!(matches!(gone, Err(PredictError::Registry(FindError::Catalog(_)))), "{gone:?}");
}

fn unload() -> UnloadModel {
    UnloadModel { model: "m".into() }
}

#[actix_rt::test]
async fn an_unloaded_model_leaves_the_memory_and_is_not_served_until_it_is_loaded() {
    let (registry, predictor) = start();
    latest(&predictor).await;
    for versions in [1, 0] {
        let unloaded = predictor.send(unload()).await.unwrap();
        assert_eq!(unloaded, Ok(ModelUnloaded { versions }));
    }
    for version in [VersionRef::Latest, VersionRef::Number(1)] {
        let refused = predictor.send(predict(version)).await.unwrap();
        assert_eq!(refused, Err(PredictError::Unloaded { model: "m".into() }));
    }
    let load = LoadModel { model: "m".into() };
    assert_eq!(predictor.send(load).await.unwrap(), Ok(ModelLoaded { version: 1 }));
    assert_eq!(latest(&predictor).await, (1, 3.0));
    assert_eq!(registry.send(Change(1, false)).await.unwrap(), [1, 1]);
}

#[actix_rt::test]
async fn a_model_that_does_not_exist_is_neither_loaded_nor_unloaded() {
    let (registry, predictor) = start();
    registry.send(Change(0, false)).await.unwrap();
    let unloaded = predictor.send(unload()).await.unwrap();
    assert!(matches!(unloaded, Err(PredictError::Registry(FindError::Catalog(_)))));
    let loaded = predictor.send(LoadModel { model: "m".into() }).await.unwrap();
    assert!(matches!(loaded, Err(PredictError::Registry(FindError::Catalog(_)))));
    registry.send(Change(1, false)).await.unwrap();
    assert_eq!(latest(&predictor).await, (1, 3.0));
}

#[actix_rt::test]
async fn a_predictor_that_takes_the_place_of_another_goes_on_with_its_offer() {
    let (registry, _) = start();
    let offer: watch::Sender<Offer> = watch::Sender::default();
    let fresh = || {
        let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
        Predictor::new(PredictorParts::new(toy_kinds(), offer.clone(), find, fetch)).start()
    };
    fresh().send(unload()).await.unwrap().unwrap();
    let refused = fresh().send(predict(VersionRef::Latest)).await.unwrap();
    assert_eq!(refused, Err(PredictError::Unloaded { model: "m".into() }));
}

/// Loads when it is told to.
struct Slow {
    registry: Addr<Registry>,
    asked: watch::Sender<bool>,
    go: watch::Sender<bool>,
}

impl Actor for Slow {
    type Context = Context<Self>;
}

impl Handler<FetchModel> for Slow {
    type Result = ResponseFuture<Result<FetchedModel, FindError>>;

    fn handle(&mut self, fetch: FetchModel, _: &mut Self::Context) -> Self::Result {
        self.asked.send_replace(true);
        let (registry, mut go) = (self.registry.clone(), self.go.subscribe());
        Box::pin(async move {
            go.wait_for(|go| *go).await.unwrap();
            registry.send(fetch).await.unwrap()
        })
    }
}

#[actix_rt::test]
async fn a_load_that_takes_long_does_not_undo_an_unload_that_came_meanwhile() {
    let (registry, _) = start();
    let (asked, go) = (watch::Sender::new(false), watch::Sender::new(false));
    let mut asks = asked.subscribe();
    let slow = Slow { registry: registry.clone(), asked, go: go.clone() }.start();
    let (offer, find) = (watch::Sender::default(), registry.clone().recipient());
    let parts = PredictorParts::new(toy_kinds(), offer, find, slow.recipient());
    let predictor = Predictor::new(parts).start();
    let load = actix_rt::spawn(predictor.send(LoadModel { model: "m".into() }));
    asks.wait_for(|asked| *asked).await.unwrap();
    predictor.send(unload()).await.unwrap().unwrap();
    go.send_replace(true);
    let unloaded = PredictError::Unloaded { model: "m".into() };
    assert_eq!(load.await.unwrap().unwrap(), Err(unloaded.clone()));
    let refused = predictor.send(predict(VersionRef::Latest)).await.unwrap();
    assert_eq!(refused.unwrap_err(), unloaded);
}

#[actix_rt::test]
async fn a_model_is_unloaded_by_the_name_it_had_while_the_registry_is_away() {
    let (registry, predictor) = start();
    latest(&predictor).await;
    registry.send(Change(1, true)).await.unwrap();
    assert_eq!(predictor.send(unload()).await.unwrap(), Ok(ModelUnloaded { versions: 1 }));
}

/// Requests that reach the mailbox before the predictor looks at any of them.
fn together(
    predictor: &Addr<Predictor>,
    requests: impl IntoIterator<Item = Predict>,
) -> Vec<actix::dev::Request<Predictor, Predict>> {
    requests.into_iter().map(|request| predictor.send(request)).collect()
}

async fn answers(
    sent: Vec<actix::dev::Request<Predictor, Predict>>,
) -> Vec<Result<Prediction, PredictError>> {
    futures_util::future::join_all(sent).await.into_iter().map(Result::unwrap).collect()
}

fn row(inputs: [f32; 2]) -> Predict {
    Predict::of_rows("m", VersionRef::Latest, 1, 2, inputs.to_vec().into()).unwrap()
}

fn start_with(batching: Batching) -> (Addr<Registry>, Addr<Predictor>) {
    let (registry, _) = start();
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    (registry, Predictor::new(PredictorParts { batching, ..parts }).start())
}

#[actix_rt::test]
async fn requests_that_come_together_are_answered_by_one_run_each_with_its_own_rows() {
    let (_registry, predictor) = start();
    let sent = together(&predictor, [row([1.0, 2.0]), row([3.0, 4.0]), row([5.0, 6.0])]);
    let answers = answers(sent).await;
    let values: Vec<f32> = answers.iter().map(|a| a.as_ref().unwrap().values().0[0]).collect();
    assert_eq!(values, [3.0, 7.0, 11.0]);
    let runs: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().run).collect();
    assert_eq!(runs.iter().filter(|run| run.first).count(), 1, "{runs:?}");
    assert!(runs.iter().all(|run| run.rows == 3), "{runs:?}");
}

#[actix_rt::test]
async fn no_more_rows_go_together_than_may() {
    let (_registry, predictor) = start_with(Batching { rows_max: 2, ..Batching::default() });
    let sent = together(&predictor, (0..5).map(|_| row([1.0, 2.0])));
    let runs = answers(sent).await.into_iter().map(|answer| answer.unwrap().run);
    let rows: Vec<usize> = runs.filter(|run| run.first).map(|run| run.rows).collect();
    assert_eq!(rows, [2, 2, 1]);
}

#[actix_rt::test]
async fn what_has_no_room_in_the_queue_is_refused_at_once() {
    let (_registry, predictor) = start_with(Batching { queue: 2, ..Batching::default() });
    let sent = together(&predictor, (0..5).map(|_| row([1.0, 2.0])));
    let answers = answers(sent).await;
    let full = PredictError::Full { model: "m".into(), limit: 2 };
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    assert!(answers.iter().flat_map(Result::as_ref).all(|answer| answer.values().0[0] == 3.0));
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|e| *e == full));
    assert!(predictor.send(row([1.0, 2.0])).await.unwrap().is_ok());
}

#[actix_rt::test]
async fn the_first_one_waits_for_others_where_it_is_told_to() {
    tokio::time::pause();
    let wait = Duration::from_millis(50);
    let (_registry, predictor) = start_with(Batching { rows_max: 3, wait, queue: 9 });
    let began = Instant::now();
    let first = actix_rt::spawn(predictor.send(row([1.0, 2.0])));
    tokio::time::sleep(wait / 2).await;
    let second = predictor.send(row([3.0, 4.0])).await.unwrap().unwrap();
    assert_eq!(second.run.rows, 2);
    // A timer counts whole milliseconds.
    assert!((wait..=wait + Duration::from_millis(1)).contains(&began.elapsed()));
    first.await.unwrap().unwrap().unwrap();
    let began = Instant::now();
    let full = answers(together(&predictor, (0..3).map(|_| row([1.0, 2.0])))).await;
    assert_eq!((full[0].as_ref().unwrap().run.rows, began.elapsed()), (3, Duration::ZERO));
}

#[actix_rt::test]
async fn a_request_whose_time_is_over_is_told_so_and_one_whose_sender_has_gone_is_not_computed() {
    tokio::time::pause();
    let (registry, _) = start();
    let (asked, go) = (watch::Sender::new(false), watch::Sender::new(false));
    let mut asks = asked.subscribe();
    let slow = Slow { registry: registry.clone(), asked, go: go.clone() }.start();
    let (offer, find) = (watch::Sender::default(), registry.recipient());
    let parts = PredictorParts::new(toy_kinds(), offer, find, slow.recipient());
    let predictor = Predictor::new(parts).start();
    let gone = actix_rt::spawn(predictor.send(row([1.0, 2.0])));
    let short = Predict { limit: Duration::from_millis(20), ..row([1.0, 2.0]) };
    let short = actix_rt::spawn(predictor.send(short));
    let here = actix_rt::spawn(predictor.send(row([3.0, 4.0])));
    asks.wait_for(|asked| *asked).await.unwrap();
    gone.abort();
    tokio::time::sleep(Duration::from_millis(30)).await;
    go.send_replace(true);
    let late = short.await.unwrap().unwrap().unwrap_err();
    let waited = |ms| PredictError::Late { model: "m".into(), waited_ms: ms };
    assert!([waited(30), waited(31)].contains(&late), "{late}");
    let here = here.await.unwrap().unwrap().unwrap();
    assert_eq!(here.run, Run { rows: 1, first: true });
}

#[actix_rt::test]
async fn a_request_that_makes_the_model_panic_fails_alone_and_the_model_is_loaded_again() {
    let (registry, predictor) = start();
    let sent = together(&predictor, [row([1.0, 2.0]), row([13.0, 0.0]), row([3.0, 4.0])]);
    let answers = answers(sent).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(latest(&predictor).await, (1, 3.0));
    assert_eq!(registry.send(Change(1, false)).await.unwrap(), [1, 1]);
}

#[actix_rt::test]
async fn a_name_is_not_asked_for_again_where_the_log_has_not_moved() {
    let (registry, _) = start();
    let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
    let seen = |entries| Some(LogSeen { entries, at: Instant::now() });
    let (log, feed) = watch::channel(seen(1));
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let predictor = Predictor::new(PredictorParts { log: Some(feed), ..parts }).start();
    assert_eq!(latest(&predictor).await, (1, 3.0));
    registry.send(Change(2, false)).await.unwrap();
    assert_eq!(latest(&predictor).await, (1, 3.0));
    log.send_replace(seen(2));
    assert_eq!(latest(&predictor).await, (2, 6.0));
    registry.send(Change(3, false)).await.unwrap();
    // Nobody has looked at the log for long.
    let at = Instant::now() - 2 * SEEN_MAX;
    log.send_replace(Some(LogSeen { entries: 2, at }));
    assert_eq!(latest(&predictor).await, (3, 9.0));
}

#[actix_rt::test]
async fn models_share_the_memory_of_their_process_and_leave_for_each_other() {
    tokio::time::pause();
    let (registry, _) = start();
    registry.send(Change(3, false)).await.unwrap();
    let fresh = |models: &Models| {
        let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
        let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
        Predictor::new(PredictorParts { models: models.clone(), ..parts }).start()
    };
    // Each has 8 bytes.
    let models = Models::new(16);
    let (one, other) = (fresh(&models), fresh(&models));
    let numbers = [(&one, 1), (&other, 1), (&one, 2), (&other, 3), (&one, 2)];
    for (predictor, number) in numbers {
        let answer = predictor.send(predict(VersionRef::Number(number))).await.unwrap();
        assert_eq!(answer.unwrap().version.number(), number);
    }
    assert_eq!(models.used(), (16, 2));
    assert_eq!(registry.send(Change(3, false)).await.unwrap(), [1, 2, 3]);
    let small = fresh(&Models::new(7));
    let refused = small.send(predict(VersionRef::Latest)).await.unwrap().unwrap_err();
    let expected = "version 3 of m has 8 bytes, all models together may have 7; raise \
                    service.memory_mb";
    assert_eq!(refused.to_string(), expected);
}

#[actix_rt::test]
async fn a_model_whose_runs_take_long_runs_elsewhere_and_requests_gather_meanwhile() {
    let (registry, _) = start();
    let (runs, ran) = watch::channel(0);
    let runner = Timed { runs, took: Duration::from_secs(1) }.start();
    let (find, fetch) = (registry.clone().recipient(), registry.recipient());
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let runners = Runners::new(vec![link(runner)]);
    let predictor = Predictor::new(PredictorParts { runners, ..parts }).start();
    // Nobody knows yet how long it takes.
    assert_eq!(latest(&predictor).await, (1, 3.0));
    assert_eq!(*ran.borrow(), 1);
    let answers = answers(together(&predictor, (0..3).map(|_| row([1.0, 2.0])))).await;
    let runs: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().run).collect();
    assert_eq!(runs[0], Run { rows: 3, first: true });
    assert_eq!(*ran.borrow(), 2);
}

#[actix_rt::test]
async fn a_model_whose_runs_are_short_runs_where_it_is_asked() {
    let (registry, _) = start();
    let (runs, ran) = watch::channel(0);
    let runner = Timed { runs, took: Duration::ZERO }.start();
    let (find, fetch) = (registry.clone().recipient(), registry.recipient());
    let parts = PredictorParts::new(toy_kinds(), watch::Sender::default(), find, fetch);
    let runners = Runners::new(vec![link(runner)]);
    let predictor = Predictor::new(PredictorParts { runners, ..parts }).start();
    for _ in 0..3 {
        assert_eq!(latest(&predictor).await, (1, 3.0));
    }
    assert_eq!(*ran.borrow(), 1);
}

fn link(runner: Addr<Timed>) -> RunnerLink {
    RunnerLink { run: runner.clone().recipient(), build: runner.recipient() }
}

impl Handler<BuildModel> for Timed {
    type Result = Result<ServedModel, PredictError>;

    fn handle(&mut self, build: BuildModel, _: &mut Self::Context) -> Self::Result {
        ServedModel::new(&build.kinds, build.fetched, build.members)
    }
}

/// Says that each run takes so long.
struct Timed {
    runs: watch::Sender<u32>,
    took: Duration,
}

impl Actor for Timed {
    type Context = Context<Self>;
}

impl Handler<RunModel> for Timed {
    type Result = actix::MessageResult<RunModel>;

    fn handle(&mut self, run: RunModel, _: &mut Self::Context) -> Self::Result {
        self.runs.send_modify(|runs| *runs += 1);
        let answers = run.served.predict(run.requests);
        actix::MessageResult(Ran { answers, took: self.took })
    }
}
