//! Who is alive: heartbeats and the clock, nothing else. A closed socket says nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{Incarnation, ServerId, ShardCopy, WorkerId};
use crate::messages::Member;

/// The members that were heard of within the deadline.
#[derive(Clone, Debug)]
pub struct Membership {
    /// A member that was silent for this long is dead.
    dead_after: Duration,
    alive: BTreeMap<Member, Life>,
    /// Of the first of those who were lost since it was asked for.
    departed: Option<Departure>,
}

/// How long a loss had not been noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Of the member that had been silent for longest.
    pub last_word: Duration,
    pub noticed: Duration,
}

#[derive(Clone, Debug)]
struct Life {
    node: String,
    incarnation: Incarnation,
    heard: Duration,
}

/// A change of who is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Joined(Member),
    /// Silent for too long, or restarted and so without the state that it had.
    Lost(Member),
}

impl Membership {
    pub fn new(dead_after: Duration) -> Self {
        Self { dead_after, alive: BTreeMap::new(), departed: None }
    }

    /// Takes a node's word for its actors. `now` is the time since the coordinator started.
    pub fn heard(
        &mut self,
        node: &str,
        members: &[(Member, Incarnation)],
        now: Duration,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut last_words = Vec::new();
        for &(member, incarnation) in members {
            let life = Life { node: node.to_owned(), incarnation, heard: now };
            match self.alive.get_mut(&member) {
                Some(known) if known.incarnation == incarnation => known.heard = now,
                // A late word of an earlier life.
                Some(known) if known.incarnation > incarnation => {}
                Some(known) => {
                    last_words.push(known.heard);
                    *known = life;
                    changes.extend([Change::Lost(member), Change::Joined(member)]);
                }
                None => {
                    self.alive.insert(member, life);
                    changes.push(Change::Joined(member));
                }
            }
        }
        // An actor that gave up is no longer among its node's members. As a set: a peer may list
        // many.
        let listed: BTreeSet<Member> = members.iter().map(|(member, _)| *member).collect();
        let gone: Vec<Member> = self
            .alive
            .iter()
            .filter(|(member, life)| life.node == node && !listed.contains(member))
            .map(|(member, _)| *member)
            .collect();
        for member in gone {
            last_words.extend(self.alive.remove(&member).map(|life| life.heard));
            changes.push(Change::Lost(member));
        }
        self.note(last_words, now);
        changes
    }

    /// Members that have been silent for too long; they are forgotten.
    pub fn expire(&mut self, now: Duration) -> Vec<Change> {
        let silent: Vec<Member> = self
            .alive
            .iter()
            .filter(|(_, life)| now.saturating_sub(life.heard) > self.dead_after)
            .map(|(member, _)| *member)
            .collect();
        let last_words = silent.iter().filter_map(|member| self.alive.remove(member));
        let last_words = last_words.map(|life| life.heard).collect();
        self.note(last_words, now);
        silent.into_iter().map(Change::Lost).collect()
    }

    /// When the last word came of the first who was lost since the last call.
    pub fn departed(&mut self) -> Option<Departure> {
        self.departed.take()
    }

    fn note(&mut self, last_words: Vec<Duration>, noticed: Duration) {
        let before = self.departed.map(|departure| departure.last_word);
        if let Some(last_word) = last_words.into_iter().chain(before).min() {
            self.departed = Some(Departure { last_word, noticed });
        }
    }

    pub fn workers(&self) -> Vec<WorkerId> {
        let worker = |member: &Member| match member {
            Member::Worker(worker) => Some(*worker),
            Member::Copy(_) => None,
        };
        self.alive.keys().filter_map(worker).collect()
    }

    pub fn is_alive(&self, member: Member) -> bool {
        self.alive.contains_key(&member)
    }

    pub fn copies(&self) -> BTreeSet<ShardCopy> {
        let copy = |member: &Member| match member {
            Member::Copy(copy) => Some(*copy),
            Member::Worker(_) => None,
        };
        self.alive.keys().filter_map(copy).collect()
    }

    /// Servers that can hold a copy of each of `shards`; one whose actor gave up is of no use.
    pub fn servers(&self, shards: u32) -> Vec<ServerId> {
        let mut count: BTreeMap<ServerId, u32> = BTreeMap::new();
        for copy in self.copies() {
            *count.entry(copy.server).or_default() += 1;
        }
        count.retain(|_, copies| *copies == shards);
        count.into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    const WORKER: Member = Member::Worker(WorkerId(1));
    const SHARD: Member = Member::Copy(ShardCopy { shard: ShardId(0), server: ServerId(0) });

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn members() -> Membership {
        let mut members = Membership::new(at(1000));
        let alive = [(WORKER, Incarnation(1)), (SHARD, Incarnation(1))];
        assert_eq!(members.heard("a", &alive, at(0)).len(), 2);
        members
    }

    #[test]
    fn silence_up_to_the_deadline_is_no_loss() {
        let mut members = members();
        assert_eq!(members.expire(at(1000)), []);
        assert_eq!(members.departed(), None);
        assert_eq!(members.expire(at(1001)), [Change::Lost(SHARD), Change::Lost(WORKER)]);
        let departed = Departure { last_word: at(0), noticed: at(1001) };
        assert_eq!((members.departed(), members.departed()), (Some(departed), None));
        assert_eq!(members.workers(), []);
    }

    #[test]
    fn a_server_of_which_one_actor_gave_up_can_hold_nothing_new() {
        let mut members = members();
        assert_eq!(members.servers(1), [ServerId(0)]);
        assert_eq!(members.servers(2), []);
        let other = Member::Copy(ShardCopy { shard: ShardId(1), server: ServerId(0) });
        members.heard("a", &[(SHARD, Incarnation(1)), (other, Incarnation(1))], at(1));
        assert_eq!(members.servers(2), [ServerId(0)]);
    }

    #[test]
    fn another_incarnation_is_a_loss_and_a_join() {
        let mut members = members();
        let next = [(WORKER, Incarnation(2)), (SHARD, Incarnation(1))];
        let changes = members.heard("a", &next, at(10));
        assert_eq!(changes, [Change::Lost(WORKER), Change::Joined(WORKER)]);
        // The earlier life's last heartbeat comes late: nothing changes.
        let late = [(WORKER, Incarnation(1)), (SHARD, Incarnation(1))];
        assert_eq!(members.heard("a", &late, at(20)), []);
    }

    #[test]
    fn a_member_that_its_node_no_longer_names_is_lost() {
        let mut members = members();
        let changes = members.heard("a", &[(SHARD, Incarnation(1))], at(10));
        assert_eq!(changes, [Change::Lost(WORKER)]);
        assert_eq!(members.heard("b", &[], at(10)), []);
    }
}
