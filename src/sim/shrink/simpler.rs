//! What is simpler than a fault: shorter, at a rounder time, weaker.

use crate::sim::fault::{Fault, FaultKind};

/// Replacements of one fault, better ones first.
#[derive(Debug)]
pub(super) enum Options {
    /// In the order of something that one would expect to be monotone: bisected.
    Sorted {
        faults: Vec<Fault>,
        from: usize,
        to: usize,
    },
    Any {
        faults: Vec<Fault>,
        next: usize,
    },
}

/// What can be simpler about a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aspect {
    Shorter,
    RounderLength,
    RounderStart,
    Weaker,
}

pub(super) const ASPECTS: [Aspect; 4] =
    [Aspect::Shorter, Aspect::RounderLength, Aspect::RounderStart, Aspect::Weaker];

impl Options {
    pub(super) fn current(&self) -> Option<&Fault> {
        match self {
            Self::Sorted { faults, from, to } => faults[*from..*to].get((to - from) / 2),
            Self::Any { faults, next } => faults.get(*next),
        }
    }

    pub(super) fn advance(&mut self, failed: bool) {
        match self {
            Self::Sorted { from, to, .. } => {
                let middle = *from + (*to - *from) / 2;
                if failed { *to = middle } else { *from = (middle + 1).min(*to) }
            }
            Self::Any { faults, next } => *next = if failed { faults.len() } else { *next + 1 },
        }
    }
}

impl Aspect {
    pub(super) fn options(self, fault: &Fault) -> Options {
        let with = |change: &dyn Fn(&mut Fault)| {
            let mut fault = fault.clone();
            change(&mut fault);
            fault
        };
        match self {
            Self::Shorter => {
                let lengths = friendly_below(fault.for_ms).into_iter();
                Options::sorted(lengths.map(|ms| with(&|fault| fault.for_ms = ms)))
            }
            Self::RounderLength => {
                // Those of the search for shorter ones are short as they are.
                let is_friendly =
                    friendly_below(fault.for_ms.saturating_add(1)).ends_with(&[fault.for_ms]);
                let lengths = rounder(fault.for_ms).into_iter();
                let lengths = lengths.filter(|ms| *ms > 0 && !is_friendly);
                Options::any(lengths.map(|ms| with(&|fault| fault.for_ms = ms)))
            }
            Self::RounderStart => {
                let starts = rounder(fault.at_ms).into_iter();
                Options::any(starts.map(|ms| with(&|fault| fault.at_ms = ms)))
            }
            Self::Weaker => {
                let sizes = friendly_below(size(&fault.kind)).into_iter();
                Options::sorted(sizes.map(|size| with(&|fault| resize(&mut fault.kind, size))))
            }
        }
    }
}

impl Options {
    fn sorted(faults: impl Iterator<Item = Fault>) -> Self {
        let faults: Vec<Fault> = faults.collect();
        Self::Sorted { from: 0, to: faults.len(), faults }
    }

    fn any(faults: impl Iterator<Item = Fault>) -> Self {
        Self::Any { faults: faults.collect(), next: 0 }
    }
}

/// 10, 20, 50, 100, … below a number, in this order.
fn friendly_below(number: u64) -> Vec<u64> {
    let scales = std::iter::successors(Some(10u64), |scale| scale.checked_mul(10));
    let friendly = scales.flat_map(|scale| [1, 2, 5].map(|digit| scale.saturating_mul(digit)));
    friendly.take_while(|friendly| *friendly < number).collect()
}

/// Milliseconds near a time, rounder ones first: 0, whole seconds, tenths, hundredths.
fn rounder(ms: u64) -> Vec<u64> {
    let mut near = vec![0];
    for unit in [1000, 100, 10] {
        let down = ms - ms % unit;
        near.extend([down, down.saturating_add(unit)]);
    }
    // No less round than it is.
    let own = near.iter().position(|near| *near == ms);
    near.truncate(own.unwrap_or(near.len()));
    near
}

/// How strong a fault is, in its own unit; 0 for what just is or isn't.
pub(super) fn size(kind: &FaultKind) -> u64 {
    match kind {
        FaultKind::Delay { ms, .. } | FaultKind::SlowDisk { ms, .. } => *ms,
        FaultKind::Drop { rate, .. }
        | FaultKind::Duplicate { rate, .. }
        | FaultKind::Reorder { rate, .. }
        | FaultKind::FailWrites { rate, .. } => u64::from(*rate),
        FaultKind::Clock { by_ms, .. } => by_ms.unsigned_abs(),
        FaultKind::Slow { times, .. } => u64::from(*times),
        FaultKind::Kill { .. }
        | FaultKind::PowerLoss { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Drain { .. }
        | FaultKind::Panic { .. }
        | FaultKind::Block { .. }
        | FaultKind::FlipBit { .. } => 0,
    }
}

/// To less than it is.
fn resize(kind: &mut FaultKind, size: u64) {
    match kind {
        FaultKind::Delay { ms, .. } | FaultKind::SlowDisk { ms, .. } => *ms = size,
        FaultKind::Drop { rate, .. }
        | FaultKind::Duplicate { rate, .. }
        | FaultKind::Reorder { rate, .. }
        | FaultKind::FailWrites { rate, .. } => *rate = u16::try_from(size).unwrap_or(*rate),
        FaultKind::Slow { times, .. } => *times = u16::try_from(size).unwrap_or(*times),
        FaultKind::Clock { by_ms, .. } => {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            *by_ms = size * by_ms.signum();
        }
        FaultKind::Kill { .. }
        | FaultKind::PowerLoss { .. }
        | FaultKind::Stop { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Drain { .. }
        | FaultKind::Panic { .. }
        | FaultKind::Block { .. }
        | FaultKind::FlipBit { .. } => {}
    }
}
