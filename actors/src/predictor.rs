//! Predictor: answers requests with published versions.
//!
//! Asks the registry which version is meant, keeps the versions that it used last in memory, and
//! leaves the rest to `serving.rs`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture, Supervised};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::messages::{
    FetchModel, FindError, FindModel, LoadModel, ModelLoaded, ModelUnloaded, Predict, PredictError,
    Prediction, Resolved, UnloadModel, ask,
};
use crate::model::ModelKinds;
use crate::offer::Offer;
use crate::recent::Recent;
use crate::serving::ServedModel;
use crate::version::VersionRef;

/// Versions in memory at a time. A handful of models with a stable and a new version each; more
/// would let requests for old versions fill the memory of the node.
const LOADED_MAX: usize = 16;

/// Names whose last answer of the registry is remembered, for the time in which it is away: a few
/// for each loaded version.
const RESOLVED_MAX: usize = 64;

/// Requests at a time. They wait for the registry or for tensors; if so many do, those that come
/// later would wait longer than their senders do.
const PREDICTIONS_MAX: usize = 1024;

/// The longest wait for the registry to resolve a name, which it does from memory.
const FIND_LIMIT: Duration = Duration::from_secs(1);

/// The longest wait for the tensors of a version: a gigabyte over a slow link.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// Answers [`Predict`] for the models that it offers, and changes its offer.
#[derive(Debug)]
pub struct Predictor {
    shared: Rc<Shared>,
}

/// What the handlers' futures hold. Changed between two awaits only, on one thread.
#[derive(Debug)]
struct Shared {
    kinds: ModelKinds,
    /// Shared with whoever shows it, and with the predictor that takes this one's place.
    offer: watch::Sender<Offer>,
    find: Recipient<FindModel>,
    fetch: Recipient<FetchModel>,
    /// A cell is filled once, however many requests wait for it.
    loaded: RefCell<Recent<(String, u64), Loaded>>,
    /// What a name meant when the registry was asked last: the number of a version.
    resolved: RefCell<Recent<(String, VersionRef), u64>>,
    places: Semaphore,
    /// Whether no registry answered last time; it is reported once, and nobody waits for one then.
    away: Cell<bool>,
    /// Whether somebody is finding out if it is back.
    asking: Cell<bool>,
}

type Loaded = Rc<OnceCell<ServedModel>>;

impl Predictor {
    /// A predictor that can build these kinds of models. It goes on with `offer` and publishes its
    /// changes there; one predictor has it at a time.
    pub fn new(
        kinds: ModelKinds,
        offer: watch::Sender<Offer>,
        find: Recipient<FindModel>,
        fetch: Recipient<FetchModel>,
    ) -> Self {
        Self { shared: Rc::new(Shared::new(kinds, offer, find, fetch)) }
    }
}

impl Actor for Predictor {
    type Context = Context<Self>;
}

impl Supervised for Predictor {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<Predict> for Predictor {
    type Result = ResponseFuture<<Predict as actix::Message>::Result>;

    fn handle(&mut self, request: Predict, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.predict(request).await })
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

impl Shared {
    fn new(
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
            loaded: RefCell::new(Recent::new(LOADED_MAX)),
            resolved: RefCell::new(Recent::new(RESOLVED_MAX)),
            places: Semaphore::new(PREDICTIONS_MAX),
            away: Cell::new(false),
            asking: Cell::new(false),
        }
    }

    async fn predict(self: &Rc<Self>, request: Predict) -> Result<Prediction, PredictError> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(PredictError::Busy { limit: PREDICTIONS_MAX });
        };
        let (version, resolved) = self.resolve(&request.model, &request.version).await?;
        // Not before: nothing of a model that is unloaded meanwhile may get into memory.
        if !self.offer.borrow().has(&request.model) {
            return Err(PredictError::Unloaded { model: request.model });
        }
        let key = (request.model.clone(), version);
        let cell = self.cell(&key);
        let served = cell.get_or_try_init(|| self.load(&key.0, version)).await?;
        let start = Instant::now();
        let answer = served.predict(&request);
        let compute_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let answer = answer.map(|prediction| Prediction { resolved, compute_ns, ..prediction });
        if let Err(error @ PredictError::Model { .. }) = &answer {
            // Whatever state a model keeps may be broken after it failed.
            warn!(%error, "a model failed; it is loaded again for the next request");
            self.loaded.borrow_mut().remove(&key);
        }
        answer
    }

    fn cell(&self, key: &(String, u64)) -> Loaded {
        self.loaded.borrow_mut().get_or_insert_with(key.clone(), Loaded::default).clone()
    }

    /// Offers a model whose newest version can be loaded.
    async fn offer_again(self: &Rc<Self>, model: String) -> Result<ModelLoaded, PredictError> {
        let (version, _) = self.resolve(&model, &VersionRef::Latest).await?;
        let key = (model, version);
        self.cell(&key).get_or_try_init(|| self.load(&key.0, version)).await?;
        self.offer.send_modify(|offer| offer.load(&key.0));
        info!(model = key.0, version, "model offered");
        Ok(ModelLoaded { version })
    }

    async fn unload(self: &Rc<Self>, model: String) -> Result<ModelUnloaded, PredictError> {
        self.resolve(&model, &VersionRef::Latest).await?;
        self.offer.send_modify(|offer| offer.unload(&model));
        let versions = self.loaded.borrow_mut().retain(|(loaded, _)| *loaded != model);
        info!(model, versions, "model unloaded");
        Ok(ModelUnloaded { versions })
    }

    /// The version that the name means now. Where no registry answers it is the one that the
    /// name meant last, for as long as that lasts: whoever can't reach a registry can't publish or
    /// delete either, so an old answer is worth more than none. Nobody waits for a registry that
    /// was silent last time; one request at a time finds out whether it is back.
    async fn resolve(
        self: &Rc<Self>,
        model: &str,
        version: &VersionRef,
    ) -> Result<(u64, Resolved), PredictError> {
        let key = (model.to_owned(), version.clone());
        let known = self.remembered(&key);
        if let (true, Some(version)) = (self.away.get(), known) {
            if !self.asking.replace(true) {
                let shared = self.clone();
                tokio::task::spawn_local(async move {
                    // Whatever it says is remembered for those who come next.
                    let _ = shared.ask(key).await;
                    shared.asking.set(false);
                });
            }
            return Ok((version, Resolved::Before));
        }
        match self.ask(key).await {
            Err(error) if !matches!(error, FindError::Catalog(_)) => {
                known.map(|version| (version, Resolved::Before)).ok_or(error.into())
            }
            found => Ok((found?, Resolved::Now)),
        }
    }

    /// What a name meant last. A version in memory needs nobody to say that its number means it.
    fn remembered(&self, key: &(String, VersionRef)) -> Option<u64> {
        if let Some(version) = self.resolved.borrow().get(key) {
            return Some(*version);
        }
        let VersionRef::Number(number) = key.1 else { return None };
        let loaded = self.loaded.borrow();
        let cell = loaded.get(&(key.0.clone(), number))?;
        cell.get().map(|_| number)
    }

    async fn ask(&self, key: (String, VersionRef)) -> Result<u64, FindError> {
        let find = FindModel { model: key.0.clone(), version: key.1.clone() };
        match ask(&self.find, find, FIND_LIMIT).await {
            Ok(found) => {
                self.back();
                self.resolved.borrow_mut().insert(key, found.version);
                Ok(found.version)
            }
            Err(error @ FindError::Catalog(_)) => {
                self.back();
                if let VersionRef::Number(number) = key.1 {
                    self.loaded.borrow_mut().remove(&(key.0.clone(), number));
                }
                self.resolved.borrow_mut().remove(&key);
                Err(error)
            }
            Err(error) => {
                if !self.away.replace(true) {
                    warn!(%error, "no registry answers; names mean what they meant last");
                }
                Err(error)
            }
        }
    }

    fn back(&self) {
        if self.away.replace(false) {
            info!("a registry answers again");
        }
    }

    async fn load(&self, model: &str, version: u64) -> Result<ServedModel, PredictError> {
        let fetch = FetchModel { model: model.to_owned(), version: VersionRef::Number(version) };
        let fetched = ask(&self.fetch, fetch, FETCH_LIMIT).await?;
        let served = ServedModel::new(&self.kinds, fetched)?;
        info!(model, version, "version loaded");
        Ok(served)
    }
}

#[cfg(test)]
mod tests {
    use actix::Addr;

    use super::*;
    use crate::catalog::CatalogError;
    use crate::messages::{FetchedModel, RegistryStoreError};
    use crate::new_version::tests::{artifact, new_version};
    use crate::serving::tests::toy_kinds;
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
            Ok(FetchedModel { description, tensors: vec![vec![weight; 2].into()] })
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
        let offer = watch::Sender::default();
        (registry, Predictor::new(toy_kinds(), offer, find, fetch).start())
    }

    fn predict(version: VersionRef) -> Predict {
        let inputs = vec![1.0, 2.0].into();
        Predict { model: "m".into(), version, rows: 1, features: 2, inputs }
    }

    async fn latest(predictor: &Addr<Predictor>) -> (u64, f32) {
        let answer = predictor.send(predict(VersionRef::Latest)).await.unwrap().unwrap();
        (answer.version, answer.values[0])
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
        assert_eq!((first.version, first.values), (second.version, second.values));
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
        assert_eq!((answer.version, answer.resolved), (1, Resolved::Before));
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
            Predictor::new(toy_kinds(), offer.clone(), find, fetch).start()
        };
        fresh().send(unload()).await.unwrap().unwrap();
        let refused = fresh().send(predict(VersionRef::Latest)).await.unwrap();
        assert_eq!(refused, Err(PredictError::Unloaded { model: "m".into() }));
    }

    #[actix_rt::test]
    async fn a_model_is_unloaded_by_the_name_it_had_while_the_registry_is_away() {
        let (registry, predictor) = start();
        latest(&predictor).await;
        registry.send(Change(1, true)).await.unwrap();
        assert_eq!(predictor.send(unload()).await.unwrap(), Ok(ModelUnloaded { versions: 1 }));
    }
}
