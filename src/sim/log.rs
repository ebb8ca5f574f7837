//! Nodes' own log lines as events of the trace.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};

use gradmesh_actors::shard::COMMITS;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::network::Network;
use super::trace::{EventKind, NodeIndex};

thread_local! {
    /// Whose code runs now.
    static SPEAKER: Cell<Option<NodeIndex>> = const { Cell::new(None) };
    /// Steps that shards have applied since [`take_commits`].
    static APPLIED: RefCell<Vec<Commit>> = const { RefCell::new(Vec::new()) };
    /// Orders to restore that shards have obeyed since [`take_restores`].
    static RESTORED: RefCell<Vec<Restore>> = const { RefCell::new(Vec::new()) };
}

/// A step that a shard has applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Commit {
    pub(super) shard: u64,
    /// Who committed it.
    pub(super) server: u64,
    pub(super) view: u64,
    /// What the step has made.
    pub(super) version: u64,
    pub(super) checksum: u64,
}

/// A shard that has gone to a version of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Restore {
    pub(super) node: NodeIndex,
    pub(super) shard: String,
    pub(super) view: u64,
}

impl Restore {
    /// From the log line that says so.
    fn read(node: NodeIndex, fields: &str) -> Option<Self> {
        let value = |name: &str| fields.split_once(name).map(|(_, rest)| rest);
        let shard = value(" shard=")?.split(' ').next()?.to_owned();
        let view = value(" view=view ")?.split(' ').next()?.parse().ok()?;
        Some(Self { node, shard, view })
    }
}

pub(super) fn take_restores() -> Vec<Restore> {
    RESTORED.take()
}

pub(super) fn take_commits() -> Vec<Commit> {
    APPLIED.take()
}

/// Log lines are this node's until the next call.
pub(super) fn speaks(node: Option<NodeIndex>) {
    SPEAKER.set(node);
}

/// Takes what is INFO or worse, and each applied step.
#[derive(Debug)]
pub(super) struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && (*metadata.level() <= Level::INFO || metadata.target() == COMMITS)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::TRACE)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(node) = SPEAKER.get() else { return };
        if event.metadata().target() == COMMITS {
            let mut commit = Commit::default();
            event.record(&mut commit);
            return APPLIED.with_borrow_mut(|applied| applied.push(commit));
        }
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
        if message == "shard restored"
            && let Some(restore) = Restore::read(node, &fields)
        {
            RESTORED.with_borrow_mut(|restored| restored.push(restore));
        }
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR ",
            Level::WARN => "WARN ",
            _ => "",
        };
        let restart =
            event.metadata().target() == "gradmesh::supervisor" && message == "restarting";
        Network::with(|wires| {
            wires.actor_restarts += u64::from(restart);
            wires.note(EventKind::Said { node, text: format!("{level}{message}{fields}") });
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Commit {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "shard" => self.shard = value,
            "server" => self.server = value,
            "view" => self.view = value,
            "checksum" => self.checksum = value,
            _ => self.version = value,
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a `String` doesn't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_is_restored_says_so_in_words_that_are_understood() {
        let restore = Restore::read(3, " shard=shard-1 view=view 12 version=version 40");
        assert_eq!(restore, Some(Restore { node: 3, shard: "shard-1".to_owned(), view: 12 }));
    }
}
