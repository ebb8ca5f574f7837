//! What nodes say of themselves: who is there, and what they train.

use std::time::Duration;

use super::{Command, Training};
use crate::messages::{Heartbeat, HeartbeatAck, HeartbeatError, Member};
use crate::plan::{JobOffer, JobPlan};

/// Nodes that are remembered to train the same as the others, far more than a cluster has.
pub(super) const OFFERS_MAX: usize = 1024;

/// What a heartbeat has led to.
#[derive(Debug)]
pub struct Heard {
    pub answer: Result<HeartbeatAck, HeartbeatError>,
    pub commands: Vec<Command>,
    /// Whether the status may be another one. It grows with the cluster, and nearly all heartbeats
    /// say nothing new.
    pub is_news: bool,
    /// Whether the node's beats stand for this from now on.
    pub is_believed: bool,
}

impl Training {
    /// A node's word that its actors live.
    ///
    /// # Errors
    /// The node would train something else than the others, or runs a member beyond the
    /// configuration.
    pub fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Duration) -> Heard {
        let is_news = heartbeat.offer.is_some();
        let without = |answer| Heard { answer, commands: Vec::new(), is_news, is_believed: false };
        if let Err(refused) = self.check_members(heartbeat) {
            return without(Err(refused));
        }
        let new_plan = self.plan.is_none() && heartbeat.offer.is_some();
        let has_workers =
            heartbeat.members.iter().any(|(member, _)| matches!(member, Member::Worker(_)));
        match &heartbeat.offer {
            Some(offer) => {
                if let Err(refused) = self.offered(heartbeat, offer) {
                    return without(Err(refused));
                }
            }
            // Nobody counts before it is known that they train the same.
            None if has_workers && !self.knows(heartbeat) => {
                return without(Ok(HeartbeatAck { view: self.view, offer_wanted: true }));
            }
            None => {}
        }
        let changes = self.members.heard(&heartbeat.node, &heartbeat.members, now);
        let mut commands = self.changed(&changes);
        commands.extend(self.gather(now));
        if new_plan {
            commands.extend(self.read_store());
        }
        let answer = Ok(HeartbeatAck { view: self.view, offer_wanted: false });
        let is_news = is_news || !changes.is_empty() || !commands.is_empty();
        let is_believed = self.members.believes(&heartbeat.node, &heartbeat.members);
        Heard { answer, commands, is_news, is_believed }
    }

    /// Takes the first offer as the job's plan; all others must be the same.
    fn offered(&mut self, from: &Heartbeat, offer: &JobOffer) -> Result<(), HeartbeatError> {
        let other = |what: &str, expected: String, got: String| HeartbeatError::OtherJob {
            node: from.node.clone(),
            what: what.to_owned(),
            expected,
            got,
        };
        if !offer.job.agrees_with(&self.job) {
            return Err(other("configuration", self.job.digest(), offer.job.digest()));
        }
        // Where that node has its data is its own business.
        let offer = &JobOffer { job: self.job.clone(), ..offer.clone() };
        if let Some(plan) = &self.plan {
            let known = &plan.offer;
            if known.data != offer.data {
                return Err(other("data", known.data.digest.clone(), offer.data.digest.clone()));
            }
            if known != offer {
                let kind = |offer: &JobOffer| format!("{:?}", offer.architecture);
                return Err(other("model", kind(known), kind(offer)));
            }
        } else {
            match JobPlan::new(offer.clone(), self.config.shards) {
                Ok(plan) => {
                    self.check_taken_over(&plan.offer.data.digest);
                    self.plan = Some(plan);
                }
                Err(error) => self.fail(error.to_string()),
            }
        }
        if self.recoveries.offered.len() >= OFFERS_MAX {
            // Whoever lives says it again.
            self.recoveries.offered.clear();
        }
        self.recoveries.offered.insert(from.node.clone(), from.life);
        Ok(())
    }

    fn knows(&self, from: &Heartbeat) -> bool {
        self.recoveries.offered.get(&from.node) == Some(&from.life)
    }
}
