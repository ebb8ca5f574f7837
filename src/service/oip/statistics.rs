//! The statistics extension: what each version answered, and what that took.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use gradmesh_actors::version::VersionRef;
use serde::Serialize;
use utoipa::ToSchema;

use super::describe;
use crate::service::ServiceState;
use crate::service::api_error::ApiError;

/// Versions that are counted. A counted one takes some kilobytes; the one that was not asked for
/// longest makes room.
const VERSIONS_MAX: usize = 1024;

/// Sizes of runs that are counted one by one for a version: those that repeat come among the first.
/// Runs of further sizes count in the sums alone.
const BATCH_SIZES_MAX: usize = 64;

/// Counters of this process, by version.
#[derive(Clone, Debug, Default)]
pub(in crate::service) struct Statistics {
    versions: BTreeMap<(String, u64), Counters>,
    /// Counts what was counted, to know which version was asked last.
    uses: u64,
}

#[derive(Clone, Debug, Default)]
struct Counters {
    used: u64,
    statistics: ModelStatistics,
    /// By number of rows.
    batches: BTreeMap<u64, BatchStatistics>,
}

/// A version's counters, as the protocol names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::service) struct ModelStatistics {
    pub(in crate::service) name: String,
    pub(in crate::service) version: String,
    /// When the last request was answered, in milliseconds since 1970; 0 for never.
    pub(in crate::service) last_inference: u64,
    /// Rows.
    pub(in crate::service) inference_count: u64,
    /// Runs of the model, whatever their number of rows.
    pub(in crate::service) execution_count: u64,
    pub(in crate::service) inference_stats: InferStatistics,
    /// By number of rows, rising.
    pub(in crate::service) batch_stats: Vec<BatchStatistics>,
}

/// Each part of the way of a request. `success` is the whole of it, reading and writing included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::service) struct InferStatistics {
    pub(in crate::service) success: Tally,
    /// Requests that the version is to blame for: it can't be loaded, or its model failed.
    pub(in crate::service) fail: Tally,
    /// From the request to the model: waiting for the predictor, for the registry, for tensors.
    pub(in crate::service) queue: Tally,
    /// Turning the request's tensors into what the model takes.
    pub(in crate::service) compute_input: Tally,
    pub(in crate::service) compute_infer: Tally,
    /// Turning what the model says into the answer's bytes.
    pub(in crate::service) compute_output: Tally,
    /// There is no cache: always 0.
    pub(in crate::service) cache_hit: Tally,
    pub(in crate::service) cache_miss: Tally,
}

/// Runs of the model over one number of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::service) struct BatchStatistics {
    pub(in crate::service) batch_size: u64,
    pub(in crate::service) compute_input: Tally,
    pub(in crate::service) compute_infer: Tally,
    pub(in crate::service) compute_output: Tally,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(in crate::service) struct Tally {
    pub(in crate::service) count: u64,
    /// Nanoseconds, all together.
    pub(in crate::service) ns: u64,
}

impl Tally {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        // 584 years.
        self.ns = self.ns.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// A request that was answered, and what it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) rows: u64,
    /// Rows of the model's run that answered it, where it is the first of its requests.
    pub(super) run: Option<u64>,
    pub(super) at_unix_ms: u64,
    pub(super) total: Duration,
    pub(super) queue: Duration,
    pub(super) input: Duration,
    pub(super) infer: Duration,
    pub(super) output: Duration,
}

impl Statistics {
    pub(super) fn answered(&mut self, model: &str, version: u64, answered: &Answered) {
        let counters = self.counters(model, version);
        let statistics = &mut counters.statistics;
        statistics.last_inference = answered.at_unix_ms;
        statistics.inference_count += answered.rows;
        statistics.execution_count += u64::from(answered.run.is_some());
        let parts = &mut statistics.inference_stats;
        parts.success.add(answered.total);
        parts.queue.add(answered.queue);
        parts.compute_input.add(answered.input);
        parts.compute_infer.add(answered.infer);
        parts.compute_output.add(answered.output);
        let batches = &mut counters.batches;
        let Some(rows) = answered.run else { return };
        if batches.len() < BATCH_SIZES_MAX || batches.contains_key(&rows) {
            let batch = batches.entry(rows).or_default();
            batch.batch_size = rows;
            batch.compute_input.add(answered.input);
            batch.compute_infer.add(answered.infer);
            batch.compute_output.add(answered.output);
        }
    }

    pub(super) fn failed(&mut self, model: &str, version: u64, took: Duration) {
        self.counters(model, version).statistics.inference_stats.fail.add(took);
    }

    /// All versions, or those of a model, or one; none where nobody has asked for them.
    fn of(&self, model: Option<&str>, version: Option<u64>) -> Vec<ModelStatistics> {
        let asked = self.versions.iter().filter(|((name, number), _)| {
            model.is_none_or(|model| model == name) && version.is_none_or(|one| one == *number)
        });
        let told = |counters: &Counters| ModelStatistics {
            batch_stats: counters.batches.values().copied().collect(),
            ..counters.statistics.clone()
        };
        asked.map(|(_, counters)| told(counters)).collect()
    }

    fn counters(&mut self, model: &str, version: u64) -> &mut Counters {
        let key = (model.to_owned(), version);
        if self.versions.len() == VERSIONS_MAX && !self.versions.contains_key(&key) {
            let oldest = self.versions.iter().min_by_key(|(_, counters)| counters.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.versions.remove(&oldest);
            }
        }
        self.uses += 1;
        let counters = self.versions.entry(key).or_insert_with(|| Counters {
            statistics: unasked(model, version),
            ..Counters::default()
        });
        counters.used = self.uses;
        counters
    }
}

/// What the states of a running training are counted under: each would be a version that is gone soon.
const TRAINING: &str = "training";

/// The counters of a version that nobody has asked; 0 stands for the states of a running training.
fn unasked(model: &str, version: u64) -> ModelStatistics {
    let version = if version == 0 { TRAINING.to_owned() } else { version.to_string() };
    let name = model.to_owned();
    ModelStatistics { name, version, ..ModelStatistics::default() }
}

/// The counters of all versions that were asked, or of a model's; those of one version, and of the
/// newest where no version of a model was asked, also where they are zero.
///
/// # Errors
/// There is no such model or version, or no registry answers.
pub(in crate::service) async fn statistics(
    state: &ServiceState,
    asked: Option<(String, Option<VersionRef>)>,
) -> Result<Vec<ModelStatistics>, ApiError> {
    let counted = |model: Option<&str>, version: Option<u64>| {
        state.statistics.lock().unwrap_or_else(PoisonError::into_inner).of(model, version)
    };
    let Some((model, version)) = asked else { return Ok(counted(None, None)) };
    let named = version.clone().unwrap_or(VersionRef::Latest);
    let found = describe(state, model, named).await?;
    let known = counted(Some(&found.model), version.map(|_| found.version));
    let zero = || vec![unasked(&found.model, found.version)];
    Ok(if known.is_empty() { zero() } else { known })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(rows: u64) -> Answered {
        let part = Duration::from_nanos;
        Answered {
            rows,
            run: Some(rows),
            at_unix_ms: 1000 + rows,
            total: part(15),
            queue: part(1),
            input: part(2),
            infer: part(4),
            output: part(8),
        }
    }

    #[test]
    fn rows_runs_and_times_add_up_by_version_and_by_number_of_rows() {
        let mut statistics = Statistics::default();
        for rows in [1, 8, 1] {
            statistics.answered("m", 1, &answered(rows));
        }
        statistics.answered("m", 2, &answered(1));
        statistics.failed("m", 1, Duration::from_nanos(3));
        let [one] = &statistics.of(Some("m"), Some(1))[..] else { panic!("one version") };
        assert_eq!((one.inference_count, one.execution_count, one.last_inference), (10, 3, 1001));
        let tally = |count, ns| Tally { count, ns };
        let parts = one.inference_stats;
        assert_eq!(
            (parts.success, parts.fail, parts.queue),
            (tally(3, 45), tally(1, 3), tally(3, 3))
        );
        let sizes: Vec<_> =
            one.batch_stats.iter().map(|b| (b.batch_size, b.compute_infer)).collect();
        assert_eq!(sizes, [(1, tally(2, 8)), (8, tally(1, 4))]);
        assert_eq!((statistics.of(Some("m"), None).len(), statistics.of(None, None).len()), (2, 2));
        assert_eq!(statistics.of(Some("other"), None), []);
    }

    #[test]
    fn requests_that_were_answered_together_are_one_run() {
        let mut statistics = Statistics::default();
        statistics.answered("m", 1, &Answered { run: Some(3), ..answered(1) });
        statistics.answered("m", 1, &Answered { run: None, ..answered(2) });
        let [one] = &statistics.of(None, None)[..] else { panic!("one version") };
        assert_eq!((one.inference_count, one.execution_count), (3, 1));
        assert_eq!(one.inference_stats.success.count, 2);
        let sizes: Vec<u64> = one.batch_stats.iter().map(|batch| batch.batch_size).collect();
        assert_eq!(sizes, [3]);
    }

    #[test]
    fn no_more_versions_and_sizes_are_kept_than_there_is_room_for() {
        let mut statistics = Statistics::default();
        for rows in 1..=BATCH_SIZES_MAX as u64 + 1 {
            statistics.answered("m", 0, &answered(rows));
        }
        let kept = &statistics.of(None, None)[0];
        assert_eq!(kept.batch_stats.len(), BATCH_SIZES_MAX);
        assert_eq!(kept.execution_count, BATCH_SIZES_MAX as u64 + 1);
        for version in 1..VERSIONS_MAX as u64 {
            statistics.answered("m", version, &answered(1));
        }
        statistics.answered("m", 0, &answered(1));
        statistics.answered("n", 1, &answered(1));
        assert_eq!(statistics.of(None, None).len(), VERSIONS_MAX);
        assert_eq!(statistics.of(Some("m"), Some(1)), []);
        assert_eq!(statistics.of(Some("m"), Some(0)).len(), 1);
    }
}
