//! The node's word for its actors, to each coordinator: one that follows may lead soon.
//!
//! The word says who is there. It is said until it is answered, again when that has changed, and when the
//! coordinator calls the roll. In between a beat of the link says that the process lives, and costs no
//! actor a turn.

use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use actix::Recipient;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use gradmesh_actors::ids::Incarnation;
use gradmesh_actors::messages::{Heartbeat, HeartbeatAck, HeartbeatError, Member, ask};
use gradmesh_actors::plan::JobOffer;
use gradmesh_actors::presence::WordId;
use tokio::select;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use crate::peer::{Link, Reach};
use crate::supervisor::Vitals;
use crate::wire::WhenWoken;

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

/// Words that are waited for, in heartbeats: the answer to one is of use for no longer.
const ANSWER_MAX: u32 = 4;

impl Pulse {
    /// Beats until the node ends: at its times, whether the word before was answered or not, and when an
    /// actor has begun another life. What a network has lost of one is sent again when the next one
    /// arrives, not when nothing else does.
    ///
    /// `link` leads to the coordinator's node. Where that is this one there is none, and each beat is a word.
    pub(super) async fn run(self, coordinator: Recipient<Heartbeat>, link: Option<Link>) {
        let mut offer_wanted = true;
        // What there is to say, counted, and what of it the coordinator knows.
        let (mut news, mut known) = (1u32, 0);
        let mut due = interval(self.every);
        // After a pause the next beat is at once, and the beats that it cost are not made up for.
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let roll_calls = link.as_ref().map(Link::roll_calls);
        // Asked when there is some, not with each beat.
        let mut coming = WhenWoken::new(news_come(self.changed.clone(), roll_calls).boxed_local());
        let mut asked = FuturesUnordered::new();
        // Said again with each beat, and told once.
        let mut told = None;
        loop {
            let answer = select! { biased;
                Some(answer) = asked.next(), if !asked.is_empty() => Some(answer),
                _ = due.tick() => None,
                (changed, roll_calls) = &mut coming => {
                    coming = WhenWoken::new(news_come(changed, roll_calls).boxed_local());
                    news = news.wrapping_add(1);
                    None
                }
            };
            let beats = match answer {
                None => true,
                Some((of, Ok(HeartbeatAck { offer_wanted: wanted, .. }))) => {
                    let before = std::mem::replace(&mut offer_wanted, wanted);
                    if !wanted {
                        (known, told) = (of, None);
                    }
                    wanted && !before
                }
                // It calls the roll when it leads.
                Some((of, Err(HeartbeatError::NotLeading))) => {
                    (offer_wanted, known) = (false, of);
                    false
                }
                Some((_, Err(HeartbeatError::Link(error)))) => {
                    debug!(%error, "heartbeat not answered");
                    false
                }
                Some((_, Err(refused))) => {
                    if told.as_ref() != Some(&refused) {
                        error!(%refused, "the coordinator refuses this node");
                        told = Some(refused);
                    }
                    offer_wanted = true;
                    false
                }
            };
            match &link {
                _ if !beats => {}
                Some(link) if known == news => {
                    link.beat(WordId { life: self.life, number: news });
                }
                _ if asked.len() < ANSWER_MAX as usize => {
                    let (word, limit) = (self.word(news, offer_wanted), self.every * ANSWER_MAX);
                    let (coordinator, of) = (&coordinator, news);
                    asked.push(async move { (of, ask(coordinator, word, limit).await) });
                }
                _ => {}
            }
        }
    }

    fn word(&self, number: u32, with_offer: bool) -> Heartbeat {
        let members = self.members.iter().filter_map(|(member, vitals)| {
            let life = vitals.now();
            (!life.gave_up).then_some((*member, life.incarnation))
        });
        Heartbeat {
            node: self.node.clone(),
            life: self.life,
            number,
            members: members.collect(),
            offer: self.offer.as_ref().filter(|_| with_offer).cloned().map(Box::new),
        }
    }
}

/// Waits until an actor has begun another life, or the roll is called.
async fn news_come(
    mut changed: watch::Receiver<()>,
    mut roll_calls: Option<watch::Receiver<()>>,
) -> (watch::Receiver<()>, Option<watch::Receiver<()>>) {
    select! { biased;
        () = has_changed(Some(&mut changed)) => {}
        () = has_changed(roll_calls.as_mut()) => {}
    }
    (changed, roll_calls)
}

/// Waits for a change, for ever where there will be none.
async fn has_changed(watched: Option<&mut watch::Receiver<()>>) {
    let changed = async { watched?.changed().await.ok() };
    if changed.await.is_none() {
        pending().await
    }
}
