//! Nodes' own log lines as events of the trace.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::network::Network;
use super::trace::{EventKind, NodeIndex};

thread_local! {
    /// Whose code runs now.
    static SPEAKER: Cell<Option<NodeIndex>> = const { Cell::new(None) };
}

/// Log lines are this node's until the next call.
pub(super) fn speaks(node: Option<NodeIndex>) {
    SPEAKER.set(node);
}

/// Takes what is INFO or worse.
#[derive(Debug)]
pub(super) struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let Some(node) = SPEAKER.get() else { return };
        let mut line = Line::default();
        event.record(&mut line);
        let Line { message, fields } = line;
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
