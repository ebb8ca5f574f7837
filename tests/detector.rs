//! The default settings of the detector: no false alarm over a network that loses messages and with
//! processes that stall, and whoever is gone is noticed in time. Simulated time, the rule itself.
//!
//! What is modelled is one node and its coordinator. Beats leave at `detector.heartbeat_ms`, each
//! in a segment of one TCP connection, where a lost one holds back all behind it. It is sent again
//! as Linux does: when the acknowledgement of a segment that was sent after it arrives (RACK), and
//! after 200 ms, then 400 ms and so on, without progress; acknowledgements are lost as often as
//! segments. The probes that Linux adds to this are left out, so the real one is better. A stalled
//! node sends nothing, and then one beat for all that it missed; a stalled coordinator reads
//! nothing, and when it goes on it looks at its deadlines before it reads. Its ticks are those of
//! `actors/src/coordinator/silence.rs`.
//!
//! `GRADMESH_NODE_HOURS=10000 cargo test --release --test detector` runs all of it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;
use std::time::Duration;

use gradmesh::config::{Config, DetectorConfig};
use gradmesh_actors::ids::{Incarnation, WorkerId};
use gradmesh_actors::membership::Membership;
use gradmesh_actors::messages::Member;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const MEMBERS: [(Member, Incarnation); 1] = [(Member::Worker(WorkerId(0)), Incarnation(1))];
/// One way, in milliseconds.
const LATENCY: u64 = 5;
const RESEND_AFTER: u64 = 200;
const TICK: u64 = 100;
const LATE: u64 = 200;
const STALL: u64 = 500;
/// On average from one stall of a process to its next one.
const STALL_EVERY: u64 = 60_000;
/// At least, from the beginning of one to that of the next: two in a row would be one of a second.
const STALL_APART: u64 = 2000;
const HOUR: u64 = 3_600_000;
/// What the defaults promise.
const NOTICED_IN: u64 = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    Beat,
    Arrives {
        number: u64,
    },
    /// The receiver has all before `whole`, and those whose bits are set after it.
    Acknowledged {
        whole: u64,
        beyond: u64,
    },
    NodeStalls,
    CoordinatorStalls,
    HangsUp,
}

/// How the node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGSTOP: its kernel sends what it has.
    Silent,
    /// Nothing arrives any more.
    CutOff,
    /// `kill -9`: calls are refused, and its kernel ends its connections.
    Killed,
    /// Its machine has started anew: calls are refused, and nobody ends the connections.
    Rebooted,
}

struct World {
    detector: DetectorConfig,
    loss_percent: u64,
    rng: ChaCha8Rng,
    now: u64,
    due: BinaryHeap<Reverse<(u64, Event)>>,
    /// When the segments from `first` on were sent last, and whether they are known to be there.
    sent: VecDeque<(u64, bool)>,
    first: u64,
    resend_after: u64,
    resend_at: u64,
    whole: u64,
    beyond: u64,
    ended: Option<End>,
    node_stalled_to: u64,
    coordinator_stalled_to: u64,
    /// Beats that arrived at a coordinator that was stalled.
    unread: bool,
    members: Membership,
    ticked: u64,
}

impl World {
    fn new(seed: u64, loss_percent: u64, stalls: bool) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
        let detector = Config::load(&file, &[], std::iter::empty()).unwrap().detector;
        let mut world = Self {
            members: Membership::new(detector.patience()),
            detector,
            loss_percent,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            due: BinaryHeap::new(),
            sent: VecDeque::new(),
            first: 0,
            resend_after: RESEND_AFTER,
            resend_at: u64::MAX,
            whole: 0,
            beyond: 0,
            ended: None,
            node_stalled_to: 0,
            coordinator_stalled_to: 0,
            unread: false,
            ticked: 0,
        };
        world.members.heard("node", &MEMBERS, Duration::ZERO);
        let phase = world.draw(TICK);
        world.after(phase, Event::Tick);
        world.after(0, Event::Beat);
        if stalls {
            world.stall_later(Event::NodeStalls);
            world.stall_later(Event::CoordinatorStalls);
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    fn is_lost(&mut self) -> bool {
        self.draw(100) < self.loss_percent
    }

    fn after(&mut self, pause: u64, event: Event) {
        self.due.push(Reverse((self.now + pause, event)));
    }

    fn stall_later(&mut self, event: Event) {
        let pause = STALL_APART + self.draw(2 * (STALL_EVERY - STALL_APART));
        self.after(pause, event);
    }

    /// Goes on until `end` or a loss; whether the node was lost.
    fn run_to(&mut self, end: u64) -> bool {
        loop {
            let next = self.due.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
            if next.min(self.resend_at) > end {
                self.now = end;
                return false;
            }
            if self.resend_at < next {
                self.now = self.resend_at;
                self.resend_after *= 2;
                self.send(self.first);
                self.resend_at = self.now + self.resend_after;
                continue;
            }
            let Some(Reverse((at, event))) = self.due.pop() else { return false };
            self.now = at;
            if self.happen(event) {
                return true;
            }
        }
    }

    fn happen(&mut self, event: Event) -> bool {
        match event {
            Event::Tick | Event::CoordinatorStalls if self.now < self.coordinator_stalled_to => {
                self.due.push(Reverse((self.coordinator_stalled_to, event)));
            }
            Event::Beat if self.now < self.node_stalled_to => {
                self.due.push(Reverse((self.node_stalled_to, event)));
            }
            Event::Tick => return self.tick(),
            Event::Beat if self.ended.is_some() => {}
            Event::Beat => {
                self.sent.push_back((0, false));
                self.send(self.first + self.sent.len() as u64 - 1);
                self.after(self.detector.heartbeat_ms, Event::Beat);
            }
            Event::Arrives { number } => self.arrived(number),
            Event::Acknowledged { whole, beyond } => self.acknowledged(whole, beyond),
            Event::HangsUp if self.is_lost() => self.after(RESEND_AFTER, event),
            Event::HangsUp => {
                self.members.connected("node", false, Duration::from_millis(self.now));
            }
            Event::NodeStalls => {
                self.node_stalled_to = self.now + STALL;
                self.stall_later(event);
            }
            Event::CoordinatorStalls => {
                self.coordinator_stalled_to = self.now + STALL;
                self.stall_later(event);
            }
        }
        false
    }

    fn tick(&mut self) -> bool {
        let now = Duration::from_millis(self.now);
        let pause = self.now.saturating_sub(self.ticked + TICK);
        self.ticked = self.now;
        if pause > LATE {
            self.members.stood_still(Duration::from_millis(pause), now);
        }
        if matches!(self.ended, Some(End::Killed | End::Rebooted)) {
            // The link calls more often than this.
            self.members.called("node", 2);
        }
        let lost = !self.members.expire(now).is_empty();
        if std::mem::take(&mut self.unread) && !lost {
            self.members.heard("node", &MEMBERS, now);
        }
        self.after(TICK, Event::Tick);
        lost
    }

    fn send(&mut self, number: u64) {
        if let Some(sent) = self.sent.get_mut((number - self.first) as usize) {
            sent.0 = self.now;
        }
        if self.resend_at == u64::MAX {
            self.resend_at = self.now + self.resend_after;
        }
        if !self.is_lost() && self.ended != Some(End::CutOff) {
            self.after(LATENCY, Event::Arrives { number });
        }
    }

    fn arrived(&mut self, number: u64) {
        if number >= self.whole {
            self.beyond |= 1 << (number - self.whole).min(63);
        }
        let run = self.beyond.trailing_ones();
        if run > 0 {
            self.whole += u64::from(run);
            self.beyond = self.beyond.checked_shr(run).unwrap_or(0);
            if self.now < self.coordinator_stalled_to {
                self.unread = true;
            } else {
                self.members.heard("node", &MEMBERS, Duration::from_millis(self.now));
            }
        }
        if !self.is_lost() {
            let (whole, beyond) = (self.whole, self.beyond);
            self.after(LATENCY, Event::Acknowledged { whole, beyond });
        }
    }

    fn acknowledged(&mut self, whole: u64, beyond: u64) {
        let mut newest = 0;
        while self.first < whole
            && let Some((at, _)) = self.sent.pop_front()
        {
            newest = newest.max(at);
            self.first += 1;
            (self.resend_after, self.resend_at) = (RESEND_AFTER, self.now + RESEND_AFTER);
        }
        for (place, sent) in self.sent.iter_mut().enumerate() {
            let bit = (self.first + place as u64).checked_sub(whole).filter(|bit| *bit < 64);
            sent.1 |= bit.is_some_and(|bit| beyond >> bit & 1 == 1);
            newest = newest.max(if sent.1 { sent.0 } else { 0 });
        }
        let earlier = |(_, (at, there)): &(usize, (u64, bool))| !there && *at < newest;
        let again: Vec<u64> = self
            .sent
            .iter()
            .copied()
            .enumerate()
            .filter(earlier)
            .map(|(place, _)| self.first + place as u64)
            .collect();
        again.into_iter().for_each(|number| self.send(number));
        if self.sent.is_empty() {
            self.resend_at = u64::MAX;
        }
    }
}

fn node_hours() -> u64 {
    std::env::var("GRADMESH_NODE_HOURS").map_or(20, |hours| hours.parse().unwrap())
}

#[test]
fn nobody_is_lost_to_5_percent_of_loss_and_stalls_of_500_ms() {
    for hour in 0..node_hours() {
        let mut world = World::new(hour, 5, true);
        assert!(!world.run_to(HOUR), "hour {hour}: lost after {} ms", world.now);
        assert!(world.whole > HOUR / world.detector.heartbeat_ms * 9 / 10, "beats arrive");
    }
}

/// The test above can fail.
#[test]
fn a_network_that_loses_most_is_an_alarm() {
    assert!((0..10).any(|seed| World::new(seed, 60, true).run_to(HOUR)));
}

#[test]
fn who_is_gone_is_noticed_within_1500_ms() {
    for (end, limit) in [
        (End::Silent, NOTICED_IN),
        (End::CutOff, NOTICED_IN),
        (End::Rebooted, 400),
        // A moment, and a tick.
        (End::Killed, 160),
    ] {
        let mut times: Vec<u64> = (0..2000).map(|seed| time_to_notice(seed, end, 0)).collect();
        times.sort_unstable();
        assert!(times[1999] <= limit, "{end:?}: up to {} ms", times[1999]);
    }
}

/// What was sent before may come late then, so some take longer.
#[test]
fn loss_delays_the_notice_of_few() {
    for end in [End::Silent, End::CutOff, End::Rebooted, End::Killed] {
        let mut times: Vec<u64> = (0..2000).map(|seed| time_to_notice(seed, end, 5)).collect();
        times.sort_unstable();
        println!("{end:?}: p50 {}, p99 {}, max {} ms", times[1000], times[1980], times[1999]);
        assert!(times[1800] <= NOTICED_IN, "{end:?}: {} ms", times[1800]);
    }
}

fn time_to_notice(seed: u64, end: End, loss_percent: u64) -> u64 {
    let mut world = World::new(seed, loss_percent, false);
    let at = 10_000 + world.draw(10_000);
    assert!(!world.run_to(at));
    world.ended = Some(end);
    if end == End::Killed {
        world.after(LATENCY, Event::HangsUp);
    }
    assert!(world.run_to(at + 60_000), "never noticed");
    world.now - at
}
