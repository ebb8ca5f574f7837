//! Whether what processes tell each other of a job fits into frames.

use gradmesh_actors::job::{CodecKind, JobSpec};
use gradmesh_actors::layout::BLOCK;
use gradmesh_actors::ledger::EPOCHS_KEPT;
use gradmesh_actors::optimizer::Optimizer;
use gradmesh_actors::plan::JobPlan;
use gradmesh_actors::reduction::parts_max;

use super::NodeError;
use crate::config::{Config, NodeConfig, Role};
use crate::wire::{FRAME_BYTES_MAX, META_BYTES_MAX};

/// Of a parameter, and of all that is sent as it is.
const VALUE_BYTES: f64 = size_of::<f32>() as f64;
/// Of a frame with a whole shard, for all but its values: the typed part is as long as it may be.
const BESIDE_VALUES: u64 = META_BYTES_MAX as u64 + (64 << 10);
/// A sum of squares of one block, in the typed part of a message.
const SUM_BYTES: u64 = 9;
/// Of that message, for all but the sums.
const BESIDE_SUMS: u64 = 1 << 10;

/// An epoch of the ledger, in the typed part of a message.
const EPOCH_BYTES: u64 = 96;
/// Of a message with the description of the job and its ledger, for all else.
const BESIDE_JOB: u64 = 16 << 10;

/// Checks the job against the limits of frames before anything is trained: a message that is too long
/// is refused each time that it is tried.
///
/// # Errors
/// [`NodeError::ShardTooLong`], [`NodeError::OfferTooLong`] and [`NodeError::ModelTooLong`], with the
/// number that would do.
pub(super) fn check(plan: &JobPlan, config: &Config) -> Result<(), NodeError> {
    if config.nodes.len() < 2 {
        return Ok(());
    }
    check_shards(plan, config)?;
    check_job(plan)?;
    check_model(plan, config)
}

/// What a copy that is filled is told beside its vectors.
fn check_job(plan: &JobPlan) -> Result<(), NodeError> {
    let offer = &plan.offer;
    let epochs = offer.job.epochs.min(EPOCHS_KEPT as u64);
    let most = u64::from(META_BYTES_MAX) - BESIDE_JOB - epochs * EPOCH_BYTES;
    // What can't be encoded has no length; its sender says so.
    let bytes = rmp_serde::to_vec_named(offer).map_or(0, |bytes| bytes.len() as u64);
    if bytes > most {
        return Err(NodeError::OfferTooLong { bytes, features: offer.data.features, most });
    }
    Ok(())
}

/// Whoever coordinates publishes the model, and whoever serves it or begins with a version fetches one:
/// in one frame where no registry is on the node.
fn check_model(plan: &JobPlan, config: &Config) -> Result<(), NodeError> {
    let (parameters, most) = (plan.layout.len() as u64, longest(VALUE_BYTES));
    let begins = plan.offer.job.model.from.is_some();
    let away = |node: &&NodeConfig| {
        let has = |role| node.roles.contains(&role);
        let asks = has(Role::Coordinator) || has(Role::Service) || (begins && has(Role::Server));
        asks && !has(Role::Registry)
    };
    match config.nodes.iter().find(away) {
        Some(node) if parameters > most => {
            Err(NodeError::ModelTooLong { parameters, most, node: node.name.clone() })
        }
        _ => Ok(()),
    }
}

fn check_shards(plan: &JobPlan, config: &Config) -> Result<(), NodeError> {
    let job = &plan.offer.job;
    let state = Optimizer::new(&job.optimizer, plan.last_version().0).state_names().len();
    // A copy that is filled, as a replica or as one that is to leave, gets parameters and state in one frame.
    let filled = if config.servers() > 1 { 1 + state } else { 1 };
    let parameters = plan.layout.len() as f64;
    let workers = config.workers.count;
    let pushed = if pushes_cross(config) { pushed(job, workers, parameters) } else { 0.0 };
    let bytes = pushed.max(VALUE_BYTES * filled as f64);
    let (alone, beside) = (longest(bytes), longest(bytes).min(longest_summed()));
    let shards = plan.shards.len();
    let most = if job.gradient.clip_norm > 0.0 && shards > 1 { beside } else { alone };
    let longest = plan.shards.iter().map(|(_, range)| range.len() as u64).max().unwrap_or(0);
    if longest <= most {
        return Ok(());
    }
    // Of those, there is more than one.
    let fits = if job.gradient.clip_norm > 0.0 { beside } else { alone };
    // Shards are cut between blocks, so one may have a block more than another.
    let needed = (plan.layout.len() as u64).div_ceil(fits.saturating_sub(BLOCK as u64).max(1));
    Err(NodeError::ShardTooLong { longest, most, shards, needed })
}

/// Whether a worker's shard may be on another node.
fn pushes_cross(config: &Config) -> bool {
    let with = |role: Role| config.nodes.iter().filter(move |node| node.roles.contains(&role));
    let worker = |server: &NodeConfig| with(Role::Worker).any(|worker| worker.name != server.name);
    with(Role::Server).any(worker)
}

/// Bytes for each parameter of a shard that a worker may push in one frame: a vector of values for each
/// part of its slots, or what the codec makes of each of its slots, of which it may come to have twice its
/// share.
fn pushed(job: &JobSpec, workers: u32, parameters: f64) -> f64 {
    let share = job.virtual_workers.div_ceil(workers.max(1)).saturating_mul(2);
    let slots = f64::from(share.min(job.virtual_workers));
    match job.gradient.codec {
        CodecKind::None => VALUE_BYTES * f64::from(parts_max(job.virtual_workers, workers)),
        CodecKind::Fp16 | CodecKind::Bf16 => 2.0 * slots,
        // And a scale of two bytes for each block.
        CodecKind::Int8 => (1.0 + 2.0 / BLOCK as f64) * slots,
        // Two for the value and up to two for the distance; all that is sent may be of one shard.
        CodecKind::TopK => {
            let all = 4.0 * slots * job.gradient.top_k * parameters;
            let fits = all <= (FRAME_BYTES_MAX - BESIDE_VALUES) as f64;
            if fits { 0.0 } else { 4.0 * slots }
        }
    }
}

/// Parameters of the longest shard that fits into a frame with so many bytes for each.
fn longest(bytes: f64) -> u64 {
    whole_blocks(((FRAME_BYTES_MAX - BESIDE_VALUES) as f64 / bytes) as u64)
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
    use gradmesh_actors::ledger::{EpochRecord, Ledger};
    use gradmesh_actors::messages::{CombineNorm, FillShard, NormPart};
    use gradmesh_actors::model::describe;
    use gradmesh_actors::plan::JobOffer;

    use super::*;
    use crate::wire::encode;

    #[test]
    fn the_longest_shard_fits_into_a_frame_and_one_of_a_mebibyte_more_does_not() {
        for vectors in [1, 2, 3] {
            let bytes = |parameters: u64| vectors * parameters * 4 + u64::from(META_BYTES_MAX);
            let longest = longest(vectors as f64 * VALUE_BYTES);
            assert!(bytes(longest) < FRAME_BYTES_MAX);
            assert!(bytes(longest + (1 << 20)) > FRAME_BYTES_MAX);
        }
    }

    /// A job on rows of so many features.
    fn plan(features: usize) -> JobPlan {
        let text = "job.epochs = 1000000\njob.data.format = 'csv'\njob.data.train = 'a.csv'\njob.model.hidden = []\njob.model.loss = 'squared'";
        let job = Config::from_toml(text, Path::new(".")).unwrap().job;
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
    fn a_job_of_which_all_can_be_told_is_accepted_and_one_of_more_features_is_not() {
        let mut short = plan(90_000);
        short.offer.job.epochs = 10;
        check_job(&short).unwrap();
        let features = (1..).map(|thousands| thousands * 1000);
        let most = features.take_while(|&features| check_job(&plan(features)).is_ok()).last();
        let offer = plan(most.unwrap()).offer;
        let record = EpochRecord {
            epoch: 1_000_000,
            rows: u64::MAX,
            train_loss: 0.1,
            test_loss: Some(0.1),
            test_accuracy: Some(0.1),
        };
        let ledger = Ledger { finished: vec![record; EPOCHS_KEPT], ..Ledger::default() };
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
