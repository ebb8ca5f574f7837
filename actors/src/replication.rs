//! What a primary sends to the other copies of its shard, and what it waits for.
//!
//! A plain queue a follower, one request under way at a time: updates reach a copy in their order.
//! A learner that has caught up counts for commits at once, before anyone is told of it: whoever
//! makes it the next primary then finds in it all that was ever committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::ids::ServerId;
use crate::messages::Update;
use crate::planted::{self, Bug};
use crate::shard::EARLIER_KEPT;

/// Updates that wait for a copy that is being filled. Then commits wait for it, so that a fill that
/// is slower than the steps ends all the same, and memory stays bounded: each is a gradient.
const QUEUE_MAX: usize = 16;

/// The copies that follow one primary in one view.
#[derive(Clone, Debug, Default)]
pub struct Followers(BTreeMap<ServerId, Follower>);

#[derive(Clone, Debug)]
struct Follower {
    /// Whether a commit waits for it.
    required: bool,
    learner: bool,
    /// Updates that it has applied; `None` before it is filled.
    applied: Option<u64>,
    /// Updates that it held when it was filled.
    filled_at: u64,
    queue: VecDeque<Arc<Update>>,
    under_way: bool,
}

/// What to send to a follower next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    Fill,
    Update(Arc<Update>),
}

impl Followers {
    /// The followers at the beginning of a view. `applied`: updates of the primary; `last`: the
    /// newest of them, which a replica may lack.
    pub fn new(
        replicas: &[ServerId],
        learners: &[ServerId],
        applied: u64,
        last: Option<&Arc<Update>>,
    ) -> Self {
        let last = last.filter(|_| !planted::is(Bug::LastStepUnsent));
        let replica = Follower {
            required: true,
            learner: false,
            // Without a newest update the shard was restored everywhere at this version, or the
            // others are ahead.
            applied: Some(last.map_or(applied, |update| update.step.0)),
            filled_at: 0,
            queue: last.cloned().into_iter().collect(),
            under_way: false,
        };
        // It may have been filled in a view before, and then lacks no more than a replica would.
        let learner = Follower {
            required: false,
            learner: true,
            applied: last.map(|update| update.step.0),
            filled_at: applied,
            ..replica.clone()
        };
        let all = replicas.iter().map(|server| (*server, replica.clone()));
        Self(all.chain(learners.iter().map(|server| (*server, learner.clone()))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The primary has applied an update.
    pub fn push(&mut self, update: &Arc<Update>) {
        for follower in self.0.values_mut() {
            // Whoever is not being filled yet gets it with the state.
            if follower.applied.is_some() || follower.under_way {
                follower.queue.push_back(Arc::clone(update));
            }
        }
    }

    /// What may be sent now; each is under way then.
    pub fn due(&mut self) -> Vec<(ServerId, Next)> {
        let mut due = Vec::new();
        for (server, follower) in &mut self.0 {
            let next = match (follower.under_way, follower.applied, follower.queue.front()) {
                (true, ..) | (false, Some(_), None) => continue,
                (false, None, _) => Next::Fill,
                (false, Some(_), Some(update)) => Next::Update(Arc::clone(update)),
            };
            follower.under_way = true;
            due.push((*server, next));
        }
        due
    }

    /// The state that is on its way to a learner holds so many updates.
    pub fn filling(&mut self, server: ServerId, applied: u64) {
        if let Some(follower) = self.0.get_mut(&server) {
            follower.filled_at = applied;
            follower.queue.clear();
        }
    }

    /// A follower has answered that it has applied so many updates. `ours`: those of the primary.
    pub fn answered(&mut self, server: ServerId, applied: u64, ours: u64) {
        let Some(follower) = self.0.get_mut(&server) else { return };
        follower.under_way = false;
        follower.applied = Some(applied);
        follower.queue.retain(|update| update.step.0 >= applied);
        // One that was just filled has no versions before its newest, which somebody may need yet.
        let keeps_enough = applied >= follower.filled_at.saturating_add(EARLIER_KEPT as u64);
        if follower.learner && keeps_enough && applied.saturating_add(1) >= ours {
            follower.required = true;
        }
    }

    /// A follower lacks what comes before: a learner is filled.
    pub fn refused(&mut self, server: ServerId) {
        let Some(follower) = self.0.get_mut(&server) else { return };
        follower.under_way = false;
        if follower.learner && !follower.required {
            follower.applied = None;
            follower.queue.clear();
        }
    }

    /// Nobody knows what became of a request: it is sent again.
    pub fn unanswered(&mut self, server: ServerId) {
        if let Some(follower) = self.0.get_mut(&server) {
            follower.under_way = false;
        }
    }

    /// Whether everyone who must have so many updates has them.
    pub fn have(&self, applied: u64) -> bool {
        self.0.values().all(|follower| match follower.required {
            true if planted::is(Bug::ReplicaNotAwaited) => true,
            true => follower.applied.is_some_and(|theirs| theirs >= applied),
            false => follower.queue.len() <= QUEUE_MAX,
        })
    }

    /// Learners that commits wait for, and that have all that was ever committed.
    pub fn synced(&self, committed: u64) -> Vec<ServerId> {
        let synced = |(_, follower): &(&ServerId, &Follower)| {
            let has = follower.applied.is_some_and(|theirs| theirs >= committed);
            let early = planted::is(Bug::SyncedTooEarly) && follower.applied.is_some();
            follower.learner && (follower.required && has || early)
        };
        self.0.iter().filter(synced).map(|(server, _)| *server).collect()
    }
}

#[cfg(test)]
mod tests;
