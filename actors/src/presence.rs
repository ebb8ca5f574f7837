//! Which nodes live, as their connections tell: one frame a heartbeat, and no actor handles it.
//!
//! Shared by a Coordinator and the router of its node. The Coordinator says which life of which node it
//! has the word of; the router notes their beats, and asks a node whose word it lacks to say who is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::ids::Incarnation;

/// Nodes whose word is kept, far more than a cluster has. Whoever is forgotten says it again.
const KNOWN_MAX: usize = 1024;

/// Beats of nodes since a Coordinator asked last. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Presence(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Who does not lead needs nobody's word.
    leads: bool,
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    life: Incarnation,
    beat: Option<Instant>,
}

impl Presence {
    /// This life of a node's process lives at this time. Whether the Coordinator needs the node's word:
    /// it leads and has none, or that of another life.
    #[must_use]
    pub fn beat(&self, node: &str, life: Incarnation, at: Instant) -> bool {
        let mut state = self.state();
        match state.known.get_mut(node) {
            Some(known) if known.life == life => {
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

    /// The Coordinator has the word of this life of the node: its beats stand for it from now on.
    pub fn know(&self, node: &str, life: Incarnation) {
        let mut state = self.state();
        if state.known.len() >= KNOWN_MAX && !state.known.contains_key(node) {
            state.known.clear();
        }
        match state.known.get_mut(node) {
            Some(known) => known.life = life,
            None => drop(state.known.insert(node.to_owned(), Known { life, beat: None })),
        }
    }

    /// Tells of the newest beat of each node since the last call. A node for which `heard` is false is
    /// asked for its word again.
    pub fn take(&self, mut heard: impl FnMut(&str, Instant) -> bool) {
        self.state().known.retain(|node, known| match known.beat.take() {
            Some(at) => heard(node, at),
            None => true,
        });
    }

    /// Whole after a panic too: each change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(presence: &Presence, is_known: bool) -> Vec<String> {
        let mut nodes = Vec::new();
        presence.take(|node, _| {
            nodes.push(node.to_owned());
            is_known
        });
        nodes
    }

    #[test]
    fn a_leader_needs_the_word_of_each_life_and_counts_the_beats_of_that_one_alone() {
        let (presence, now) = (Presence::default(), Instant::now());
        assert!(!presence.beat("a", Incarnation(1), now), "who follows needs no word");
        presence.begin(true);
        assert!(presence.beat("a", Incarnation(1), now));
        assert_eq!(taken(&presence, true), [""; 0]);
        presence.know("a", Incarnation(1));
        assert!(!presence.beat("a", Incarnation(1), now));
        assert!(presence.beat("a", Incarnation(2), now), "of its next life nothing is known");
        assert!(presence.beat("b", Incarnation(1), now));
        assert_eq!(taken(&presence, true), ["a"]);
        assert_eq!(taken(&presence, true), [""; 0], "each beat is told once");
    }

    #[test]
    fn a_node_that_the_coordinator_has_given_up_is_asked_again_and_so_are_all_by_a_new_leader() {
        let (presence, now) = (Presence::default(), Instant::now());
        presence.begin(true);
        for node in ["a", "b"] {
            presence.know(node, Incarnation(1));
            assert!(!presence.beat(node, Incarnation(1), now));
        }
        assert_eq!(taken(&presence, false), ["a", "b"]);
        assert!(presence.beat("a", Incarnation(1), now));
        presence.know("a", Incarnation(1));
        presence.begin(true);
        assert!(presence.beat("a", Incarnation(1), now));
        presence.know("a", Incarnation(1));
        presence.begin(false);
        assert!(!presence.beat("a", Incarnation(1), now));
    }

    #[test]
    fn more_nodes_than_a_cluster_has_cost_a_word_and_no_memory() {
        let presence = Presence::default();
        presence.begin(true);
        for node in 0..=KNOWN_MAX {
            presence.know(&node.to_string(), Incarnation(1));
        }
        assert_eq!(presence.state().known.len(), 1);
        assert!(presence.beat("0", Incarnation(1), Instant::now()));
    }
}
