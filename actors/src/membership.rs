//! Who is alive: heartbeats, the clock, and refused connections.
//!
//! A node says once who is there, and again when that has changed: its word. In between its beats stand
//! for that.
//!
//! A member is lost when its node was silent for [`Patience::dead_after`], and earlier, after
//! [`Patience::refused_after`], where a call to the node's address was refused since it was heard of
//! last: nobody listens there, so its process is gone. Where none of its own connections to this node
//! stands either, [`Patience::gone_after`] is enough, twice that after one call alone: a kernel closes
//! all that a process had when it ends. Closed connections alone say nothing, and neither does a call
//! that gets no answer: those come from networks too. A heartbeat takes the suspicion away, and so does
//! a call that is answered, for a firewall can refuse in the name of a process that lives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{Incarnation, ServerId, ShardCopy, WorkerId};
use crate::messages::Member;

/// How long a member may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Whatever the reason.
    pub dead_after: Duration,
    /// Where its node's address refuses connections. Longer than from one heartbeat to the next, so
    /// that those of a process that lives come in between.
    pub refused_after: Duration,
    /// Where its node's address has refused two connections in a row and its own ones have ended, since
    /// they did.
    pub gone_after: Duration,
}

/// The members that were heard of within the deadline.
#[derive(Clone, Debug)]
pub struct Membership {
    patience: Patience,
    alive: BTreeMap<Member, Life>,
    /// The same by their nodes: a heartbeat costs what its own members cost, however many others live.
    nodes: BTreeMap<String, BTreeSet<Member>>,
    /// Nodes of members whose address has refused calls since they were heard of: so many in a row.
    refused: BTreeMap<String, u64>,
    /// Nodes of members of whose connections to this one the last has ended, and when.
    hung_up: BTreeMap<String, Duration>,
    /// Of the first of those who were lost since it was asked for.
    departed: Option<Departure>,
    /// Since when nobody is alive.
    alone_since: Option<Duration>,
    /// Whether anybody has ever said a word.
    heard: bool,
    losses: u64,
}

/// Who has never heard of anybody waits so many times as long for it: everyone may yet have to start.
const UNHEARD: u32 = 10;

/// How long a loss had not been noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Of the member that had been silent for longest.
    pub last_word: Duration,
    pub noticed: Duration,
    /// Whether an address that refused calls told of it.
    pub refused: bool,
}

#[derive(Clone, Debug)]
struct Life {
    node: String,
    /// `None` for one that is assumed to live, as another coordinator has said.
    incarnation: Option<Incarnation>,
    heard: Duration,
}

/// A change of who is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Joined(Member),
    /// Silent for too long, or restarted and so without the state that it had.
    Lost(Member),
    /// One that was assumed to live does. Whether in the life in which it was last heard of
    /// elsewhere, nobody knows.
    Confirmed(Member),
}

impl Membership {
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            alive: BTreeMap::new(),
            nodes: BTreeMap::new(),
            refused: BTreeMap::new(),
            hung_up: BTreeMap::new(),
            departed: None,
            alone_since: None,
            heard: false,
            losses: 0,
        }
    }

    fn enter(&mut self, member: Member, life: Life) {
        self.leave(member);
        self.nodes.entry(life.node.clone()).or_default().insert(member);
        self.alive.insert(member, life);
    }

    fn leave(&mut self, member: Member) -> Option<Life> {
        let life = self.alive.remove(&member)?;
        if let Some(members) = self.nodes.get_mut(&life.node) {
            members.remove(&member);
            if members.is_empty() {
                self.nodes.remove(&life.node);
                self.refused.remove(&life.node);
                self.hung_up.remove(&life.node);
            }
        }
        Some(life)
    }

    /// Takes these for alive without a word of theirs: they have until the deadline to say one.
    pub fn assume(&mut self, members: impl Iterator<Item = Member>, now: Duration) {
        for member in members {
            self.enter(member, Life { node: String::new(), incarnation: None, heard: now });
        }
    }

    /// Takes a node's word for its actors. `now` is the time since the coordinator started.
    pub fn heard(
        &mut self,
        node: &str,
        members: &[(Member, Incarnation)],
        now: Duration,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        self.refused.remove(node);
        self.hung_up.remove(node);
        self.heard |= !members.is_empty();
        let mut last_words = Vec::new();
        for &(member, incarnation) in members {
            let life =
                || Life { node: node.to_owned(), incarnation: Some(incarnation), heard: now };
            match self.alive.get_mut(&member) {
                Some(known) if known.incarnation.is_none() => {
                    self.enter(member, life());
                    changes.push(Change::Confirmed(member));
                }
                Some(known) if known.incarnation == Some(incarnation) => known.heard = now,
                // A late word of an earlier life.
                Some(known) if known.incarnation > Some(incarnation) => {}
                Some(known) => {
                    last_words.push(known.heard);
                    self.enter(member, life());
                    changes.extend([Change::Lost(member), Change::Joined(member)]);
                }
                None => {
                    self.enter(member, life());
                    changes.push(Change::Joined(member));
                }
            }
        }
        // An actor that gave up is no longer among its node's members. As a set: a peer may list
        // many.
        let listed: BTreeSet<Member> = members.iter().map(|(member, _)| *member).collect();
        let known = self.nodes.get(node).into_iter().flatten();
        let gone: Vec<Member> = known.filter(|member| !listed.contains(member)).copied().collect();
        for member in gone {
            last_words.extend(self.leave(member).map(|life| life.heard));
            changes.push(Change::Lost(member));
        }
        self.note(last_words, now, false);
        changes
    }

    /// Whether all of a node's word is believed: not that of a process in whose place is a later one.
    pub fn believes(&self, node: &str, members: &[(Member, Incarnation)]) -> bool {
        members.iter().all(|(member, incarnation)| {
            let life = self.alive.get(member);
            life.is_some_and(|life| life.node == node && life.incarnation == Some(*incarnation))
        })
    }

    /// How often somebody was lost.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// A node whose word is believed lives: all of whom it told do.
    pub fn beat(&mut self, node: &str, now: Duration) {
        let Some(members) = self.nodes.get(node) else { return };
        for member in members {
            if let Some(life) = self.alive.get_mut(member) {
                life.heard = life.heard.max(now);
            }
        }
        self.refused.remove(node);
        self.hung_up.remove(node);
    }

    /// So many calls in a row to the node's address were refused; none where the last one was answered.
    /// Whether somebody may be lost sooner for that.
    pub fn called(&mut self, node: &str, refused: u64) -> bool {
        if refused == 0 {
            self.refused.remove(node);
            return false;
        }
        let is_known = self.nodes.contains_key(node);
        if is_known {
            self.refused.insert(node.to_owned(), refused);
        }
        is_known
    }

    /// The first of the node's connections to this one stands, or the last one has ended. Whether
    /// somebody may be lost sooner for that.
    pub fn connected(&mut self, node: &str, connected: bool, now: Duration) -> bool {
        if connected {
            self.hung_up.remove(node);
        } else if self.nodes.contains_key(node) {
            self.hung_up.insert(node.to_owned(), now);
        }
        !connected && self.refused.contains_key(node)
    }

    /// Whoever looks did not run for a while, and could hear nobody: that was not their silence.
    pub fn stood_still(&mut self, pause: Duration, now: Duration) {
        let lives = self.alive.values_mut().map(|life| &mut life.heard);
        for word in lives.chain(self.hung_up.values_mut()) {
            *word = (*word + pause).min(now);
        }
        self.alone_since = None;
    }

    /// When the first of those is lost whose address refuses calls, if it is not heard of before: at any
    /// later time.
    pub fn next_loss(&self) -> Option<Duration> {
        let nodes = self.refused.keys().filter_map(|node| self.nodes.get(node));
        nodes.flatten().filter_map(|member| Some(self.due(self.alive.get(member)?))).min()
    }

    /// Members that have been silent for too long; they are forgotten.
    pub fn expire(&mut self, now: Duration) -> Vec<Change> {
        let is_silent = |life: &Life| now > self.due(life);
        let silent: Vec<Member> = self
            .alive
            .iter()
            .filter(|(_, life)| is_silent(life))
            .map(|(member, _)| *member)
            .collect();
        let is_refused = |member| {
            self.alive.get(member).is_some_and(|life: &Life| self.refused.contains_key(&life.node))
        };
        let refused = silent.iter().any(is_refused);
        let lost: Vec<Life> = silent.iter().filter_map(|&member| self.leave(member)).collect();
        self.note(lost.iter().map(|life| life.heard), now, refused);
        match self.alive.is_empty() {
            true => self.alone_since = self.alone_since.or(Some(now)),
            false => self.alone_since = None,
        }
        silent.into_iter().map(Change::Lost).collect()
    }

    /// Whether nobody has been alive for so long that the reason may be whoever looks.
    pub fn is_deserted(&self, now: Duration) -> bool {
        let patience =
            self.patience.dead_after.saturating_mul(if self.heard { 1 } else { UNHEARD });
        self.alone_since.is_some_and(|since| now.saturating_sub(since) >= patience)
    }

    /// When the last word came of the first who was lost since the last call.
    pub fn departed(&mut self) -> Option<Departure> {
        self.departed.take()
    }

    fn note(
        &mut self,
        last_words: impl IntoIterator<Item = Duration>,
        noticed: Duration,
        refused: bool,
    ) {
        let before = self.departed;
        let refused = refused || before.is_some_and(|departure| departure.refused);
        let before = before.map(|departure| departure.last_word);
        let mut last_words = last_words.into_iter().peekable();
        self.losses += u64::from(last_words.peek().is_some());
        if let Some(last_word) = last_words.chain(before).min() {
            self.departed = Some(Departure { last_word, noticed, refused });
        }
    }

    /// When it is lost, if it is not heard of before: at any later time.
    fn due(&self, life: &Life) -> Duration {
        let Patience { dead_after, refused_after, gone_after } = self.patience;
        let dead = life.heard + dead_after;
        let Some(calls) = self.refused.get(&life.node) else { return dead };
        // One call may have come at a bad moment.
        let gone_after = if *calls > 1 { gone_after } else { gone_after * 2 };
        let gone = self.hung_up.get(&life.node).map(|since| *since.max(&life.heard) + gone_after);
        dead.min(life.heard + refused_after).min(gone.unwrap_or(dead))
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
mod tests;
