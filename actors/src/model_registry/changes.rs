//! The half of ModelRegistry that changes the log.

use bytes::Bytes;
use tokio::sync::{MutexGuard, SemaphorePermit};
use tracing::{info, warn};

use super::{ATTEMPTS_MAX, CHANGES_MAX, RETIRED_MAX, Shared};
use crate::catalog::{Catalog, CatalogError, Edit, LogEntry, Outcome, Publication};
use crate::messages::{
    AliasSet, Appended, ChangeError, DeleteVersion, EditRegistry, Edited, PublishModel, Published,
    RegistryStoreError, Remove, RemoveAlias, RemoveArtifact, SetAlias, SetRoute, Values,
    WriteArtifact, ask_store,
};
use crate::new_version::NewVersion;
use crate::planted::{self, Bug};
use crate::version::{Artifact, VersionRef, check_alias};

/// What a change comes to, with the catalog as it is.
#[expect(clippy::large_enum_variant, reason = "one at a time, and most are the large one")]
enum Step<R> {
    /// It is so already.
    Done(R),
    /// It is so once this is in the log.
    Append(LogEntry, R),
}

impl Shared {
    pub(super) async fn publish(&self, message: PublishModel) -> Result<Published, ChangeError> {
        let PublishModel { description: new, tensors, file } = message;
        new.check_file(file.as_ref().map_or(0, |file| file.len()))?;
        new.check_tensors(tensors.iter().map(|values| values.as_slice()))?;
        let _turn = self.turn().await?;
        let mut attempt = None;
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
                    match self.write(&new, version, &tensors, file.clone()).await? {
                        Ok(artifact) => artifact,
                        Err(higher) => {
                            free = higher;
                            continue;
                        }
                    }
                }
            };
            let description = new.clone().numbered(version, artifact.clone());
            let entry = LogEntry::Published { description };
            if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                info!(model = new.model, version, run = new.run, "version published");
                self.retire(&new.model).await;
                return Ok(Published { version, already: false });
            }
            attempt = Some((version, artifact));
        }
        self.discard(&new.model, attempt).await;
        Err(ChangeError::Contended { attempts: ATTEMPTS_MAX })
    }

    /// The files of a version, or the number to try next where this one's folder is another run's.
    async fn write(
        &self,
        new: &NewVersion,
        version: u64,
        tensors: &[Values],
        file: Option<Bytes>,
    ) -> Result<Result<Artifact, u64>, RegistryStoreError> {
        let (description, tensors) = (new.clone(), tensors.to_vec());
        let write = WriteArtifact { description, version, tensors, file };
        match ask_store(&self.store.write_artifact, write).await {
            Err(error @ RegistryStoreError::Occupied { highest, .. }) => {
                let next = highest.saturating_add(1);
                warn!(model = new.model, version, %error, next, "version left out");
                Ok(Err(next))
            }
            written => written.map(Ok),
        }
    }

    /// Deletes what is older than the versions that are kept, and has no name. What can't be deleted
    /// now is tried again after the next publication.
    async fn retire(&self, model: &str) {
        let Some(keep) = self.keep else { return };
        for _ in 0..RETIRED_MAX {
            let look = self.log.read_at(|known| known.expired(model, keep.get()).first().copied());
            let Ok((Some(version), place)) = look.await else { return };
            let entry = LogEntry::Deleted { model: model.to_owned(), version };
            match self.log.append(&entry, place).await {
                Ok(Appended::Written { .. }) => {
                    info!(model, version, keep, "old version deleted");
                    let model = model.to_owned();
                    self.remove(RemoveArtifact { model, version, files: Remove::All }).await;
                }
                Ok(Appended::Taken) => {}
                Err(error) => {
                    warn!(model, version, %error, "an old version stays");
                    return;
                }
            }
        }
    }

    pub(super) async fn set_alias(&self, message: SetAlias) -> Result<AliasSet, ChangeError> {
        let SetAlias { model, alias, version } = message;
        check_alias(&alias).map_err(CatalogError::from)?;
        self.change(|known| {
            let version = known.resolve(&model, &version)?;
            if known.aliased(&model, &alias) == Some(version) {
                return Ok(Step::Done(AliasSet { version }));
            }
            let (model, alias) = (model.clone(), alias.clone());
            let entry = LogEntry::Aliased { model, alias, version };
            known.check(&entry)?;
            Ok(Step::Append(entry, AliasSet { version }))
        })
        .await
    }

    pub(super) async fn remove_alias(&self, message: RemoveAlias) -> Result<(), ChangeError> {
        let RemoveAlias { model, alias } = message;
        self.change(|known| {
            known.versions(&model).map(drop)?;
            if known.aliased(&model, &alias).is_none() {
                return Ok(Step::Done(()));
            }
            let entry = LogEntry::AliasRemoved { model: model.clone(), alias: alias.clone() };
            known.check(&entry)?;
            Ok(Step::Append(entry, ()))
        })
        .await
    }

    pub(super) async fn set_route(&self, message: SetRoute) -> Result<(), ChangeError> {
        let SetRoute { model, route } = message;
        let entry = LogEntry::Routed { model: model.clone(), route: route.clone() };
        self.change(|known| {
            known.check(&entry)?;
            let is_so = known.route(&model)? == route.as_ref();
            Ok(if is_so { Step::Done(()) } else { Step::Append(entry.clone(), ()) })
        })
        .await
    }

    pub(super) async fn delete(&self, message: DeleteVersion) -> Result<(), ChangeError> {
        let DeleteVersion { model, version } = message;
        let entry = LogEntry::Deleted { model: model.clone(), version };
        self.change(|known| {
            if known.was_deleted(&model, version) {
                return Ok(Step::Done(()));
            }
            known.check(&entry)?;
            Ok(Step::Append(entry.clone(), ()))
        })
        .await?;
        // Also where the entry was there already: whoever wrote it may have died before this.
        self.remove(RemoveArtifact { model, version, files: Remove::All }).await;
        Ok(())
    }

    pub(super) async fn edit(&self, message: EditRegistry) -> Result<Edited, ChangeError> {
        let EditRegistry { edit, at_unix_ms } = message;
        let step = |known: &Catalog| match known.outcome(&edit)? {
            Outcome::Already(version) => Ok(Step::Done((Edited { version }, Vec::new()))),
            Outcome::Change(version) => {
                let gone: Vec<_> = match &edit {
                    Edit::DeleteModel { model } => {
                        known.versions(model)?.map(|version| version.version).collect()
                    }
                    _ => Vec::new(),
                };
                let entry = LogEntry::Edited { edit: edit.clone(), at_unix_ms };
                Ok(Step::Append(entry, (Edited { version }, gone)))
            }
        };
        let (edited, gone) = self.change(step).await?;
        if let Edit::DeleteModel { model } = edit {
            for version in gone {
                let model = model.clone();
                self.remove(RemoveArtifact { model, version, files: Remove::All }).await;
            }
        }
        Ok(edited)
    }

    /// Makes one change: decides by the catalog as it is, and again where the log has moved on
    /// before the entry was in it.
    async fn change<R>(
        &self,
        decide: impl Fn(&Catalog) -> Result<Step<R>, ChangeError>,
    ) -> Result<R, ChangeError> {
        let _turn = self.turn().await?;
        for _ in 0..ATTEMPTS_MAX {
            let (step, place) = self.log.read_at(&decide).await?;
            match step? {
                Step::Done(result) => return Ok(result),
                Step::Append(entry, result) => {
                    if let Appended::Written { .. } = self.log.append(&entry, place).await? {
                        info!("{entry}");
                        return Ok(result);
                    }
                }
            }
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
