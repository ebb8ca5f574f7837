//! What happened to a run: who came and went, what each view did about it, and how long that took.
//!
//! A typed feed for people and programs, told once each: to the log, to counters, and to a ring of
//! the newest. Nothing is decided by it.

mod feed;
mod noting;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use feed::{EventFeed, Tally};

use crate::ids::{ServerId, ShardCopy, ShardId, Term, Version, View, WorkerId};

/// Events that are kept: a cluster of 64 nodes that all died and came back, twice.
const KEPT_MAX: usize = 256;

/// Something that happened. What a view did is told when everyone has heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts this coordinator's events from 1 without a gap: whoever knows event `n` has missed
    /// what lies between it and the oldest that is shown.
    pub number: u64,
    /// Since the coordinator began.
    pub at_ms: u64,
    pub view: View,
    pub kind: EventKind,
    pub cause: Option<Cause>,
    /// Of what a view did: from the last word of the first who was lost, or else from the view's
    /// beginning, until all copies were appointed and all slots leased.
    pub took_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Joined {
        who: Who,
    },
    Lost {
        who: Who,
    },
    /// The first view of this coordinator.
    Began {
        version: Version,
        workers: u32,
    },
    /// Replicas took a lost primary's place.
    Promoted {
        shards: Vec<ShardId>,
        from: ServerId,
        to: ServerId,
    },
    /// A primary that lives gave its place to a replica.
    HandedOver {
        shards: Vec<ShardId>,
        from: ServerId,
        to: ServerId,
    },
    /// A copy has all that its primary has: from now on it can take its place.
    InSync {
        copy: ShardCopy,
    },
    /// A copy that lives is not needed any more.
    Released {
        copy: ShardCopy,
    },
    /// A primary that had been replaced tried to go on, and was refused by a copy in view `by`.
    Fenced {
        copy: ShardCopy,
        by: View,
    },
    /// Everyone went back to a checkpoint.
    RolledBack {
        from: Version,
        to: Version,
    },
    /// A view that neither moved a primary nor went back.
    Continued {
        workers: u32,
    },
    /// Slots moved from slow workers to fast ones.
    Rebalanced {
        workers: u32,
    },
    /// Everybody is there, and no shard has taken a step for so long.
    StoodStill {
        for_ms: u64,
        /// The one that has come least far.
        slowest: ShardId,
        version: Version,
        /// Steps of the one that has come furthest beyond it.
        ahead: u64,
        /// The steps are done: the last checkpoint is missing.
        is_last: bool,
    },
    /// To leave: what it has goes to others.
    Leaving {
        who: Who,
    },
    /// Not to leave after all.
    Back {
        who: Who,
    },
    /// Another coordinator leads.
    Led {
        leader: String,
        term: Term,
    },
}

/// Who came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    Worker(WorkerId),
    /// With all its copies at once.
    Server(ServerId),
    /// The actor of one copy alone.
    Copy(ShardCopy),
}

/// Why something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing was heard of it for so long.
    Silent { ms: u64 },
    /// Its node's address refuses calls; nothing was heard of it for so long.
    Refused { ms: u64 },
    /// It runs again, without the state that it had.
    Restarted,
    /// Its node doesn't run it any more.
    GaveUp,
    /// Of so many workers, servers and single copies.
    Loss { lost: u32 },
    /// Somebody came.
    Arrival,
    /// A copy has caught up.
    CaughtUp,
    /// A checkpoint could not be read back.
    Checkpoint { version: Version },
    /// A worker has not the residuals of the step that the shards are at.
    Residuals,
    /// Slots with residuals move at checkpoints only.
    Moves,
    /// Members are to leave, or not any more.
    Drain,
    /// A worker takes so much longer for a slot than the fastest, in percent.
    Slow { worker: WorkerId, percent: u64 },
}

/// An event of which the time is still to be said.
type Untimed = (View, EventKind, Option<Cause>);

/// The feed of one coordinator.
#[derive(Debug, Default)]
pub(super) struct Events {
    kept: VecDeque<Event>,
    tallies: BTreeMap<String, Tally>,
    /// How many there have been.
    count: u64,
    /// Whether this coordinator has raised a view.
    raised: bool,
    /// Happened since the clock was last looked at.
    fresh: Vec<Untimed>,
    /// What views did of which not everyone has heard.
    open: Vec<Untimed>,
    /// The last word of the first who was lost and is not healed yet; else when the view began.
    since: Option<Duration>,
    lost: u32,
    /// Of the view to come, where it is no loss.
    cause: Option<Cause>,
    /// The newest view in which each copy was told that it is fenced: it may tell so twice.
    fenced: BTreeMap<ShardCopy, View>,
}

impl Events {
    /// Something happened that is over with it.
    pub(super) fn add(&mut self, view: View, kind: EventKind, cause: Option<Cause>) {
        self.fresh.push((view, kind, cause));
        // Where nobody looks at the clock.
        if self.fresh.len() > KEPT_MAX {
            self.fresh.remove(0);
        }
    }

    /// Why the next view will be.
    pub(super) fn because(&mut self, cause: Cause) {
        self.cause = Some(cause);
    }

    fn lost(&mut self, last_word: Duration) {
        self.lost = self.lost.saturating_add(1);
        let since = self.since.unwrap_or(last_word);
        self.since = Some(since.min(last_word));
    }

    /// What a view does; told when it has been done.
    fn does(&mut self, view: View, kinds: Vec<EventKind>, otherwise: Option<Cause>) {
        let loss = (self.lost > 0).then_some(Cause::Loss { lost: self.lost });
        let cause = self.cause.take().or(loss).or(otherwise);
        self.open.extend(kinds.into_iter().map(|kind| (view, kind, cause)));
        // Views that never come to their end, one after the other.
        let over = self.open.len().saturating_sub(KEPT_MAX);
        self.open.drain(..over);
    }

    /// Gives what happened its time, which is `now`; `healed`: all have heard of the view.
    fn settle(&mut self, now: Duration, healed: bool) -> Vec<Event> {
        let before = self.count;
        for untimed in std::mem::take(&mut self.fresh) {
            self.keep(untimed, now, None);
        }
        if !self.open.is_empty() {
            let since = *self.since.get_or_insert(now);
            if healed {
                let took = now.saturating_sub(since);
                for untimed in std::mem::take(&mut self.open) {
                    self.keep(untimed, now, Some(took));
                }
            }
        }
        if healed {
            (self.since, self.lost) = (None, 0);
        }
        self.kept.iter().filter(|event| event.number > before).cloned().collect()
    }

    fn keep(&mut self, untimed: Untimed, now: Duration, took: Option<Duration>) {
        let (view, kind, cause) = untimed;
        self.count += 1;
        let (at_ms, took_ms) = (millis(now), took.map(millis));
        self.tallies.entry(kind.name().to_owned()).or_default().add(took_ms);
        self.kept.push_back(Event { number: self.count, at_ms, view, kind, cause, took_ms });
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
