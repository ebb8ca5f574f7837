//! Fault plans drawn by a seed.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Seed;
use super::fault::{
    ANY, Fault, FaultPlan, block, delay, drain, duplicate, fail_writes, flip_bit, kill, lose,
    panic_in, partition, pause, power_loss, reorder, skew, slow_disk, stop,
};

/// Each seed draws some of the kinds of faults, how many of each, and when: a test under all of
/// them at once would never see what only a few do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swarm {
    until: Option<Duration>,
    faults_max: u64,
}

impl Default for Swarm {
    fn default() -> Self {
        Self { until: None, faults_max: 12 }
    }
}

/// Kinds of faults that a swarm draws from.
const KINDS: u64 = 14;
/// One seed of so many also drains a node.
const DRAINED_ONE_OF: u64 = 4;
/// Files of checkpoints that a bit may flip in: what is damaged must be noticed, and the checkpoint
/// before taken.
const CHECKPOINT_PARTS: [&str; 2] = ["/parameters-", "/residuals-"];

impl Swarm {
    /// All is healed after this time. Unless it is said: after twice the time that a run without
    /// faults takes, for a training; after 20 s for everything else.
    #[must_use]
    pub fn until(mut self, time: Duration) -> Self {
        self.until = Some(time);
        self
    }

    /// At most so many faults a seed.
    #[must_use]
    pub fn faults_max(mut self, faults: u64) -> Self {
        self.faults_max = faults.max(1);
        self
    }

    pub(super) fn until_set(&self) -> Option<Duration> {
        self.until
    }

    /// The plan of a seed: faults from 0 to `until`.
    #[must_use]
    pub fn draw(&self, seed: Seed, names: &[&str], until: Duration) -> FaultPlan {
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX).max(1);
        // Another stream than the run's own.
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed.0 ^ 0x5741_524d));
        let enabled: Vec<u64> = (0..KINDS).filter(|_| draw.below(2) == 0).collect();
        if enabled.is_empty() || names.is_empty() {
            return FaultPlan::default();
        }
        let count = 1 + draw.below(self.faults_max);
        let mut faults = Vec::new();
        for _ in 0..count {
            let kind = enabled[draw.below(enabled.len() as u64) as usize];
            faults.extend(fault(kind, names, until, &mut draw));
        }
        // Of another stream: whatever else a seed draws, it drew before there were drains.
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed.0 ^ 0x4452_4149));
        if draw.below(DRAINED_ONE_OF) == 0 {
            let (at, length) = (draw.below(until), 1 + draw.below(10_000));
            let for_ms = length.min(until - at).max(1);
            faults.push(Fault { at_ms: at, for_ms, ..drain(draw.of(names)) });
        }
        faults.sort_by_key(|fault| fault.at_ms);
        FaultPlan { faults }
    }
}

fn fault(kind: u64, names: &[&str], until: u64, draw: &mut Draw) -> Vec<Fault> {
    let (node, other) = (draw.of(names), draw.of(names));
    let anywhere = |draw: &mut Draw, name| if draw.below(3) == 0 { ANY } else { name };
    let (from, somewhere) = (anywhere(draw, node), anywhere(draw, other));
    // A network that loses half of all is a partition; one that doubles half of all works.
    let (rate, often) = (1 + draw.below(200) as u16, 1 + draw.below(500) as u16);
    let (short, long) = (1 + draw.below(3000), 1 + draw.below(10_000));
    let (faults, length) = match kind {
        0 => (vec![kill(node)], short),
        1 => (vec![power_loss(node)], short),
        2 => (vec![stop(node)], short),
        3 => (vec![pause(node)], short),
        4 => (vec![block(node, somewhere)], short),
        5 => (partition(node, somewhere).to_vec(), short),
        6 => (vec![delay(from, somewhere, 1 + draw.below(500))], long),
        7 => (vec![lose(from, somewhere, rate)], long),
        8 => (vec![duplicate(from, somewhere, often)], long),
        9 => (vec![reorder(from, somewhere, often)], long),
        10 => (vec![fail_writes(node, rate * 3), slow_disk(node, draw.below(300))], long),
        11 => (vec![panic_in(node)], 0),
        12 => (vec![flip_bit(CHECKPOINT_PARTS[draw.below(2) as usize])], 0),
        _ => (vec![skew(node, 60_000 - draw.below(120_000) as i64)], long),
    };
    let at = draw.below(until);
    let length = if length == 0 { 0 } else { length.min(until - at).max(1) };
    let timed = faults.into_iter().map(|fault| Fault { at_ms: at, for_ms: length, ..fault });
    timed.collect()
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    fn of<'a>(&mut self, names: &[&'a str]) -> &'a str {
        names[self.below(names.len() as u64) as usize]
    }
}
