//! What a leader hears and tells of its run beside what the run needs, and what operators want.

use actix::{Context, Handler};
use tracing::{info, warn};

use super::Coordinator;
use crate::messages::{Drain, DrainError, Draining, ReportError, ReportFenced, ReportSpeed};
use crate::training::Event;

impl Coordinator {
    /// Says in the log what has happened since the last time.
    pub(super) fn tell(&mut self) {
        let now = self.now();
        for event in self.training.happened(now) {
            tell(&event);
        }
    }
}

fn tell(event: &Event) {
    let (number, view, kind, took_ms) =
        (event.number, event.view.0, event.kind.name(), event.took_ms);
    if event.kind.is_warning() {
        warn!(number, kind, view, took_ms, "{event}");
    } else {
        info!(number, kind, view, took_ms, "{event}");
    }
}

impl Handler<Drain> for Coordinator {
    type Result = Result<Draining, DrainError>;

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) -> Self::Result {
        if !self.leads() {
            return Err(DrainError::NotLeading);
        }
        let (answer, commands) = self.training.drain(&drain);
        self.carry_out(commands, ctx);
        answer
    }
}

impl Handler<ReportFenced> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportFenced, _: &mut Context<Self>) -> Self::Result {
        if !self.leads() {
            return Err(ReportError::NotLeading);
        }
        let answer = self.training.report_fenced(report);
        self.show();
        answer
    }
}

impl Handler<ReportSpeed> for Coordinator {
    type Result = Result<(), ReportError>;

    fn handle(&mut self, report: ReportSpeed, _: &mut Context<Self>) -> Self::Result {
        if !self.leads() {
            return Err(ReportError::NotLeading);
        }
        // The next tick shows it: many workers report.
        self.training.report_speed(report)
    }
}
