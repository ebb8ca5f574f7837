//! ModelRegistry: the versions that training made, under names that people use.
//!
//! Connects a mailbox to a log of changes. Which change is allowed is decided in `catalog.rs`;
//! that a change happened is decided by its log entry alone, which only one registry can write.

mod changes;

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, Supervised, WrapFuture};
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::warn;

use crate::catalog::{Catalog, CatalogError, Page};
use crate::log_seen::{LogSeen, SEEN_MAX};
use crate::messages::{
    DeleteVersion, EditRegistry, FetchModel, FetchedModel, FindError, FindModel, FindRoute,
    FoundRoute, ListModels, ModelList, PublishModel, ReadArtifact, ReadRecords, Records, RecordsOf,
    RegistryStoreError, RegistryStoreLink, RemoveAlias, SetAlias, SetRoute, Stored, ask_store,
};
use crate::registry_log::RegistryLog;
use crate::version::{VersionDescription, VersionRef};

/// How often it looks for what other registries of the same store did: so long a new version of
/// theirs may not be the latest one here. A look costs two small requests to the store.
const FOLLOW: Duration = Duration::from_millis(100);

/// How long a question waits for the log to be read again. Whoever asks waits a second.
const LOOK_MAX: Duration = Duration::from_millis(250);

/// Entries of other registries that may come between one change and its own entry. Each of them
/// is somebody's progress; 32 in a row mean that something writes in a loop.
const ATTEMPTS_MAX: u32 = 32;

/// Changes that wait for their turn. A publication holds the parameters of its model meanwhile.
const CHANGES_MAX: usize = 16;

/// Artifacts that are read at a time: each is a whole model in memory, and one disk is no faster
/// with more readers.
const READS_MAX: usize = 8;

/// Versions that one publication deletes at most: as a rule one, and more only after fewer are to be
/// kept than before.
const RETIRED_MAX: usize = 64;

/// Answers questions about published versions and makes changes to them, one after the other.
#[derive(Debug)]
pub struct ModelRegistry {
    shared: Rc<Shared>,
}

/// What the handlers' futures hold. Changed between two awaits only, on one thread.
#[derive(Debug)]
struct Shared {
    store: RegistryStoreLink,
    log: RegistryLog,
    /// Held by the change that is under way, so that two publications get two versions.
    turn: Mutex<()>,
    /// Versions of a model that are kept; `None`: all.
    keep: Option<NonZeroUsize>,
    changes: Semaphore,
    reads: Semaphore,
    /// Whether the last look at the log failed; it is reported once.
    behind: Cell<bool>,
    following: Cell<bool>,
}

impl ModelRegistry {
    /// A registry over a store. It reads the log when it starts, and questions wait until it has.
    pub fn new(store: RegistryStoreLink) -> Self {
        Self::keeping(None, store, watch::Sender::default())
    }

    /// The same, which tells predictors of its process how far it has read the log (`seen`), and
    /// deletes a model's versions beyond the newest `keep` whenever one is published, but none that
    /// an alias or a route names.
    pub fn keeping(
        keep: Option<NonZeroUsize>,
        store: RegistryStoreLink,
        seen: watch::Sender<Option<LogSeen>>,
    ) -> Self {
        Self { shared: Rc::new(Shared::new(keep, store, seen)) }
    }
}

impl Actor for ModelRegistry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let follow = |registry: &mut Self, ctx: &mut Self::Context| {
            let shared = registry.shared.clone();
            ctx.spawn(async move { shared.follow().await }.into_actor(registry));
        };
        follow(self, ctx);
        ctx.run_interval(FOLLOW, follow);
    }
}

impl Supervised for ModelRegistry {
    fn restarting(&mut self, _ctx: &mut Self::Context) {
        crate::restart::replace(self);
    }
}

impl Handler<FindModel> for ModelRegistry {
    type Result = ResponseFuture<<FindModel as actix::Message>::Result>;

    fn handle(&mut self, message: FindModel, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.find(&message.model, &message.version).await })
    }
}

impl Handler<ListModels> for ModelRegistry {
    type Result = ResponseFuture<<ListModels as actix::Message>::Result>;

    fn handle(&mut self, _list: ListModels, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move {
            shared.refresh().await;
            let models = shared.log.read(|known| known.list()).await?;
            Ok(ModelList { models })
        })
    }
}

impl Handler<FetchModel> for ModelRegistry {
    type Result = ResponseFuture<<FetchModel as actix::Message>::Result>;

    fn handle(&mut self, message: FetchModel, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.fetch(message).await })
    }
}

impl Handler<PublishModel> for ModelRegistry {
    type Result = ResponseFuture<<PublishModel as actix::Message>::Result>;

    fn handle(&mut self, message: PublishModel, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.publish(message).await })
    }
}

impl Handler<SetAlias> for ModelRegistry {
    type Result = ResponseFuture<<SetAlias as actix::Message>::Result>;

    fn handle(&mut self, message: SetAlias, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.set_alias(message).await })
    }
}

impl Handler<RemoveAlias> for ModelRegistry {
    type Result = ResponseFuture<<RemoveAlias as actix::Message>::Result>;

    fn handle(&mut self, message: RemoveAlias, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.remove_alias(message).await })
    }
}

impl Handler<SetRoute> for ModelRegistry {
    type Result = ResponseFuture<<SetRoute as actix::Message>::Result>;

    fn handle(&mut self, message: SetRoute, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.set_route(message).await })
    }
}

impl Handler<FindRoute> for ModelRegistry {
    type Result = ResponseFuture<<FindRoute as actix::Message>::Result>;

    fn handle(&mut self, message: FindRoute, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.find_route(&message.model).await })
    }
}

impl Handler<DeleteVersion> for ModelRegistry {
    type Result = ResponseFuture<<DeleteVersion as actix::Message>::Result>;

    fn handle(&mut self, message: DeleteVersion, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.delete(message).await })
    }
}

impl Handler<EditRegistry> for ModelRegistry {
    type Result = ResponseFuture<<EditRegistry as actix::Message>::Result>;

    fn handle(&mut self, message: EditRegistry, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.edit(message).await })
    }
}

impl Handler<ReadRecords> for ModelRegistry {
    type Result = ResponseFuture<<ReadRecords as actix::Message>::Result>;

    fn handle(&mut self, message: ReadRecords, _ctx: &mut Self::Context) -> Self::Result {
        let shared = self.shared.clone();
        Box::pin(async move { shared.records(message.of).await })
    }
}

impl Shared {
    fn new(
        keep: Option<NonZeroUsize>,
        store: RegistryStoreLink,
        seen: watch::Sender<Option<LogSeen>>,
    ) -> Self {
        Self {
            keep,
            log: RegistryLog::new(store.clone(), seen),
            store,
            turn: Mutex::new(()),
            changes: Semaphore::new(CHANGES_MAX),
            reads: Semaphore::new(READS_MAX),
            behind: Cell::new(false),
            following: Cell::new(false),
        }
    }

    /// Reads what other registries appended.
    async fn follow(&self) {
        if self.following.replace(true) {
            return;
        }
        match self.log.catch_up().await {
            Ok(()) => self.behind.set(false),
            Err(error) => {
                if !self.behind.replace(true) {
                    warn!(%error, "the registry can't read its log and answers from what it has");
                }
            }
        }
        self.following.set(false);
    }

    /// Reads the log before a question where following it has stopped. A store that can't be read
    /// is waited for once; then the catalog as it is has to do.
    async fn refresh(&self) {
        if !self.behind.get()
            && self.log.is_older_than(SEEN_MAX)
            && !matches!(tokio::time::timeout(LOOK_MAX, self.log.catch_up()).await, Ok(Ok(())))
        {
            self.behind.set(true);
            warn!("the registry can't read its log and answers from what it has");
        }
    }

    /// The version that a name means.
    async fn find(
        &self,
        model: &str,
        version: &VersionRef,
    ) -> Result<VersionDescription, FindError> {
        self.look(|known| known.find(model, version).cloned()).await
    }

    async fn records(&self, of: RecordsOf) -> Result<Records, FindError> {
        let page =
            |page: Page<_>| Records { models: page.found, next: page.next, ..Records::default() };
        if let RecordsOf::Events { after, limit } = of {
            self.refresh().await;
            let events = self.log.events(after, limit).await?;
            return Ok(Records { events, ..Records::default() });
        }
        self.look(|known| match &of {
            // Answered above: they are no part of the catalog.
            RecordsOf::Events { .. } => Ok(Records::default()),
            RecordsOf::Model { model } => {
                let models = vec![known.model_record(model)?];
                Ok(Records { models, ..Records::default() })
            }
            RecordsOf::Version { model, version } => {
                let versions = vec![known.version_record(model, version)?];
                Ok(Records { versions, ..Records::default() })
            }
            RecordsOf::Models(search) => known.search_models(search).map(page),
            RecordsOf::Versions(search) => {
                let Page { found: versions, next } = known.search_versions(search)?;
                Ok(Records { versions, next, ..Records::default() })
            }
        })
        .await
    }

    /// Asks the catalog. That there is nothing is said only after a look: another registry may have
    /// changed it a moment ago.
    async fn look<R>(
        &self,
        question: impl Fn(&Catalog) -> Result<R, CatalogError>,
    ) -> Result<R, FindError> {
        self.refresh().await;
        match self.log.read(&question).await? {
            Err(error) if error.is_not_found() => {
                self.log.catch_up().await?;
                Ok(self.log.read(&question).await??)
            }
            found => Ok(found?),
        }
    }

    async fn fetch(&self, message: FetchModel) -> Result<FetchedModel, FindError> {
        let Ok(_reading) = self.reads.try_acquire() else {
            return Err(FindError::Busy { limit: READS_MAX });
        };
        let description = self.find(&message.model, &message.version).await?;
        let read = ReadArtifact { description: description.clone() };
        match ask_store(&self.store.read_artifact, read).await {
            Err(error @ RegistryStoreError::Missing { .. }) => {
                // Another registry may have deleted the version since.
                self.log.catch_up().await?;
                let (model, version) = (&description.model, description.version);
                let published = self
                    .log
                    .read(|known| known.find(model, &VersionRef::Number(version)).map(drop));
                published.await??;
                Err(error.into())
            }
            read => {
                let Stored { tensors, file } = read?;
                Ok(FetchedModel { description, tensors, file })
            }
        }
    }

    async fn find_route(&self, model: &str) -> Result<FoundRoute, FindError> {
        let route = self.look(|known| known.route(model).map(|route| route.cloned())).await?;
        Ok(FoundRoute { route })
    }
}
