//! The canonical sum over slots: one binary tree, whoever computed what and whatever came first.
//!
//! Floating-point addition is not associative, so a sum's bits depend on its brackets. Here the
//! brackets are a tree over slot numbers, fixed by the job: `[first, end)` splits after the largest
//! power of two below its length. A worker that holds all slots of a subtree may send their sum.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::Slot;
use crate::messages::Values;
use crate::planted::{self, Bug};
use crate::pool::Pool;
use crate::vector::wide;

/// Of earlier sums: as many as the pushes of a small cluster need at once.
const VECTORS_KEPT: usize = 8;

/// Slots `first..end`: a node of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    pub first: u32,
    pub end: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slots {}..{}", self.first, self.end)
    }
}

impl Span {
    pub fn one(slot: Slot) -> Self {
        Self { first: slot.0, end: slot.0 + 1 }
    }

    pub fn slots(self) -> impl Iterator<Item = Slot> {
        (self.first..self.end).map(Slot)
    }

    fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    /// Both halves of a node that is not a leaf.
    fn halves(self) -> Option<(Self, Self)> {
        let len = self.end - self.first;
        if len < 2 {
            return None;
        }
        let middle = self.first + len.next_power_of_two() / 2;
        Some((Self { end: middle, ..self }, Self { first: middle, ..self }))
    }

    /// The nodes from this one on in which slot `slot` lies, down to the first that is no longer than `len`.
    ///
    /// Nothing but lengths decides how far: each turn of its own would be guessed wrong half the time.
    fn way(self, slot: u32, len: u32) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), move |node| {
            let (left, right) = node.halves().filter(|_| node.end - node.first > len)?;
            Some(if slot < left.end { left } else { right })
        })
    }
}

/// Parts of the tree over `slots` slots that those of one of `workers` may have, at most: they are side by
/// side.
pub fn parts_max(slots: u32, workers: u32) -> u32 {
    let depth = slots.next_power_of_two().ilog2();
    match workers {
        0 | 1 => 1,
        // From one end to somewhere in between.
        2 => depth.max(1),
        // From the second leaf to the last but one: a part of each size on either side.
        _ => (2 * depth.saturating_sub(1)).max(depth).max(1),
    }
}

/// A sum over the slots of one span.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub values: Values,
    /// Training rows in it.
    pub rows: u64,
}

/// A complete sum. Its last addition is left to whoever reads it, in the same pass over memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    pub left: Values,
    /// To be added to the left, value by value; `None` where that is all of it.
    pub right: Option<Values>,
    /// Training rows in it.
    pub rows: u64,
}

/// Parts of one step's sum, added up as far as the tree allows.
#[derive(Clone, Debug)]
pub struct Reduction {
    root: Span,
    /// Disjoint nodes of the tree, in the order of their slots; two that are halves of one node are never
    /// both here, but for those of the root. Most steps have a handful at a time: a map would be slower.
    parts: Vec<(Span, Part)>,
    /// For sums, and what was added to one.
    pool: Pool,
}

/// What became of an inserted part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Added,
    /// All its slots were here already; it changed nothing.
    Duplicate,
}

/// The span is not a node of this tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{span} is not a node of the tree over {slots} slots")]
pub struct NotANode {
    pub span: Span,
    pub slots: u32,
}

impl Reduction {
    /// An empty sum over slots `0..slots`; `slots` ≥ 1.
    pub fn new(slots: u32) -> Self {
        let root = Span { first: 0, end: slots };
        Self { root, parts: Vec::new(), pool: Pool::new(VECTORS_KEPT) }
    }

    /// Vectors for parts: those of earlier sums.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// An empty sum again.
    pub fn clear(&mut self) {
        for (_, part) in self.parts.drain(..) {
            self.pool.give(part.values);
        }
    }

    /// Adds the sum over one span. A part that covers smaller ones replaces them: by construction
    /// it is the same sum.
    ///
    /// # Errors
    /// The span is not a node of the tree.
    pub fn insert(&mut self, span: Span, part: Part) -> Result<Inserted, NotANode> {
        let Some(path) = Path::to(span, self.root) else {
            return Err(NotANode { span, slots: self.root.end });
        };
        if self.covers(span) {
            if planted::is(Bug::DoubleApply) {
                self.add_again(span, &part);
            }
            return Ok(Inserted::Duplicate);
        }
        let at = self.parts.partition_point(|(held, _)| held.first < span.first);
        let smaller = self.parts[at..].iter().take_while(|(held, _)| span.contains(*held)).count();
        self.parts.drain(at..at + smaller);
        self.parts.insert(at, (span, part));
        self.add_up(at, &path);
        Ok(Inserted::Added)
    }

    /// [`Bug::DoubleApply`].
    fn add_again(&mut self, span: Span, part: &Part) {
        if let Some((_, held)) = self.parts.iter_mut().find(|(held, _)| held.contains(span)) {
            add(held, part, &mut self.pool);
        }
    }

    fn remove(&mut self, span: Span) -> Option<Part> {
        let at = self.parts.iter().position(|(held, _)| *held == span)?;
        Some(self.parts.remove(at).1)
    }

    /// [`Bug::ArrivalOrder`]: one running sum, which has the span of no slot until it is complete.
    pub(crate) fn insert_as_it_comes(&mut self, span: Span, part: Part) {
        if span == self.root {
            self.parts.clear();
            self.parts.push((span, part));
            return;
        }
        let running = Span { first: self.root.end, end: self.root.end };
        let sum = match self.remove(running) {
            Some(mut sum) => {
                add(&mut sum, &part, &mut self.pool);
                sum
            }
            None => part,
        };
        let empty = Part { values: Values::default(), rows: 0 };
        self.parts.push((span, empty));
        self.parts.sort_by_key(|(span, _)| *span);
        let at = if self.covers(self.root) { self.root } else { running };
        if at == self.root {
            self.parts.clear();
        }
        self.parts.push((at, sum));
    }

    /// Whether every slot of the span is in some part.
    pub fn covers(&self, span: Span) -> bool {
        // Parts are disjoint, so those that overlap lie side by side.
        let beyond = self.parts.partition_point(|(part, _)| part.first < span.end);
        let held: u32 = self.parts[..beyond]
            .iter()
            .rev()
            .map(|(part, _)| part)
            .take_while(|part| part.end > span.first)
            .map(|part| part.end.min(span.end).saturating_sub(part.first.max(span.first)))
            .sum();
        held == span.end - span.first
    }

    /// Whether the span is a node of the tree.
    pub fn is_node(&self, span: Span) -> bool {
        let len = span.end.checked_sub(span.first);
        len.and_then(|len| self.root.way(span.first, len).last()) == Some(span)
    }

    pub fn is_complete(&self) -> bool {
        match &self.parts[..] {
            [(whole, _)] => *whole == self.root,
            [(left, _), (right, _)] => self.root.halves() == Some((*left, *right)),
            _ => false,
        }
    }

    /// Takes the whole sum, if it is complete.
    pub fn take_total(&mut self) -> Option<Total> {
        if !self.is_complete() {
            return None;
        }
        let mut parts = self.parts.drain(..).map(|(_, part)| part);
        let Part { values: left, rows } = parts.next()?;
        let right = parts.next();
        let rows = rows + right.as_ref().map_or(0, |right| right.rows);
        Some(Total { left, right: right.map(|right| right.values), rows })
    }

    /// Takes all parts, in the order of their slots: the maximal sums over those that were inserted.
    pub fn take_parts(&mut self) -> Vec<(Span, Part)> {
        if let Some(halves) = self.root.halves() {
            self.join(0, self.root, halves);
        }
        std::mem::take(&mut self.parts)
    }

    /// Replaces two halves by their node, from the parent of the part at `at` up to the root but for that
    /// one.
    fn add_up(&mut self, mut at: usize, path: &Path) {
        let mut half = path.span;
        for &node in path.above.iter().take(path.depth).skip(1).rev() {
            let Some(halves) = node.halves() else { return };
            if half == halves.1 {
                let Some(before) = at.checked_sub(1) else { return };
                at = before;
            }
            if !self.join(at, node, halves) {
                return;
            }
            half = node;
        }
    }

    /// Replaces the halves of a node by their sum, if both are here, the left one at `at`.
    fn join(&mut self, at: usize, node: Span, (left, right): (Span, Span)) -> bool {
        let is_at = |at, half| self.parts.get(at).is_some_and(|(span, _)| *span == half);
        if !is_at(at, left) || !is_at(at + 1, right) {
            return false;
        }
        let (_, other) = self.parts.remove(at + 1);
        let (span, sum) = &mut self.parts[at];
        add(sum, &other, &mut self.pool);
        *span = node;
        self.pool.give(other.values);
        true
    }
}

/// The nodes on the way to one, which is one of the tree.
struct Path {
    span: Span,
    /// From the root on, `depth` of them: a tree over 2³¹ slots is no deeper, nor is one wanted.
    above: [Span; 32],
    depth: usize,
}

impl Path {
    fn to(span: Span, root: Span) -> Option<Self> {
        let len = span.end.checked_sub(span.first)?;
        let (mut last, mut path) = (root, Self { span, above: [root; 32], depth: 0 });
        for node in root.way(span.first, len).skip(1) {
            *path.above.get_mut(path.depth)? = last;
            path.depth += 1;
            last = node;
        }
        (last == span).then_some(path)
    }
}

impl Total {
    /// The values from `place` on, as many as `sum` has room for or there are: added up in `sum`
    /// where they aren't yet.
    ///
    /// # Panics
    /// If there are fewer than `place`.
    pub fn part<'a>(&'a self, place: usize, sum: &'a mut [f32]) -> &'a [f32] {
        let end = self.left.len().min(place + sum.len());
        let left = &self.left[place..end];
        let Some(right) = &self.right else { return left };
        let sum = &mut sum[..end - place];
        let halves = left.iter().zip(&right[place..end]);
        wide(|| sum.iter_mut().zip(halves).for_each(|(sum, (left, right))| *sum = left + right));
        sum
    }
}

fn add(sum: &mut Part, other: &Part, pool: &mut Pool) {
    sum.rows += other.rows;
    if let Some(values) = Arc::get_mut(&mut sum.values) {
        wide(|| values.iter_mut().zip(&*other.values).for_each(|(value, other)| *value += other));
        return;
    }
    // Somebody else still holds the left half: who read it from a connection, or a worker in this
    // process that would repeat its push.
    let mut values = pool.take_or_new(sum.values.len());
    let halves = sum.values.iter().zip(&*other.values);
    wide(|| values.iter_mut().zip(halves).for_each(|(value, (left, right))| *value = left + right));
    sum.values = Arc::new(values);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(slot: u32) -> Part {
        // Magnitudes far apart, so that another bracket gives other bits.
        let values = (0..5).map(|i| ((slot * 37 + i) as f32).sin() * 10f32.powi(slot as i32 % 7));
        Part { values: Arc::new(values.collect()), rows: u64::from(slot) + 1 }
    }

    fn total(slots: u32, order: impl IntoIterator<Item = u32>) -> Part {
        let mut sum = Reduction::new(slots);
        for slot in order {
            sum.insert(Span::one(Slot(slot)), part(slot)).unwrap();
        }
        whole(&mut sum)
    }

    /// The complete sum, with a buffer that is shorter than it.
    fn whole(sum: &mut Reduction) -> Part {
        let total = sum.take_total().unwrap();
        let mut buffer = [f32::NAN; 3];
        let places = (0..total.left.len()).step_by(buffer.len());
        let values = places.flat_map(|place| total.part(place, &mut buffer).to_vec()).collect();
        Part { values: Arc::new(values), rows: total.rows }
    }

    /// Sums of a worker that holds `slots`, as it would send them.
    fn sums_of(all: u32, slots: &[u32]) -> Vec<(Span, Part)> {
        let mut sum = Reduction::new(all);
        for &slot in slots {
            sum.insert(Span::one(Slot(slot)), part(slot)).unwrap();
        }
        sum.take_parts()
    }

    proptest! {
        #[test]
        fn order_of_arrival_does_not_change_the_bits(
            slots in 1u32..40, seed in any::<u64>(),
        ) {
            let mut order: Vec<u32> = (0..slots).collect();
            order.sort_by_key(|&slot| (u64::from(slot) + 1).wrapping_mul(seed | 1) >> 7);
            prop_assert_eq!(total(slots, order), total(slots, 0..slots));
        }

        #[test]
        fn who_summed_what_does_not_change_the_bits(
            slots in 1u32..40, owners in prop::collection::vec(0u32..4, 40), turn in 0usize..4,
        ) {
            let mut sum = Reduction::new(slots);
            for owner in (0..4usize).map(|i| (i + turn) % 4) {
                let held: Vec<u32> =
                    (0..slots).filter(|&s| owners[s as usize] as usize == owner).collect();
                for (span, part) in sums_of(slots, &held) {
                    sum.insert(span, part).unwrap();
                }
            }
            prop_assert_eq!(whole(&mut sum), total(slots, 0..slots));
        }

        #[test]
        fn sums_computed_twice_count_once(
            slots in 2u32..40, first in prop::collection::vec(any::<bool>(), 40),
        ) {
            // Some slots arrive one by one, then their owner dies and another sends everything.
            let mut sum = Reduction::new(slots);
            for slot in (0..slots).filter(|&s| first[s as usize]) {
                sum.insert(Span::one(Slot(slot)), part(slot)).unwrap();
            }
            for (span, part) in sums_of(slots, &(0..slots / 2).collect::<Vec<_>>()) {
                sum.insert(span, part).unwrap();
            }
            for slot in 0..slots {
                sum.insert(Span::one(Slot(slot)), part(slot)).unwrap();
            }
            prop_assert_eq!(whole(&mut sum), total(slots, 0..slots));
        }
    }

    #[test]
    fn a_worker_that_holds_an_aligned_half_sends_one_part() {
        assert_eq!(sums_of(8, &[0, 1, 2, 3]).len(), 1);
        assert_eq!(sums_of(8, &[1, 2, 3, 4]).len(), 3);
    }

    #[test]
    fn slots_side_by_side_have_no_more_parts_than_are_reckoned_with() {
        for slots in 1..=40 {
            let spans = |first: u32| (first + 1..=slots).map(move |end| first..end);
            let parts =
                |span: std::ops::Range<u32>| sums_of(slots, &span.collect::<Vec<_>>()).len() as u32;
            let at_an_end = |span: &std::ops::Range<u32>| span.start == 0 || span.end == slots;
            let most_of_two = (0..slots).flat_map(spans).filter(at_an_end).map(parts).max();
            let most = (0..slots).flat_map(spans).map(parts).max();
            for (most, workers) in [(Some(1), 1), (most_of_two, 2), (most, 3)] {
                let reckoned = parts_max(slots, workers);
                let fits = |most| (most..=most + 2).contains(&reckoned);
                assert!(most.is_some_and(fits), "{slots} slots, {workers} workers");
            }
        }
    }

    #[test]
    fn nodes_are_those_that_halving_gives_and_no_others() {
        fn nodes(root: Span) -> Vec<Span> {
            let halves = root.halves().into_iter().flat_map(|(left, right)| [left, right]);
            halves.flat_map(nodes).chain([root]).collect()
        }
        for slots in 1..=20 {
            let (sum, nodes) = (Reduction::new(slots), nodes(Span { first: 0, end: slots }));
            assert_eq!(nodes.len() as u32, 2 * slots - 1);
            let bounds = || (0..slots + 2).chain([u32::MAX - 1, u32::MAX]);
            for span in bounds().flat_map(|first| bounds().map(move |end| Span { first, end })) {
                assert_eq!(sum.is_node(span), nodes.contains(&span), "{span} of {slots}");
                assert_eq!(Path::to(span, sum.root).is_some(), nodes.contains(&span), "{span}");
            }
        }
        let path = Path::to(Span { first: 0, end: 1 }, Span { first: 0, end: 1 << 31 });
        assert_eq!(path.map(|path| path.depth), Some(31));
    }

    #[test]
    fn a_span_that_crosses_the_tree_is_refused() {
        let crossing = Span { first: 1, end: 3 };
        let refused = Reduction::new(8).insert(crossing, part(0));
        assert_eq!(refused, Err(NotANode { span: crossing, slots: 8 }));
    }

    #[test]
    fn another_bracket_would_give_other_bits() {
        let fold = (1..7).fold(part(0), |mut sum, slot| {
            let values = Arc::make_mut(&mut sum.values);
            values.iter_mut().zip(part(slot).values.iter()).for_each(|(a, b)| *a += b);
            sum
        });
        assert_ne!(fold.values, total(7, 0..7).values, "the test data can't see a wrong tree");
    }
}
