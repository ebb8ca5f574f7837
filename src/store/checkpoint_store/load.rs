//! Reading checkpoints back: whole or not, by range, by slot, or all of it.

use std::ops::Range;
use std::sync::Arc;

use gradmesh_actors::checkpoint::{
    Manifest, PartContent, SavedPart, StateSnapshot, is_whole, residual_name,
};
use gradmesh_actors::codec::codec;
use gradmesh_actors::ids::{Slot, Version};
use gradmesh_actors::messages::checkpoint_store::{
    CheckpointError, LoadRange, LoadResiduals, LoadState, LoadedRange,
};
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;
use gradmesh_actors::planted::{self, Bug};

use super::{CheckpointStore, PARAMETERS, manifest_path, short};
use crate::store::sealed::Sealed;
use crate::store::tensors::{TensorFile, read_safetensors};

impl CheckpointStore {
    /// The manifest, if its parts are all that its job needs, there and undamaged.
    pub(super) async fn whole(&self, version: Version) -> Result<Manifest, CheckpointError> {
        let manifest = self.manifest(version).await?;
        let damaged =
            |cause: String| CheckpointError::Damaged { path: manifest_path(version), cause };
        let plan = JobPlan::new(manifest.offer.clone(), 1)
            .map_err(|error| damaged(format!("its job has no plan: {error}")))?;
        let job = &plan.offer.job;
        let keeps_residuals = codec(&job.gradient).is_some_and(|codec| codec.keeps_residual());
        let slots = keeps_residuals.then_some(job.virtual_workers);
        if !is_whole(&manifest.parts, plan.layout.len(), slots) {
            let (parts, len) = (manifest.parts.len(), plan.layout.len());
            let cause = format!("its {parts} parts are not each of {len} parameters once");
            return Err(damaged(cause));
        }
        for part in &manifest.parts {
            self.read_part(part).await?;
        }
        Ok(manifest)
    }

    pub(super) async fn manifest(&self, version: Version) -> Result<Manifest, CheckpointError> {
        let path = manifest_path(version);
        let bytes = self.get(&path).await?;
        match Sealed::<Manifest>::read(&bytes) {
            Ok(manifest) if manifest.version == version => Ok(manifest),
            Ok(manifest) => {
                let cause = format!("it is the one of {}", manifest.version);
                Err(CheckpointError::Damaged { path, cause })
            }
            Err(error) => Err(CheckpointError::Damaged { path, cause: error.to_string() }),
        }
    }

    async fn read_part(&self, part: &SavedPart) -> Result<TensorFile, CheckpointError> {
        let damaged = |cause: String| CheckpointError::Damaged { path: part.path.clone(), cause };
        let bytes = self.get(&part.path).await?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        if digest != part.digest && !planted::is(Bug::DamageUnseen) {
            let (got, expected) = (short(&digest), short(&part.digest));
            return Err(damaged(format!("its BLAKE3 is {got}, the manifest says {expected}")));
        }
        read_safetensors(&bytes).map_err(|error| damaged(error.to_string()))
    }

    /// Reads `range` of the tensors `names` out of whichever parts hold it.
    async fn read_range(
        &self,
        manifest: &Manifest,
        range: Range<usize>,
        names: &[String],
    ) -> Result<Vec<Vec<f32>>, CheckpointError> {
        let mut found: Vec<Vec<f32>> = vec![Vec::with_capacity(range.len()); names.len()];
        let mut parts: Vec<(&SavedPart, usize, usize)> = manifest
            .parts
            .iter()
            .filter_map(|part| match part.content {
                PartContent::Parameters { start, end } => Some((part, start, end)),
                PartContent::Residuals { .. } => None,
            })
            .collect();
        parts.sort_by_key(|(_, start, _)| *start);
        for (part, start, end) in parts {
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from >= to {
                continue;
            }
            let file = self.read_part(part).await?;
            for (values, name) in found.iter_mut().zip(names) {
                let tensor = file.tensors.iter().find(|tensor| tensor.name == *name);
                let piece = tensor.and_then(|t| t.values.get(from - start..to - start));
                values.extend(piece.ok_or_else(|| CheckpointError::Missing {
                    version: manifest.version,
                    what: format!("{name} {from}..{to} in {}", part.path),
                })?);
            }
        }
        for (values, name) in found.iter().zip(names) {
            if values.len() != range.len() {
                let what = format!("{name} of all of {}..{}", range.start, range.end);
                return Err(CheckpointError::Missing { version: manifest.version, what });
            }
        }
        Ok(found)
    }

    pub(super) async fn load_range(self, load: LoadRange) -> Result<LoadedRange, CheckpointError> {
        let manifest = self.manifest(load.version).await?;
        let names: Vec<String> = std::iter::once(PARAMETERS.to_owned()).chain(load.state).collect();
        let mut tensors = self.read_range(&manifest, load.range, &names).await?;
        let parameters = tensors.remove(0);
        Ok(LoadedRange { parameters, state: tensors, manifest })
    }

    pub(super) async fn load_residuals(
        self,
        load: LoadResiduals,
    ) -> Result<Vec<(Slot, Vec<f32>)>, CheckpointError> {
        let manifest = self.manifest(load.version).await?;
        let mut found = Vec::with_capacity(load.slots.len());
        for part in &manifest.parts {
            let PartContent::Residuals { slots } = &part.content else { continue };
            let wanted: Vec<Slot> =
                load.slots.iter().copied().filter(|slot| slots.contains(slot)).collect();
            if wanted.is_empty() {
                continue;
            }
            let file = self.read_part(part).await?;
            for tensor in file.tensors {
                let slot = wanted.iter().find(|slot| residual_name(**slot) == tensor.name);
                if let Some(slot) = slot {
                    found.push((*slot, Arc::unwrap_or_clone(tensor.values)));
                }
            }
        }
        found.sort_by_key(|(slot, _)| *slot);
        if found.len() != load.slots.len() {
            let what =
                format!("{} of {} residuals", load.slots.len() - found.len(), load.slots.len());
            return Err(CheckpointError::Missing { version: load.version, what });
        }
        Ok(found)
    }

    pub(super) async fn load_state(
        self,
        load: LoadState,
    ) -> Result<StateSnapshot, CheckpointError> {
        let manifest = self.manifest(load.version).await?;
        let offer = manifest.offer.clone();
        let job = offer.job.clone();
        let plan =
            JobPlan::new(offer, 1).map_err(|error| CheckpointError::Store(error.to_string()))?;
        let optimizer = Optimizer::new(&job.optimizer, plan.last_version().0);
        let mut state: Vec<String> =
            optimizer.state_names().iter().map(|name| (*name).to_owned()).collect();
        state.sort();
        let range = 0..plan.layout.len();
        let load_range = LoadRange { version: load.version, range, state: state.clone() };
        let loaded = self.clone().load_range(load_range).await?;
        let slots: Vec<Slot> = manifest
            .parts
            .iter()
            .filter_map(|part| match &part.content {
                PartContent::Residuals { slots } => Some(slots.clone()),
                PartContent::Parameters { .. } => None,
            })
            .flatten()
            .collect();
        let residuals = self.load_residuals(LoadResiduals { version: load.version, slots }).await?;
        Ok(StateSnapshot {
            version: load.version,
            parameters: loaded.parameters,
            optimizer: state.into_iter().zip(loaded.state).collect(),
            residuals,
        })
    }
}
