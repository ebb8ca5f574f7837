//! Whether what processes tell each other of a job fits into frames.

use gradmesh_actors::layout::BLOCK;
use gradmesh_actors::ledger::EpochRecord;
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;

use super::NodeError;
use crate::config::{Config, Role};
use crate::wire::{FRAME_BYTES_MAX, META_BYTES_MAX};

/// Of a frame with a whole shard, for all but its values: the typed part is as long as it may be.
const BESIDE_VALUES: u64 = META_BYTES_MAX as u64 + (64 << 10);
/// A sum of squares of one block, in the typed part of a message.
const SUM_BYTES: u64 = 9;
/// Of that message, for all but the sums.
const BESIDE_SUMS: u64 = 1 << 10;

/// Of a message with the description of the job and its ledger, for all else.
const BESIDE_JOB: u64 = 16 << 10;

/// Checks the job against the limits of frames before anything is trained: a message that is too long
/// is refused each time that it is tried.
///
/// # Errors
/// [`NodeError::ShardTooLong`], [`NodeError::ManyEpochs`], [`NodeError::OfferTooLong`] and
/// [`NodeError::ModelTooLong`], with the number that would do.
pub(super) fn check(plan: &JobPlan, config: &Config) -> Result<(), NodeError> {
    check_shards(plan, config.servers.replicas)?;
    check_job(plan)?;
    check_model(plan, config)
}

/// What a copy that is filled is told beside its vectors.
fn check_job(plan: &JobPlan) -> Result<(), NodeError> {
    let offer = &plan.offer;
    let record = EpochRecord {
        epoch: offer.job.epochs,
        rows: offer.data.train_rows as u64,
        train_loss: 1.0,
        test_loss: Some(1.0),
        test_accuracy: Some(1.0),
    };
    let most = u64::from(META_BYTES_MAX) - BESIDE_JOB;
    let (bytes, record) = (typed(offer), typed(&record).max(1));
    let Some(left) = most.checked_sub(bytes) else {
        return Err(NodeError::OfferTooLong { bytes, features: offer.data.features, most });
    };
    let (epochs, most) = (offer.job.epochs, left / record);
    if epochs > most { Err(NodeError::ManyEpochs { epochs, most }) } else { Ok(()) }
}

/// Bytes of the typed part of a message that holds it.
fn typed(part: &impl serde::Serialize) -> u64 {
    // What can't be encoded has no length; its sender says so.
    rmp_serde::to_vec_named(part).map_or(0, |bytes| bytes.len() as u64)
}

/// Whoever coordinates publishes the model, in one frame where no registry is with it.
fn check_model(plan: &JobPlan, config: &Config) -> Result<(), NodeError> {
    let (parameters, most) = (plan.layout.len() as u64, longest(1));
    let away = |node: &&crate::config::NodeConfig| {
        node.roles.contains(&Role::Coordinator) && !node.roles.contains(&Role::Registry)
    };
    match config.nodes.iter().find(away) {
        Some(node) if parameters > most => {
            Err(NodeError::ModelTooLong { parameters, most, node: node.name.clone() })
        }
        _ => Ok(()),
    }
}

fn check_shards(plan: &JobPlan, replicas: u32) -> Result<(), NodeError> {
    let job = &plan.offer.job;
    let state = Optimizer::new(&job.optimizer, plan.last_version().0).state_names().len() as u64;
    // A copy that is filled gets parameters and state in one frame.
    let vectors = if replicas > 0 { 1 + state } else { 1 };
    let (alone, beside) = (longest(vectors), longest(vectors).min(longest_summed()));
    let shards = plan.shards.len();
    let most = if job.gradient.clip_norm > 0.0 && shards > 1 { beside } else { alone };
    let longest = plan.shards.iter().map(|(_, range)| range.len() as u64).max().unwrap_or(0);
    if longest <= most {
        return Ok(());
    }
    // Of those, there is more than one.
    let fits = if job.gradient.clip_norm > 0.0 { beside } else { alone };
    // Shards are cut between blocks, so one may have a block more than another.
    let needed = (plan.layout.len() as u64).div_ceil(fits - BLOCK as u64);
    Err(NodeError::ShardTooLong { longest, most, shards, needed })
}

/// Parameters of the longest shard of which so many vectors fit into a frame.
fn longest(vectors: u64) -> u64 {
    whole_blocks((FRAME_BYTES_MAX - BESIDE_VALUES) / (vectors * size_of::<f32>() as u64))
}

/// Of the longest one of which the sums of squares do, as the norm over several shards needs them.
fn longest_summed() -> u64 {
    (u64::from(META_BYTES_MAX) - BESIDE_SUMS) / SUM_BYTES * BLOCK as u64
}

fn whole_blocks(parameters: u64) -> u64 {
    parameters - parameters % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gradmesh_actors::dataset::{DatasetShape, Scaling};
    use gradmesh_actors::ids::{ServerId, ShardCopy, ShardId, Version, View};
    use gradmesh_actors::layout::{Init, TensorSpec};
    use gradmesh_actors::ledger::Ledger;
    use gradmesh_actors::messages::{CombineNorm, FillShard, NormPart};
    use gradmesh_actors::model::describe;
    use gradmesh_actors::plan::JobOffer;

    use super::*;
    use crate::wire::encode;

    #[test]
    fn the_longest_shard_fits_into_a_frame_and_one_of_a_mebibyte_more_does_not() {
        for vectors in [1, 2, 3] {
            let bytes = |parameters: u64| vectors * parameters * 4 + u64::from(META_BYTES_MAX);
            assert!(bytes(longest(vectors)) < FRAME_BYTES_MAX);
            assert!(bytes(longest(vectors) + (1 << 20)) > FRAME_BYTES_MAX);
        }
    }

    /// A job of so many epochs on rows of so many features.
    fn plan(epochs: u64, features: usize) -> JobPlan {
        let text = format!(
            "job.epochs = {epochs}\njob.data.format = 'csv'\njob.data.train = 'a.csv'\njob.model.hidden = []\njob.model.loss = 'squared'"
        );
        let job = Config::from_toml(&text, Path::new(".")).unwrap().job;
        let data = DatasetShape {
            train_rows: 1000,
            test_rows: 0,
            features,
            classes: None,
            target_width: 1,
            digest: "d".repeat(64),
        };
        let architecture = describe(&job.model, &data).unwrap();
        let tensors = vec![TensorSpec::new("w", vec![features], Init::Zeros)];
        let scaling =
            Scaling::Standard { mean: vec![0.1; features], deviation: vec![1.1; features] };
        JobPlan::new(JobOffer { job, data, scaling, architecture, tensors, outputs: 1 }, 1).unwrap()
    }

    /// The fill of a copy tells all of it.
    #[test]
    fn a_job_of_which_all_can_be_told_is_accepted_and_one_of_more_epochs_or_features_is_not() {
        let NodeError::ManyEpochs { most, .. } = check_job(&plan(1_000_000, 2)).unwrap_err() else {
            panic!("too many epochs are accepted")
        };
        check_job(&plan(most, 2)).unwrap();
        let offer = plan(most, 2).offer;
        let record = EpochRecord {
            epoch: most,
            rows: 1000,
            train_loss: 0.1,
            test_loss: Some(0.1),
            test_accuracy: Some(0.1),
        };
        let ledger = Ledger { finished: vec![record; most as usize], ..Ledger::default() };
        let copy = ShardCopy { shard: ShardId(u32::MAX), server: ServerId(u32::MAX) };
        let fill = FillShard {
            view: View(u64::MAX),
            to: copy,
            lineage: View(u64::MAX),
            version: Version(u64::MAX),
            ledger,
            offer,
            shards: u32::MAX,
            checkpoint_every: u64::MAX,
            vectors: Vec::new(),
        };
        let bytes = encode(&fill).unwrap().0.len();
        assert!(bytes <= META_BYTES_MAX as usize && bytes > META_BYTES_MAX as usize / 10 * 9);
        check_job(&plan(1, 50_000)).unwrap();
        let refused = check_job(&plan(1, 150_000)).unwrap_err();
        assert!(matches!(refused, NodeError::OfferTooLong { .. }), "{refused}");
    }

    #[test]
    fn the_sums_of_the_longest_shard_fit_into_a_typed_part_and_those_of_one_percent_more_do_not() {
        let bytes = |parameters: u64| {
            let sums = vec![1.0 / 3.0; parameters.div_ceil(BLOCK as u64) as usize];
            let part = NormPart::Sums(sums);
            let message = CombineNorm { step: Version(u64::MAX), shard: ShardId(u32::MAX), part };
            encode(&message).unwrap().0.len()
        };
        assert!(bytes(longest_summed()) <= META_BYTES_MAX as usize);
        assert!(bytes(longest_summed() / 100 * 101) > META_BYTES_MAX as usize);
    }
}
