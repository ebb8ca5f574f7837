//! ModelRegistry: the versions that training made, under names that people use.
//!
//! Connects a mailbox to a log of changes. Which change is allowed is decided in `catalog.rs`;
//! that a change happened is decided by its log entry alone, which only one registry can write.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, ResponseFuture, Supervised, WrapFuture};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit, watch};
use tracing::{info, warn};

use crate::catalog::{CatalogError, LogEntry, Publication};
use crate::log_seen::{LogSeen, SEEN_MAX};
use crate::messages::{
    AliasSet, Appended, ChangeError, DeleteVersion, FetchModel, FetchedModel, FindError, FindModel,
    FindRoute, FoundRoute, ListModels, ModelList, PublishModel, Published, ReadArtifact,
    RegistryStoreError, RegistryStoreLink, Remove, RemoveAlias, RemoveArtifact, SetAlias, SetRoute,
    WriteArtifact, ask_store,
};
use crate::planted::{self, Bug};
use crate::registry_log::RegistryLog;
use crate::version::{Artifact, VersionDescription, VersionRef, check_alias};

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
    changes: Semaphore,
    reads: Semaphore,
    /// Whether the last look at the log failed; it is reported once.
    behind: Cell<bool>,
    following: Cell<bool>,
}

impl ModelRegistry {
    /// A registry over a store. It reads the log when it starts, and questions wait until it has.
    pub fn new(store: RegistryStoreLink) -> Self {
        Self::telling(store, watch::Sender::default())
    }

    /// The same, which tells predictors of its process how far it has read the log.
    pub fn telling(store: RegistryStoreLink, seen: watch::Sender<Option<LogSeen>>) -> Self {
        Self { shared: Rc::new(Shared::new(store, seen)) }
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

impl Shared {
    fn new(store: RegistryStoreLink, seen: watch::Sender<Option<LogSeen>>) -> Self {
        Self {
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

    /// The version that a name means. That there is none is said only after a look: another
    /// registry may have published it a moment ago.
    async fn find(
        &self,
        model: &str,
        version: &VersionRef,
    ) -> Result<VersionDescription, FindError> {
        self.refresh().await;
        let find = || self.log.read(|known| known.find(model, version).cloned());
        match find().await? {
            Err(error) if error.is_not_found() => {
                self.log.catch_up().await?;
                Ok(find().await??)
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
            read => Ok(FetchedModel { description, tensors: read? }),
        }
    }

    async fn publish(&self, message: PublishModel) -> Result<Published, ChangeError> {
        let PublishModel { description: new, tensors } = message;
        new.check_tensors(tensors.iter().map(|values| values.as_slice()))?;
        let _turn = self.turn().await?;
        let mut attempt: Option<(u64, Artifact)> = None;
        // Numbers below it have folders that the log doesn't know.
        let mut free = 0;
        for _ in 0..ATTEMPTS_MAX {
            let unseen = planted::is(Bug::RunUnseen) && attempt.is_some();
            let look = self.log.read_at(|known| match unseen {
                true => Ok(Publication::New(known.next_version(&new.model))),
                false => known.publication(&new),
            });
            let (publication, place) = look.await?;
            let version = match publication? {
                Publication::New(version) => version.max(free),
                Publication::Already(version) => {
                    self.discard(&new.model, attempt).await;
                    return Ok(Published { version, already: true });
                }
            };
            let artifact = match attempt.take() {
                Some((written, artifact)) if written == version => artifact,
                lost => {
                    self.discard(&new.model, lost).await;
                    let (description, tensors) = (new.clone(), tensors.clone());
                    let write = WriteArtifact { description, version, tensors };
                    match ask_store(&self.store.write_artifact, write).await {
                        Err(error @ RegistryStoreError::Occupied { highest, .. }) => {
                            free = highest.saturating_add(1);
                            warn!(model = new.model, version, %error, next = free, "version left out");
                            continue;
                        }
                        written => written?,
                    }
                }
            };
            let description = new.clone().numbered(version, artifact.clone());
            let entry = LogEntry::Published { description };
            if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                info!(model = new.model, version, run = new.run, "version published");
                return Ok(Published { version, already: false });
            }
            attempt = Some((version, artifact));
        }
        self.discard(&new.model, attempt).await;
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn set_alias(&self, message: SetAlias) -> Result<AliasSet, ChangeError> {
        let SetAlias { model, alias, version } = message;
        check_alias(&alias).map_err(CatalogError::from)?;
        let _turn = self.turn().await?;
        for _ in 0..ATTEMPTS_MAX {
            let look = self.log.read_at(|known| {
                let number = known.find(&model, &version)?.version;
                Ok::<_, ChangeError>((number, known.aliased(&model, &alias)))
            });
            let (found, place) = look.await?;
            let (number, named) = found?;
            let (model, alias) = (model.clone(), alias.clone());
            let entry = LogEntry::Aliased { model, alias, version: number };
            if named == Some(number) {
                return Ok(AliasSet { version: number });
            }
            if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                return Ok(AliasSet { version: number });
            }
        }
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn remove_alias(&self, message: RemoveAlias) -> Result<(), ChangeError> {
        let RemoveAlias { model, alias } = message;
        let _turn = self.turn().await?;
        for _ in 0..ATTEMPTS_MAX {
            let entry = LogEntry::AliasRemoved { model: model.clone(), alias: alias.clone() };
            let look = self.log.read_at(|known| {
                known.versions(&model).map(drop)?;
                let named = known.aliased(&model, &alias);
                if named.is_some() {
                    known.check(&entry)?;
                }
                Ok::<_, ChangeError>(named)
            });
            let (named, place) = look.await?;
            if named?.is_none() {
                return Ok(());
            }
            if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                return Ok(());
            }
        }
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn set_route(&self, message: SetRoute) -> Result<(), ChangeError> {
        let SetRoute { model, route } = message;
        let entry = LogEntry::Routed { model: model.clone(), route: route.clone() };
        let _turn = self.turn().await?;
        for _ in 0..ATTEMPTS_MAX {
            let look = self.log.read_at(|known| {
                known.check(&entry)?;
                Ok::<_, ChangeError>(known.route(&model)? == route.as_ref())
            });
            let (is_so, place) = look.await?;
            if is_so? {
                return Ok(());
            }
            if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                info!(model, "route of a model changed");
                return Ok(());
            }
        }
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    async fn find_route(&self, model: &str) -> Result<FoundRoute, FindError> {
        self.refresh().await;
        let find = || self.log.read(|known| known.route(model).map(|route| route.cloned()));
        let route = match find().await? {
            Err(error) if error.is_not_found() => {
                self.log.catch_up().await?;
                find().await??
            }
            found => found?,
        };
        Ok(FoundRoute { route })
    }

    async fn delete(&self, message: DeleteVersion) -> Result<(), ChangeError> {
        let DeleteVersion { model, version } = message;
        let entry = LogEntry::Deleted { model: model.clone(), version };
        let _turn = self.turn().await?;
        for _ in 0..ATTEMPTS_MAX {
            let look =
                self.log.read_at(|known| (known.was_deleted(&model, version), known.check(&entry)));
            let ((gone, allowed), place) = look.await?;
            if !gone {
                allowed?;
                if self.log.append(&entry, place).await? == Appended::Taken {
                    continue;
                }
                info!(model, version, "version deleted");
            }
            // Also where the entry was there already: whoever wrote it may have died before this.
            self.remove(RemoveArtifact { model, version, files: Remove::All }).await;
            return Ok(());
        }
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    /// Waits until no other change is under way, and sees what other registries did meanwhile.
    async fn turn(&self) -> Result<(SemaphorePermit<'_>, MutexGuard<'_, ()>), ChangeError> {
        let Ok(place) = self.changes.try_acquire() else {
            return Err(ChangeError::Busy { limit: CHANGES_MAX });
        };
        let turn = self.turn.lock().await;
        self.log.catch_up().await?;
        Ok((place, turn))
    }

    /// Removes the files of an attempt that lost its version to another registry; but not where
    /// the other one published the very same files, which a repeated message can bring about.
    async fn discard(&self, model: &str, attempt: Option<(u64, Artifact)>) {
        let Some((version, artifact)) = attempt else { return };
        let lost = self.log.read(|known| {
            match known.find(model, &VersionRef::Number(version)) {
                Ok(published) => published.artifact.file != artifact.file,
                // A number that was left out is never given again.
                Err(_) => version < known.next_version(model),
            }
        });
        if matches!(lost.await, Ok(true)) {
            let files = Remove::Attempt(artifact);
            self.remove(RemoveArtifact { model: model.to_owned(), version, files }).await;
        }
    }

    /// Removes files that nobody can see any more; what stays behind only takes space.
    async fn remove(&self, message: RemoveArtifact) {
        let (model, version) = (message.model.clone(), message.version);
        if let Err(error) = ask_store(&self.store.remove_artifact, message).await {
            warn!(model, version, %error, "files of an unpublished version stay in the store");
        }
    }
}
