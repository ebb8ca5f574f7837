//! The log of the registry as a feed: what happened, in short.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::LogEntry;

/// Events that are remembered; whoever was away for longer begins anew. About a megabyte.
const EVENTS_MAX: usize = 4096;
/// Events of an answer.
pub const EVENTS_PAGE_MAX: usize = 256;

/// A change of the registry, which everybody sees under the same number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Of the entry in the log; the first one is 1, and none is left out.
    pub number: u64,
    /// What [`LogEntry`] it is: `published`, `aliased`, `alias-removed`, `deleted`, `routed` or `edited`.
    pub kind: String,
    pub model: String,
    pub version: Option<u64>,
    pub alias: Option<String>,
    /// Milliseconds since 1970, where the entry says when it was.
    pub at_unix_ms: Option<u64>,
    /// In a line.
    pub text: String,
    /// Seal of the entry: a BLAKE3 over it and the seal of the one before.
    pub seal: String,
}

/// Some events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    pub events: Vec<Event>,
    /// The newest number of the log, as far as it was read; 0 while it is empty.
    pub last: u64,
    /// The oldest event that is remembered.
    pub oldest: u64,
}

/// The newest events.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents {
    all: VecDeque<Event>,
}

impl RecentEvents {
    /// Numbers rise by one.
    pub(crate) fn push(&mut self, number: u64, entry: &LogEntry, seal: &str) {
        if self.all.len() == EVENTS_MAX {
            self.all.pop_front();
        }
        self.all.push_back(Event::of(number, entry, seal));
    }

    /// At most `limit` events behind `after`; without it the newest.
    pub(crate) fn read(&self, after: Option<u64>, limit: usize) -> Events {
        let limit = limit.min(EVENTS_PAGE_MAX);
        let last = self.all.back().map_or(0, |event| event.number);
        let oldest = self.all.front().map_or(0, |event| event.number);
        let events = match after {
            None => self.all.iter().skip(self.all.len().saturating_sub(limit)).cloned().collect(),
            Some(after) => {
                let behind = self.all.partition_point(|event| event.number <= after);
                self.all.iter().skip(behind).take(limit).cloned().collect()
            }
        };
        Events { events, last, oldest }
    }
}

impl Event {
    fn of(number: u64, entry: &LogEntry, seal: &str) -> Self {
        let mut event = Self {
            number,
            kind: String::new(),
            model: String::new(),
            version: None,
            alias: None,
            at_unix_ms: None,
            text: entry.to_string(),
            seal: seal.to_owned(),
        };
        let (kind, model) = match entry {
            LogEntry::Published { description } => {
                event.version = Some(description.version);
                event.at_unix_ms = Some(description.created_unix_ms);
                ("published", &description.model)
            }
            LogEntry::Aliased { model, alias, version } => {
                (event.version, event.alias) = (Some(*version), Some(alias.clone()));
                ("aliased", model)
            }
            LogEntry::AliasRemoved { model, alias } => {
                event.alias = Some(alias.clone());
                ("alias-removed", model)
            }
            LogEntry::Deleted { model, version } => {
                event.version = Some(*version);
                ("deleted", model)
            }
            LogEntry::Routed { model, .. } => ("routed", model),
            LogEntry::Edited { edit, at_unix_ms } => {
                event.at_unix_ms = Some(*at_unix_ms);
                event.model = edit.model().to_owned();
                event.kind = "edited".to_owned();
                return event;
            }
        };
        (event.kind, event.model) = (kind.to_owned(), model.clone());
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(count: u64) -> RecentEvents {
        let mut events = RecentEvents::default();
        for number in 1..=count {
            let entry = LogEntry::Aliased { model: "m".into(), alias: "a".into(), version: number };
            events.push(number, &entry, "seal");
        }
        events
    }

    fn numbers(events: &Events) -> Vec<u64> {
        events.events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_feed_goes_on_behind_what_was_read_and_begins_with_the_newest() {
        let recent = events(9);
        assert_eq!(numbers(&recent.read(Some(6), 2)), [7, 8]);
        assert_eq!(numbers(&recent.read(Some(8), 2)), [9]);
        assert_eq!(numbers(&recent.read(Some(9), 2)), [0; 0]);
        assert_eq!(numbers(&recent.read(None, 2)), [8, 9]);
        assert_eq!(recent.read(Some(u64::MAX), 2).last, 9);
        assert_eq!(RecentEvents::default().read(None, 2), Events::default());
    }

    #[test]
    fn old_events_are_forgotten_and_pages_are_bounded() {
        let recent = events(EVENTS_MAX as u64 + 10);
        let read = recent.read(Some(0), usize::MAX);
        assert_eq!((read.oldest, read.last), (11, EVENTS_MAX as u64 + 10));
        assert_eq!(read.events.len(), EVENTS_PAGE_MAX);
        assert_eq!(read.events[0].number, 11);
    }

    #[test]
    fn an_event_says_what_happened() {
        let read = events(1).read(None, 1);
        let event = &read.events[0];
        assert_eq!((event.kind.as_str(), event.version), ("aliased", Some(1)));
        assert_eq!(event.text, "a of m is version 1");
    }
}
