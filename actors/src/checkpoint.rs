//! What a checkpoint is: parts written by shards and workers, a manifest that makes them count,
//! and the digest of the state that they hold.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::{Slot, Version};
use crate::ledger::Ledger;
use crate::plan::JobOffer;

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPart {
    pub content: PartContent,
    /// Path in the store.
    pub path: String,
    pub bytes: u64,
    /// BLAKE3 of the file, in hexadecimal.
    pub digest: String,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartContent {
    /// Parameters and optimizer state of a range of the flat space.
    Parameters { start: usize, end: usize },
    /// The codec's residuals of some slots, each of them the whole flat space.
    Residuals { slots: Vec<Slot> },
}

/// A whole checkpoint: written last, so that one that is there names only parts that are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: Version,
    /// Id of the training run, from its first start to its publication.
    pub run: String,
    pub job_digest: String,
    pub offer: JobOffer,
    pub parts: Vec<SavedPart>,
    pub ledger: Ledger,
}

/// A run whose model is published. It outlives the run's checkpoints, so that a coordinator that
/// starts again knows that there is nothing left to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    pub run: String,
    pub job_digest: String,
    pub data_digest: String,
    pub last_version: Version,
    pub ledger: Ledger,
    pub published: Published,
}

/// What became of the trained model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub model: String,
    pub version: u64,
    /// Digest of the final state.
    pub digest: String,
}

/// Everything that training has made, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct StateSnapshot {
    pub version: Version,
    pub parameters: Vec<f32>,
    /// Optimizer tensors by name, in name order, each as long as the parameters.
    pub optimizer: Vec<(String, Vec<f32>)>,
    /// Residuals in slot order; none where the codec keeps none.
    pub residuals: Vec<(Slot, Vec<f32>)>,
}

impl StateSnapshot {
    /// BLAKE3 over the data cursor, parameters, optimizer state and residuals, in hexadecimal.
    ///
    /// It does not depend on how many shards, workers or nodes there were.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("gradmesh training state");
        hasher.update(&self.version.0.to_le_bytes());
        let mut add = |name: &str, values: &[f32]| {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(values.len() as u64).to_le_bytes());
            for chunk in values.chunks(4096) {
                let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        };
        add("parameters", &self.parameters);
        for (name, values) in &self.optimizer {
            add(name, values);
        }
        for (slot, values) in &self.residuals {
            add(&format!("residual {}", slot.0), values);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Name of a slot's residual in a part.
pub fn residual_name(slot: Slot) -> String {
    format!("slot-{}", slot.0)
}

/// Whether `version` is one that is saved.
pub fn is_saved(version: Version, every: u64, last: Version) -> bool {
    version.0 > 0 && (version == last || version.0.is_multiple_of(every))
}

/// Whether the parts hold each value of `0..len` exactly once, and the residual of each of
/// `0..residual_slots` (none where the codec keeps none) exactly once.
pub fn is_whole(parts: &[SavedPart], len: usize, residual_slots: Option<u32>) -> bool {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut slots: Vec<Slot> = Vec::new();
    for part in parts {
        match &part.content {
            PartContent::Parameters { start, end } => ranges.push(*start..*end),
            PartContent::Residuals { slots: some } => slots.extend(some),
        }
    }
    ranges.sort_by_key(|range| (range.start, range.end));
    slots.sort_unstable();
    let end = ranges
        .iter()
        .try_fold(0, |end, range| (range.start == end && range.end > end).then_some(range.end));
    end == Some(len) && slots.into_iter().eq((0..residual_slots.unwrap_or(0)).map(Slot))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::tests::{job, offer};

    /// Without parts.
    pub(crate) fn manifest(version: u64) -> Manifest {
        Manifest {
            version: Version(version),
            run: "run".into(),
            job_digest: job().digest(),
            offer: offer(job()),
            parts: Vec::new(),
            ledger: Ledger::default(),
        }
    }

    fn part(content: PartContent) -> SavedPart {
        SavedPart { content, path: String::new(), bytes: 0, digest: String::new() }
    }

    fn range(start: usize, end: usize) -> SavedPart {
        part(PartContent::Parameters { start, end })
    }

    #[test]
    fn a_checkpoint_with_a_hole_is_not_whole() {
        assert!(is_whole(&[range(256, 600), range(0, 256)], 600, None));
        assert!(!is_whole(&[range(0, 256), range(512, 600)], 600, None));
        assert!(!is_whole(&[range(256, 600)], 600, None));
        let residuals = part(PartContent::Residuals { slots: vec![Slot(0), Slot(1)] });
        assert!(!is_whole(&[range(0, 600), residuals.clone()], 600, Some(3)));
        assert!(is_whole(&[range(0, 600), residuals], 600, Some(2)));
    }

    #[test]
    fn a_checkpoint_that_holds_something_twice_or_too_much_is_not_whole() {
        for ranges in [
            vec![(0, 600), (0, 600)],
            vec![(0, 256), (128, 600)],
            vec![(0, 600), (256, 512)],
            vec![(0, 601)],
            vec![(0, 256), (256, 256), (256, 600)],
            vec![(0, 600), (700, 600)],
        ] {
            let parts: Vec<SavedPart> = ranges.iter().map(|&(a, b)| range(a, b)).collect();
            assert!(!is_whole(&parts, 600, None), "{ranges:?}");
        }
        for slots in [vec![0, 1, 1], vec![0, 1, 2], vec![0, 2], vec![1, 2]] {
            let slots = slots.into_iter().map(Slot).collect();
            let parts = [range(0, 600), part(PartContent::Residuals { slots })];
            assert!(!is_whole(&parts, 600, Some(2)), "{parts:?}");
        }
        let unwanted = part(PartContent::Residuals { slots: vec![Slot(0)] });
        assert!(!is_whole(&[range(0, 600), unwanted], 600, None));
    }

    #[test]
    fn the_digest_sees_each_bit_of_the_state() {
        let state = StateSnapshot {
            version: Version(3),
            parameters: vec![1.0, 2.0],
            optimizer: vec![("mean".into(), vec![0.0, 0.0])],
            residuals: vec![(Slot(0), vec![0.5, 0.25])],
        };
        let mut others = vec![state.clone(); 4];
        others[0].version = Version(4);
        others[1].parameters[1] = f32::from_bits(2f32.to_bits() + 1);
        others[2].optimizer[0].1[0] = -0.0;
        others[3].residuals[0].0 = Slot(1);
        for other in others {
            assert_ne!(other.digest(), state.digest());
        }
    }

    #[test]
    fn multiples_and_the_last_version_are_saved() {
        let saved: Vec<u64> = (0..=10).filter(|&v| is_saved(Version(v), 4, Version(10))).collect();
        assert_eq!(saved, [4, 8, 10]);
    }
}
