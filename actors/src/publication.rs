//! From a run's last checkpoint to what the registry is asked to publish.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::{Manifest, StateSnapshot};
use crate::layout::TensorSpec;
use crate::ledger::EpochRecord;
use crate::messages::{PublishModel, Values};
use crate::new_version::NewVersion;
use crate::plan::JobPlan;
use crate::version::{Parent, Start, TensorShape};

/// The version that a finished run publishes. `created_unix_ms` goes into its description and into
/// nothing else. The digest of its parent is not known here.
///
/// # Errors
/// The manifest's job has no plan, or the state is not as long as its model.
pub(crate) fn describe(
    manifest: &Manifest,
    state: &StateSnapshot,
    created_unix_ms: u64,
) -> Result<PublishModel, String> {
    let offer = &manifest.offer;
    let plan = JobPlan::new(offer.clone(), 1).map_err(|error| error.to_string())?;
    let tensors = plan.layout.tensors();
    let values = (0..tensors.len()).map(|tensor| {
        let values = state.parameters.get(plan.layout.range(tensor));
        values.map(|values| Arc::new(values.to_vec()))
    });
    let values: Option<Vec<Values>> = values.collect();
    let shape =
        |spec: &TensorSpec| TensorShape { name: spec.name.clone(), shape: spec.shape.clone() };
    let description = NewVersion {
        model: offer.job.model.name.clone(),
        architecture: offer.architecture.clone(),
        tensors: tensors.iter().map(shape).collect(),
        features: offer.data.features,
        outputs: offer.outputs,
        classes: offer.data.classes,
        scaling: offer.scaling.clone(),
        job: serde_json::to_value(&offer.job).map_err(|error| error.to_string())?,
        job_digest: manifest.job_digest.clone(),
        data_digest: offer.data.digest.clone(),
        run: manifest.run.clone(),
        digest: state.digest(),
        steps: manifest.version.0,
        epochs: offer.job.epochs,
        metrics: metrics(&manifest.ledger.finished),
        created_unix_ms,
        signature: None,
        made_of: Vec::new(),
        parent: offer.job.model.from.as_ref().map(|Start { model, version }| Parent {
            model: model.clone(),
            version: *version,
            digest: None,
        }),
    };
    let values = values.ok_or("the last checkpoint is shorter than the model")?;
    Ok(PublishModel { description, tensors: values, file: None })
}

fn metrics(epochs: &[EpochRecord]) -> BTreeMap<String, f64> {
    let Some(last) = epochs.last() else { return BTreeMap::new() };
    [
        ("train_loss", Some(last.train_loss)),
        ("test_loss", last.test_loss),
        ("test_accuracy", last.test_accuracy),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
