//! Which nodes live, as their connections tell: one frame a heartbeat, and no actor handles it.
//!
//! Shared by a Coordinator and the router of its node. The Coordinator says whose word it has, and which; the
//! router notes the beats that stand for that one, and asks a node whose word it lacks to say who is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ids::Incarnation;

/// Nodes whose word is kept, far more than a cluster has. Whoever is forgotten says it again.
const KNOWN_MAX: usize = 1024;

/// A word of a node: who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordId {
    /// Of the node's process.
    pub life: Incarnation,
    /// Another one for each word that says something else.
    pub number: u32,
}

/// Beats of nodes since a Coordinator asked last, each with its time, by the clock of those who share it.
#[derive(Debug)]
pub struct Presence<Time>(Arc<Mutex<State<Time>>>);

#[derive(Debug)]
struct State<Time> {
    /// Who does not lead needs nobody's word.
    leads: bool,
    known: BTreeMap<String, Known<Time>>,
}

#[derive(Debug)]
struct Known<Time> {
    word: WordId,
    beat: Option<Time>,
}

impl<Time> Clone for Presence<Time> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Time> Default for Presence<Time> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { leads: false, known: BTreeMap::new() })))
    }
}

impl<Time> Presence<Time> {
    /// What a node said with this word is so at this time. Whether the Coordinator needs the node's word: it
    /// leads and has none, or another one.
    #[must_use]
    pub fn beat(&self, node: &str, word: WordId, at: Time) -> bool {
        let mut state = self.state();
        match state.known.get_mut(node) {
            Some(known) if known.word == word => {
                known.beat = Some(at);
                false
            }
            _ => state.leads,
        }
    }

    /// The Coordinator begins to lead, or no longer does: it has nobody's word.
    pub fn begin(&self, leads: bool) {
        *self.state() = State { leads, known: BTreeMap::new() };
    }

    /// The Coordinator believes this word of the node: beats stand for it from now on.
    pub fn know(&self, node: &str, word: WordId) {
        let mut state = self.state();
        if state.known.len() >= KNOWN_MAX && !state.known.contains_key(node) {
            state.known.clear();
        }
        match state.known.get_mut(node) {
            Some(known) => known.word = word,
            None => drop(state.known.insert(node.to_owned(), Known { word, beat: None })),
        }
    }

    /// The Coordinator does not believe the node's word any more.
    pub fn forget(&self, node: &str) {
        self.state().known.remove(node);
    }

    /// Somebody is lost: all are to say again who is there.
    pub fn forget_all(&self) {
        self.state().known.clear();
    }

    /// Tells of the newest beat of each node since the last call.
    pub fn take(&self, mut heard: impl FnMut(&str, Time)) {
        for (node, known) in &mut self.state().known {
            if let Some(at) = known.beat.take() {
                heard(node, at);
            }
        }
    }

    /// Whole after a panic too: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State<Time>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(life: u64, number: u32) -> WordId {
        WordId { life: Incarnation(life), number }
    }

    fn taken(presence: &Presence<u32>) -> Vec<(String, u32)> {
        let mut beats = Vec::new();
        presence.take(|node, at| beats.push((node.to_owned(), at)));
        beats
    }

    #[test]
    fn a_leader_needs_each_word_and_counts_the_beats_that_stand_for_it_alone() {
        let presence = Presence::default();
        assert!(!presence.beat("a", word(1, 1), 10), "who follows needs no word");
        presence.begin(true);
        assert!(presence.beat("a", word(1, 1), 20));
        assert_eq!(taken(&presence), []);
        presence.know("a", word(1, 1));
        assert!(!presence.beat("a", word(1, 1), 30));
        assert!(!presence.beat("a", word(1, 1), 40));
        assert!(presence.beat("a", word(1, 2), 50), "a late word was the last one that was heard");
        assert!(presence.beat("a", word(2, 1), 50), "of its next life nothing is known");
        assert!(presence.beat("b", word(1, 1), 50));
        assert_eq!(taken(&presence), [("a".to_owned(), 40)]);
        assert_eq!(taken(&presence), [], "each beat is told once");
    }

    #[test]
    fn whoever_is_forgotten_is_asked_again_and_so_are_all_after_a_loss_and_by_a_new_leader() {
        let presence = Presence::default();
        presence.begin(true);
        let knows = |expected: [bool; 2]| {
            let known = ["a", "b"].map(|node| !presence.beat(node, word(1, 1), 10));
            assert_eq!(known, expected);
            ["a", "b"].iter().for_each(|node| presence.know(node, word(1, 1)));
        };
        knows([false, false]);
        presence.forget("b");
        knows([true, false]);
        presence.forget_all();
        knows([false, false]);
        presence.begin(true);
        knows([false, false]);
        presence.begin(false);
        assert!(!presence.beat("a", word(1, 1), 10));
    }

    #[test]
    fn more_nodes_than_a_cluster_has_cost_a_word_and_no_memory() {
        let presence = Presence::default();
        presence.begin(true);
        for node in 0..=KNOWN_MAX {
            presence.know(&node.to_string(), word(1, 1));
        }
        assert_eq!(presence.state().known.len(), 1);
        assert!(presence.beat("0", word(1, 1), 10));
    }
}
