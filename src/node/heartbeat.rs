//! The node's word for its actors, to each coordinator: one that follows may lead soon.

use std::time::Duration;

use actix::Recipient;
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::messages::{Heartbeat, HeartbeatError, Member, ask};
use gradmesh_actors::plan::JobOffer;
use tracing::{debug, error};

use crate::supervisor::Vitals;

/// Who is watched, and what is said of them.
#[derive(Clone)]
pub(super) struct Pulse {
    pub(super) node: String,
    pub(super) life: Incarnation,
    pub(super) members: Vec<(Member, Vitals)>,
    pub(super) offer: Option<JobOffer>,
    pub(super) every: Duration,
}

impl Pulse {
    /// Beats until the node ends.
    pub(super) async fn run(self, coordinator: Recipient<Heartbeat>) {
        let mut offer_wanted = true;
        loop {
            let members = self.members.iter().filter_map(|(member, vitals)| {
                let life = vitals.now();
                (!life.gave_up).then_some((*member, life.incarnation))
            });
            let offer = self.offer.as_ref().filter(|_| offer_wanted).cloned().map(Box::new);
            let heartbeat = Heartbeat {
                node: self.node.clone(),
                life: self.life,
                members: members.collect(),
                offer,
            };
            match ask(&coordinator, heartbeat, self.every * 4).await {
                Ok(ack) => {
                    let asked_now = ack.offer_wanted && !offer_wanted;
                    offer_wanted = ack.offer_wanted;
                    if asked_now {
                        continue;
                    }
                }
                Err(HeartbeatError::NotLeading) => offer_wanted = false,
                Err(HeartbeatError::Link(error)) => debug!(%error, "heartbeat not answered"),
                Err(refused) => {
                    error!(%refused, "the coordinator refuses this node");
                    offer_wanted = true;
                }
            }
            tokio::time::sleep(self.every).await;
        }
    }
}
