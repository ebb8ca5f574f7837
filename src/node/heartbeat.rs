//! The node's word for its actors, to each coordinator: one that follows may lead soon.

use std::rc::Rc;
use std::time::Duration;

use actix::Recipient;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::messages::{Heartbeat, HeartbeatAck, HeartbeatError, Member, ask};
use gradmesh_actors::plan::JobOffer;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use crate::peer::Reach;
use crate::supervisor::Vitals;

/// Who is watched, and what is said of them.
#[derive(Clone)]
pub(super) struct Pulse {
    pub(super) node: String,
    pub(super) life: Incarnation,
    pub(super) members: Vec<(Member, Vitals)>,
    pub(super) offer: Option<JobOffer>,
    pub(super) every: Duration,
    /// Whoever of them has another life now.
    pub(super) changed: watch::Receiver<()>,
    /// Keeps the links to coordinators calling: one that was cut off for a moment is not gone.
    pub(super) _calling: Rc<[watch::Receiver<Reach>]>,
}

/// Heartbeats that are waited for, in heartbeats: the answer to one is of use for no longer.
const ANSWER_MAX: u32 = 4;

impl Pulse {
    /// Beats until the node ends: at its times, whether the one before was answered or not, and when an
    /// actor has begun another life. What a network has lost of one is sent again when the next one
    /// arrives, not when nothing else does.
    pub(super) async fn run(mut self, coordinator: Recipient<Heartbeat>) {
        let mut offer_wanted = true;
        let mut due = interval(self.every);
        // After a pause the next beat is at once, and the beats that it cost are not made up for.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = FuturesUnordered::new();
        loop {
            let answer = select! { biased;
                Some(answer) = asked.next() => Some(answer),
                _ = due.tick() => None,
                Ok(()) = self.changed.changed() => None,
            };
            let now_wanted = match answer {
                None => true,
                Some(Ok(HeartbeatAck { offer_wanted: wanted, .. })) => {
                    let before = std::mem::replace(&mut offer_wanted, wanted);
                    wanted && !before
                }
                Some(Err(HeartbeatError::NotLeading)) => {
                    offer_wanted = false;
                    false
                }
                Some(Err(HeartbeatError::Link(error))) => {
                    debug!(%error, "heartbeat not answered");
                    false
                }
                Some(Err(refused)) => {
                    error!(%refused, "the coordinator refuses this node");
                    offer_wanted = true;
                    false
                }
            };
            if now_wanted && asked.len() < ANSWER_MAX as usize {
                let heartbeat = self.heartbeat(offer_wanted);
                asked.push(ask(&coordinator, heartbeat, self.every * ANSWER_MAX));
            }
        }
    }

    fn heartbeat(&self, with_offer: bool) -> Heartbeat {
        let members = self.members.iter().filter_map(|(member, vitals)| {
            let life = vitals.now();
            (!life.gave_up).then_some((*member, life.incarnation))
        });
        Heartbeat {
            node: self.node.clone(),
            life: self.life,
            members: members.collect(),
            offer: self.offer.as_ref().filter(|_| with_offer).cloned().map(Box::new),
        }
    }
}
