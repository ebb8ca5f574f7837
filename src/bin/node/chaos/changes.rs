//! Beginnings and ends of a plan's faults, in their order, and what came of each.

use std::time::Duration;

use gradmesh::sim::{Fault, FaultKind, FaultPlan};
use serde::Serialize;
use tracing::{info, warn};

use super::cluster::Cluster;

pub(super) struct Changes {
    faults: Vec<Fault>,
    told: Vec<Told>,
    /// When, whose, and whether it begins; the next one last.
    to_come: Vec<(u64, usize, bool)>,
}

/// A fault, and what it did.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) fault: String,
    pub(super) did: String,
    #[serde(skip)]
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Real processes can't be given it.
    LeftOut,
    ToCome,
    Begun,
}

impl Changes {
    pub(super) fn new(plan: &FaultPlan) -> Self {
        let (mut to_come, mut told) = (Vec::new(), Vec::new());
        for (index, fault) in plan.faults.iter().enumerate() {
            let (state, did) = if needs_simulation(&fault.kind) {
                warn!("{fault} is left out: it needs `node simulate`");
                (State::LeftOut, "left out: needs `node simulate`")
            } else {
                to_come.push((fault.at_ms, index, true));
                to_come.push((fault.at_ms.saturating_add(fault.for_ms), index, false));
                (State::ToCome, "never began: the run was over before")
            };
            told.push(Told { fault: fault.to_string(), did: did.to_owned(), state });
        }
        // Stable: of the same time, what was planned first comes first.
        to_come.sort_by_key(|(at, _, _)| *at);
        to_come.reverse();
        Self { faults: plan.faults.clone(), told, to_come }
    }

    /// Makes what is due.
    pub(super) fn make(
        &mut self,
        now: Duration,
        step: u64,
        cluster: &mut Cluster,
    ) -> anyhow::Result<()> {
        while let Some((at, index, begins)) = self.to_come.last().copied()
            && Duration::from_millis(at) <= now
        {
            self.to_come.pop();
            let (fault, told) = (&self.faults[index], &mut self.told[index]);
            let did = cluster.change(fault, begins)?;
            let seconds = now.as_secs_f64();
            if begins {
                info!(step, "{fault} begins: {did}");
                told.state = State::Begun;
                told.did = format!("{did} at {seconds:.2} s, step {step}");
            } else if fault.for_ms > 0 {
                info!(step, "{fault} is over");
                told.did += &format!("; over at {seconds:.2} s, step {step}");
            }
        }
        Ok(())
    }

    pub(super) fn begun(&self) -> usize {
        self.told.iter().filter(|told| told.state == State::Begun).count()
    }

    /// There were faults to begin, and none did.
    pub(super) fn none_of_some(&self) -> bool {
        self.begun() == 0 && self.told.iter().any(|told| told.state == State::ToCome)
    }

    pub(super) fn told(mut self) -> Vec<Told> {
        for (_, index, begins) in self.to_come {
            if !begins && self.faults[index].for_ms > 0 && self.told[index].state == State::Begun {
                self.told[index].did += "; until the end";
            }
        }
        self.told
    }
}

fn needs_simulation(fault: &FaultKind) -> bool {
    matches!(
        fault,
        FaultKind::FailWrites { .. }
            | FaultKind::SlowDisk { .. }
            | FaultKind::Panic { .. }
            | FaultKind::Clock { .. }
    )
}
