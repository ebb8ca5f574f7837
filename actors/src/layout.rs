//! Where each named tensor lies in the flat parameter space, and how that space is cut into shards.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::ShardId;

/// Parameters in a block, in `f32`s: 1 KiB.
///
/// A block is the unit of everything that looks at more than one parameter at a time (a codec's
/// scale, a partial sum of the norm), and shards are cut at block borders only. So nothing that is
/// computed depends on how many shards there are. 256 keeps the scale of `int8` under 1 % of the
/// payload and is a multiple of a cache line.
pub const BLOCK: usize = 256;

/// Most parameters of a model: 64 GiB, which keeps what a peer says about its model from being
/// believed and allocated.
pub const PARAMETERS_MAX: u64 = 1 << 34;

/// Most shards: one process each, and far more than one step's exchange could bear.
pub const SHARDS_MAX: usize = 1024;

/// A tensor of a model: its name, its shape, and how it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique in its model, for example `layer0.weight`.
    pub name: String,
    /// Row-major; empty for a scalar.
    pub shape: Vec<usize>,
    pub init: Init,
}

/// How a tensor is initialised before step 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    Zeros,
    /// Uniform in `±sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio, 2010).
    Glorot {
        fan_in: usize,
        fan_out: usize,
    },
    /// Normal with standard deviation `sqrt(2 / fan_in)` (He et al., 2015).
    He {
        fan_in: usize,
    },
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, shape: Vec<usize>, init: Init) -> Self {
        Self { name: name.into(), shape, init }
    }

    /// Number of values: the product of the shape, which a [`Layout`] has checked.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// `None` where the product, or the product of the dimensions before a zero, is too large.
    fn checked_len(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The tensors of a model, one after another in one flat `f32` index space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    /// Start of each tensor.
    offsets: Vec<usize>,
    len: usize,
}

/// The tensors cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the model names two tensors {name:?}; give each its own name")]
    DuplicateName { name: String },
    #[error(
        "with tensor {name:?} the model has more than {PARAMETERS_MAX} parameters; lower job.model.hidden or the shape of that tensor"
    )]
    TooLarge { name: String },
    #[error("the model has no parameters")]
    Empty,
    #[error(
        "{shards} shards are more than the {blocks} blocks of {BLOCK} parameters that the model has; set servers.shards to at most {blocks}"
    )]
    TooManyShards { shards: usize, blocks: usize },
    #[error("servers.shards is {shards}; set it to at most {SHARDS_MAX}")]
    BeyondMax { shards: usize },
    #[error("servers.shards is 0; set it to 1 or more")]
    NoShards,
}

impl Layout {
    /// Lays the tensors out in the order given.
    ///
    /// # Errors
    /// No parameters at all, more than [`PARAMETERS_MAX`], or a name that stands twice.
    pub fn new(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(LayoutError::DuplicateName { name: pair[0].to_owned() });
        }
        let mut offsets = Vec::with_capacity(tensors.len());
        let mut len = 0usize;
        for tensor in &tensors {
            offsets.push(len);
            let end = tensor.checked_len().and_then(|values| len.checked_add(values));
            len = end
                .filter(|&end| end as u64 <= PARAMETERS_MAX)
                .ok_or_else(|| LayoutError::TooLarge { name: tensor.name.clone() })?;
        }
        if len == 0 {
            return Err(LayoutError::Empty);
        }
        Ok(Self { tensors, offsets, len })
    }

    /// Number of parameters.
    #[expect(clippy::len_without_is_empty, reason = "a layout is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Where tensor number `index` lies.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = self.offsets[index];
        start..start + self.tensors[index].len()
    }

    /// The tensor that value `index` of the flat space belongs to; `None` beyond its end.
    pub fn tensor_at(&self, index: usize) -> Option<&TensorSpec> {
        if index >= self.len {
            return None;
        }
        // Of tensors that start at the same place, all but the last are empty.
        let after = self.offsets.partition_point(|&offset| offset <= index);
        self.tensors.get(after.checked_sub(1)?)
    }

    /// Number of blocks; the last one may be short.
    pub fn blocks(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    /// Cuts the space into `shards` contiguous ranges at block borders, as even as blocks allow.
    ///
    /// # Errors
    /// No shards, more than [`SHARDS_MAX`], or more than there are blocks.
    pub fn cut(&self, shards: usize) -> Result<Vec<Range<usize>>, LayoutError> {
        let blocks = self.blocks();
        if shards == 0 {
            return Err(LayoutError::NoShards);
        }
        if shards > SHARDS_MAX {
            return Err(LayoutError::BeyondMax { shards });
        }
        if shards > blocks {
            return Err(LayoutError::TooManyShards { shards, blocks });
        }
        let border = |shard: usize| (blocks * shard / shards * BLOCK).min(self.len);
        Ok((0..shards).map(|shard| border(shard)..border(shard + 1)).collect())
    }
}

/// The ranges of all shards, in shard order, borders shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    ranges: Vec<Range<usize>>,
}

impl ShardMap {
    /// # Errors
    /// As [`Layout::cut`].
    pub fn new(layout: &Layout, shards: usize) -> Result<Self, LayoutError> {
        Ok(Self { ranges: layout.cut(shards)? })
    }

    #[expect(clippy::len_without_is_empty, reason = "there is at least one shard")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// # Panics
    /// If there is no such shard.
    pub fn range(&self, shard: ShardId) -> Range<usize> {
        self.ranges[shard.0 as usize].clone()
    }

    /// Blocks of each shard; the last one of the last shard may be short.
    pub fn blocks(&self) -> Vec<usize> {
        self.ranges.iter().map(|range| range.len().div_ceil(BLOCK)).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (ShardId, Range<usize>)> + '_ {
        (0u32..).zip(&self.ranges).map(|(shard, range)| (ShardId(shard), range.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(len: usize) -> Layout {
        Layout::new(vec![TensorSpec::new("w", vec![len], Init::Zeros)]).unwrap()
    }

    #[test]
    fn shards_cover_the_space_and_meet_at_block_borders() {
        for len in [1, 255, 256, 257, 6570, 52_650] {
            let layout = layout(len);
            for shards in 1..=layout.blocks().min(9) {
                let ranges = layout.cut(shards).unwrap();
                assert_eq!(ranges[0].start, 0);
                assert_eq!(ranges[shards - 1].end, len);
                for pair in ranges.windows(2) {
                    assert_eq!(pair[0].end, pair[1].start);
                    assert_eq!(pair[0].end % BLOCK, 0);
                }
                assert!(ranges.iter().all(|range| !range.is_empty()));
            }
        }
    }

    #[test]
    fn more_shards_than_blocks_are_refused_with_the_largest_number_that_works() {
        let refused = layout(300).cut(3);
        assert_eq!(refused, Err(LayoutError::TooManyShards { shards: 3, blocks: 2 }));
    }

    #[test]
    fn each_value_belongs_to_the_tensor_that_holds_it() {
        let tensor = |name: &str, len| TensorSpec::new(name, vec![len], Init::Zeros);
        let tensors = vec![tensor("a", 2), tensor("empty", 0), tensor("b", 3)];
        let layout = Layout::new(tensors).unwrap();
        let names: Vec<Option<&str>> =
            (0..6).map(|index| layout.tensor_at(index).map(|t| t.name.as_str())).collect();
        assert_eq!(names, [Some("a"), Some("a"), Some("b"), Some("b"), Some("b"), None]);
    }

    #[test]
    fn shapes_beyond_memory_are_refused_with_the_tensor_that_is_too_much() {
        let small = || TensorSpec::new("small", vec![1], Init::Zeros);
        for shape in [vec![usize::MAX], vec![1 << 32, 1 << 32], vec![usize::MAX, 2, 0]] {
            let refused = Layout::new(vec![small(), TensorSpec::new("w", shape, Init::Zeros)]);
            assert_eq!(refused, Err(LayoutError::TooLarge { name: "w".into() }));
        }
        let half = |name: &str| TensorSpec::new(name, vec![1 << 17, 1 << 16], Init::Zeros);
        assert!(Layout::new(vec![half("a"), half("b")]).is_ok());
        let refused = Layout::new(vec![half("a"), half("b"), small()]);
        assert_eq!(refused, Err(LayoutError::TooLarge { name: "small".into() }));
    }

    #[test]
    fn more_shards_than_any_cluster_has_are_refused_however_large_the_model() {
        let layout = layout(2000 * BLOCK);
        assert!(layout.cut(1024).is_ok());
        assert_eq!(layout.cut(1025), Err(LayoutError::BeyondMax { shards: 1025 }));
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let twice = vec![TensorSpec::new("w", vec![2], Init::Zeros); 2];
        assert_eq!(Layout::new(twice), Err(LayoutError::DuplicateName { name: "w".into() }));
    }
}
