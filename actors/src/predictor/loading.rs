//! Versions into memory, with all that they are made of.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::Shared;
use super::names::Meaning;
use crate::messages::{FetchModel, FetchedModel, PredictError, ask};
use crate::pipeline::DEPTH_MAX;
use crate::serving::ServedModel;
use crate::version::{Member, ServedVersion, VersionRef};

/// The longest wait for the tensors of a version: a gigabyte over a slow link.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

impl Shared {
    /// The version, loaded if it is not in memory.
    pub(super) async fn get(
        &self,
        model: &str,
        meaning: Meaning,
    ) -> Result<Arc<ServedModel>, PredictError> {
        let load = async || {
            let fetched = self.fetched(model, meaning.version).await?;
            self.build(fetched, 0).await
        };
        self.models.get(model, meaning.version, meaning.bytes, load).await
    }

    async fn fetched(&self, model: &str, version: u64) -> Result<FetchedModel, PredictError> {
        let (model, version) = (model.to_owned(), VersionRef::Number(version));
        Ok(ask(&self.fetch, FetchModel { model, version }, FETCH_LIMIT).await?)
    }

    /// In a box, for a pipeline may be made of pipelines.
    fn build(
        &self,
        fetched: FetchedModel,
        depth: usize,
    ) -> LocalBoxFuture<'_, Result<ServedModel, PredictError>> {
        Box::pin(async move {
            let mut members: Vec<Arc<ServedModel>> = Vec::new();
            for (at, member) in fetched.description.made_of.iter().enumerate() {
                let same = |other: &Member| {
                    (&other.model, other.version) == (&member.model, member.version)
                };
                let before = fetched.description.made_of[..at].iter().position(same);
                members.push(match before {
                    Some(before) => members[before].clone(),
                    None => self.member(member, depth + 1).await?,
                });
            }
            self.runners.build(&self.kinds, fetched, members).await
        })
    }

    /// One that is in memory for itself is shared. Its memory counts as the pipeline's all the same: it
    /// may leave the shelf, and stays in memory with the pipeline.
    async fn member(
        &self,
        member: &Member,
        depth: usize,
    ) -> Result<Arc<ServedModel>, PredictError> {
        let Member { model, version, digest, .. } = member;
        let refused = |cause: String| {
            Err(PredictError::Load {
                model: model.clone(),
                version: ServedVersion::Published(*version),
                cause,
            })
        };
        if depth > DEPTH_MAX {
            return refused(format!("it lies more than {DEPTH_MAX} pipelines deep"));
        }
        let here = self.models.here(model, *version).filter(|here| !here.has_panicked());
        let served = match here {
            Some(served) => served,
            None => Arc::new(self.build(self.fetched(model, *version).await?, depth).await?),
        };
        if served.digest() != digest {
            let got = served.digest();
            return refused(format!("its state is {got}, a pipeline was made of {digest}"));
        }
        Ok(served)
    }
}
