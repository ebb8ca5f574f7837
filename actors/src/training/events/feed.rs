//! The part of the feed that a status shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Event, Events};

/// Events in a status, which is asked for many times a second: all of two recoveries of a small
/// cluster. A reader that asks every few seconds misses none, and can see it when it does.
const SHOWN_MAX: usize = 32;

/// The newest events, and how many of each kind there have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFeed {
    /// Oldest first.
    pub newest: Vec<Event>,
    /// By [`EventKind::name`](super::EventKind::name).
    pub tallies: BTreeMap<String, Tally>,
}

/// All events of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub events: u64,
    /// Those of them that took time, and how much in all.
    pub timed: u64,
    pub took_ms: u64,
}

impl Tally {
    pub(super) fn add(&mut self, took_ms: Option<u64>) {
        self.events += 1;
        self.timed += u64::from(took_ms.is_some());
        self.took_ms = self.took_ms.saturating_add(took_ms.unwrap_or(0));
    }
}

impl EventFeed {
    /// The events after number `seen`, and whether some between were missed.
    pub fn after(&self, seen: u64) -> (&[Event], bool) {
        let first = self.newest.partition_point(|event| event.number <= seen);
        let missed = self.newest.first().is_some_and(|oldest| oldest.number > seen + 1);
        (&self.newest[first..], missed)
    }
}

impl Events {
    pub(in crate::training) fn feed(&self) -> EventFeed {
        let skipped = self.kept.len().saturating_sub(SHOWN_MAX);
        let newest = self.kept.iter().skip(skipped).cloned().collect();
        EventFeed { newest, tallies: self.tallies.clone() }
    }

    /// Brings a feed up to date; whether it was not.
    pub(in crate::training) fn update(&self, feed: &mut EventFeed) -> bool {
        // By the event itself: numbers begin again with a coordinator.
        let changed = feed.newest.last() != self.kept.back();
        if changed {
            *feed = self.feed();
        }
        changed
    }
}
