//! One digest at each number of workers and parameter servers.
//!
//! A few sizes in each run; all of 1, 2, 3, 4, 8 workers on 1, 2, 3, 5 shards, in one process and
//! as one process a node, with `GRADMESH_GRID=full`.

use crate::support::{Job, full_grid};

const PLAIN: &[&str] = &["job.epochs=2"];
/// Residuals at the workers, and a norm that all shards have a part in.
const SPARSE: &[&str] = &["job.epochs=2", "job.gradient.codec=top-k", "job.gradient.clip_norm=0.5"];

/// Trains `sets` in one process, of all sizes or of a few.
fn embedded_digests(sets: &[&str]) -> Vec<((u32, u32), String)> {
    sizes()
        .into_iter()
        .map(|(workers, shards)| {
            let mut job = Job::embedded(sets);
            job.set(&format!("workers.count={workers}"));
            job.set(&format!("servers.shards={shards}"));
            ((workers, shards), job.train().digest)
        })
        .collect()
}

fn sizes() -> Vec<(u32, u32)> {
    let (workers, shards): (&[u32], &[u32]) = match full_grid() {
        true => (&[1, 2, 3, 4, 8], &[1, 2, 3, 5]),
        false => (&[1, 3, 8], &[1, 3]),
    };
    workers.iter().flat_map(|&w| shards.iter().map(move |&s| (w, s))).collect()
}

#[track_caller]
fn assert_one(digests: &[((u32, u32), String)]) {
    let grid = if full_grid() { "full grid" } else { "GRADMESH_GRID=full for all sizes" };
    let first = &digests[0].1;
    assert!(
        digests.iter().all(|(_, digest)| digest == first),
        "(workers, shards) differ ({grid}): {digests:#?}"
    );
}

#[test]
fn the_digest_is_the_same_at_each_size_of_one_process() {
    assert_one(&embedded_digests(PLAIN));
}

#[test]
fn the_digest_is_the_same_at_each_size_with_residuals_and_a_limited_norm() {
    assert_one(&embedded_digests(SPARSE));
}

/// Guards the tests above against a digest that doesn't see the job.
#[test]
fn another_seed_codec_or_norm_is_another_digest() {
    let digest = |sets: &[&str]| Job::embedded(sets).train().digest;
    let clipped = ["job.epochs=2", "job.gradient.clip_norm=0.5"];
    let top_k = ["job.epochs=2", "job.gradient.codec=top-k"];
    let seed = ["job.epochs=2", "job.seed=2"];
    let digests = [PLAIN, SPARSE, &clipped, &top_k, &seed].map(digest);
    for (at, one) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(one), "{digests:#?}");
    }
}

#[test]
fn processes_reach_the_digest_of_one_process() {
    on_processes(PLAIN);
}

#[test]
fn processes_reach_the_digest_of_one_process_with_residuals_and_a_limited_norm() {
    on_processes(SPARSE);
}

fn on_processes(sets: &[&str]) {
    let mut digests = vec![((1, 1), Job::embedded(sets).train().digest)];
    let sizes = if full_grid() { sizes() } else { vec![(3, 2)] };
    for (workers, shards) in sizes {
        digests.push(((workers, shards), Job::processes(workers, shards, sets).up().digest));
    }
    assert_one(&digests);
}
