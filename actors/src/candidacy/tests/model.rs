//! Three candidates and a model of the store, a millisecond at a time.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::*;

/// From here on nothing goes wrong.
const HEALED: u64 = 12_000;
/// A lease and the last place's turn; then an observation and an append, 5 ms a way each, and a
/// beat. Clocks run a twentieth too slow.
const LEADER_WITHIN: u64 = 1_600;
/// Three leases, by the slowest clock.
const GIVES_WAY_FOR: u64 = 3_000 * 20 / 19;
const END: u64 = HEALED + 6_000;

#[derive(Clone, Debug)]
enum Ask {
    Observe,
    Append(Entry),
    Renew(Beat),
    Resign(Resign),
}

#[derive(Clone, Debug)]
enum Answer {
    Observed(Observed),
    Won,
    Taken(Entry),
    Renewed,
    Superseded,
    Resigned,
}

/// A request on its way: what it does is done at one time and heard of at another.
#[derive(Clone, Debug)]
struct Flight {
    ask: Ask,
    /// By the asker's clock.
    asked: Duration,
    arrives: u64,
    returns: u64,
    lost: bool,
    answer: Option<Answer>,
}

struct Store {
    log: Vec<Entry>,
    beat: Option<Beat>,
}

impl Store {
    fn answer(&mut self, ask: &Ask) -> Answer {
        let newest = self.log.last().cloned();
        match ask {
            Ask::Observe => Answer::Observed(Observed { newest, beat: self.beat.clone() }),
            Ask::Append(entry) => match self.log.get(entry.view.0 as usize - 1) {
                Some(there) if there == entry && newest.as_ref() == Some(entry) => Answer::Won,
                Some(_) => Answer::Taken(newest.unwrap()),
                None => {
                    assert_eq!(entry.view.0 as usize, self.log.len() + 1, "a gap");
                    self.log.push(entry.clone());
                    Answer::Won
                }
            },
            Ask::Renew(beat) if newest.is_some_and(|e| e.term == beat.term) => {
                self.beat = Some(beat.clone());
                Answer::Renewed
            }
            Ask::Renew(_) => Answer::Superseded,
            Ask::Resign(resign) => {
                self.beat.take_if(|beat| beat.term == resign.term && beat.leader == resign.leader);
                Answer::Resigned
            }
        }
    }
}

struct Node {
    rule: Candidacy,
    life: u64,
    /// In thousandths.
    speed: u64,
    paused_until: u64,
    look_at: Duration,
    flight: Option<Flight>,
    /// Of lives that are over.
    orphans: Vec<Flight>,
}

impl Node {
    fn clock(&self, now: u64) -> Duration {
        Duration::from_micros(now * self.speed)
    }

    fn name(index: usize) -> String {
        ["a", "b", "c"][index].to_owned()
    }

    /// As one whose name nobody else can have, or may have.
    fn new(index: usize, life: u64, speed: u64, namesakes: bool) -> Self {
        let alone = candidacy(&Self::name(index), index as u32);
        Self {
            rule: if namesakes { alone.with_namesakes() } else { alone },
            life,
            speed,
            paused_until: 0,
            look_at: Duration::ZERO,
            flight: None,
            orphans: Vec::new(),
        }
    }
}

struct Model {
    rng: ChaCha8Rng,
    nodes: Vec<Node>,
    store: Store,
    /// Who acted in each term.
    acted: BTreeMap<Term, (usize, u64)>,
    changes: usize,
    namesakes: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let namesakes = seed.is_multiple_of(2);
        let mut node = |index| Node::new(index, 0, 950 + rng.next_u64() % 101, namesakes);
        let nodes = (0..3).map(&mut node).collect();
        let store = Store { log: Vec::new(), beat: None };
        Self { rng, nodes, store, acted: BTreeMap::new(), changes: 0, namesakes }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound
    }

    fn ask(&mut self, index: usize, ask: Ask, now: u64) {
        let calm = now >= HEALED;
        let slow = !calm && self.below(8) == 0;
        let mut way = || self.rng.next_u64() % if slow { 1500 } else { 5 } + 1;
        let arrives = now + way();
        let returns = arrives + way();
        let lost = !calm && self.below(10) == 0;
        let asked = self.nodes[index].clock(now);
        let flight = Flight { ask, asked, arrives, returns, lost, answer: None };
        self.nodes[index].flight = Some(flight);
    }

    fn trouble(&mut self, now: u64) {
        for index in 0..3 {
            match self.below(3000) {
                0 => self.nodes[index].paused_until = now + self.below(4000),
                1 => {
                    let (life, speed) = (self.nodes[index].life + 1, self.nodes[index].speed);
                    let next = Node::new(index, life, speed, self.namesakes);
                    let dead = std::mem::replace(&mut self.nodes[index], next);
                    let back = now + self.below(2000);
                    let node = &mut self.nodes[index];
                    node.orphans = dead.orphans;
                    node.orphans.extend(dead.flight);
                    node.paused_until = back;
                }
                _ => {}
            }
        }
    }

    /// What has come to the store does its work, whether its sender still lives or not.
    fn arrivals(&mut self, now: u64) {
        for node in &mut self.nodes {
            for flight in node.flight.iter_mut().chain(&mut node.orphans) {
                if flight.arrives == now {
                    flight.answer = Some(self.store.answer(&flight.ask));
                }
            }
        }
    }

    fn act(&mut self, index: usize, now: u64) {
        let clock = self.nodes[index].clock(now);
        if now < self.nodes[index].paused_until {
            return;
        }
        if let Some(flight) = self.nodes[index].flight.take_if(|flight| flight.returns <= now) {
            self.answered(index, flight, now);
        }
        // Nobody may have given way for so long, when all is well, that nobody stands.
        let gives_way = now + GIVES_WAY_FOR < HEALED && self.below(4000) == 0;
        let node = &mut self.nodes[index];
        if gives_way && let Some(resign) = node.rule.give_way(clock) {
            // What was under way is done all the same.
            node.orphans.extend(node.flight.take());
            self.ask(index, Ask::Resign(resign), now);
        } else if node.flight.is_none() && clock >= node.look_at {
            self.ask(index, Ask::Observe, now);
        }
    }

    fn answered(&mut self, index: usize, flight: Flight, now: u64) {
        let clock = self.nodes[index].clock(now);
        let Flight { ask, asked, lost, answer, .. } = flight;
        let node = &mut self.nodes[index];
        node.look_at = clock + node.rule.look_again_in(clock);
        if lost {
            // Of a renewal nothing is known; an append is asked for again until it is known.
            if let Ask::Append(_) = ask {
                self.ask(index, ask, now);
            }
            return;
        }
        let rule = &mut node.rule;
        match (answer.unwrap(), ask) {
            (Answer::Observed(observed), _) => match rule.observed(&observed, asked, clock) {
                Next::Lead { term } if self.rng.next_u64().is_multiple_of(6) => {
                    let view = observed.newest.unwrap().view.next().unwrap();
                    self.stand(index, view, term, now);
                }
                Next::Lead { .. } => {
                    let beat = rule.beat().unwrap();
                    self.ask(index, Ask::Renew(beat), now);
                }
                Next::Stand { view, term } => self.stand(index, view, term, now),
                Next::Follow { .. } | Next::Wait => {
                    node.look_at = clock + node.rule.look_again_in(clock);
                }
            },
            (Answer::Won, Ask::Append(entry)) => {
                rule.won(&entry, asked);
                node.look_at = clock;
            }
            (Answer::Taken(newest), _) => rule.lost(&newest, clock),
            (Answer::Renewed | Answer::Superseded | Answer::Resigned, _) => {}
            (answer, ask) => panic!("{answer:?} to {ask:?}"),
        }
    }

    fn stand(&mut self, index: usize, view: View, term: Term, now: u64) {
        // As a coordinator: whatever tells lives apart is in the state.
        let state = Bytes::from(format!("{index} {} {now}", self.nodes[index].life));
        let leader = Node::name(index);
        self.nodes[index].rule.tries(term);
        self.ask(index, Ask::Append(Entry { view, term, leader, state }), now);
    }

    fn leaders(&self) -> Vec<(usize, Term)> {
        let led = |index: usize| Some((index, self.nodes[index].rule.leads_in()?));
        (0..3).filter_map(led).collect()
    }

    /// The number of leaderships and of views.
    fn run(mut self) -> Result<(usize, usize), TestCaseError> {
        let mut led_at = None;
        for now in 1..END {
            if now < HEALED {
                self.trouble(now);
            } else if now == HEALED {
                self.nodes.iter_mut().for_each(|node| node.paused_until = 0);
            }
            self.arrivals(now);
            for index in 0..3 {
                self.act(index, now);
            }
            let newest = self.store.log.last().map(|entry| entry.term);
            for (index, term) in self.leaders() {
                let life = self.nodes[index].life;
                let acted = *self.acted.entry(term).or_insert((index, life));
                prop_assert_eq!(acted, (index, life), "{} at {}", term, now);
                if Some(term) == newest && now >= HEALED {
                    led_at = led_at.or(Some(now));
                }
            }
            let late = now == HEALED + LEADER_WITHIN + 3_000 && led_at.is_none();
            prop_assert!(!late, "nobody leads");
        }
        // A request of the time before may still have been slow.
        let within = led_at.unwrap().saturating_sub(HEALED + 3_000);
        prop_assert!(within <= LEADER_WITHIN, "{within} ms");
        prop_assert_eq!(self.leaders().len(), 1);
        for (at, pair) in self.store.log.windows(2).enumerate() {
            prop_assert_eq!(pair[0].view.0, at as u64 + 1);
            let same = pair[0].term == pair[1].term && pair[0].leader == pair[1].leader;
            prop_assert!(same || pair[0].term.next() == Some(pair[1].term), "{:?}", pair);
        }
        self.changes = self.acted.len();
        Ok((self.changes, self.store.log.len()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_leader_acts_a_term_and_somebody_leads_after_healing(seed in any::<u64>()) {
        Model::new(seed).run()?;
    }
}

/// Or the property above would say nothing.
#[test]
fn leaders_change_and_raise_views_under_the_models_faults() {
    let (mut leaders, mut views) = (0, 0);
    for seed in 0..20 {
        let (more_leaders, more_views) = Model::new(seed).run().unwrap();
        leaders += more_leaders;
        views += more_views;
    }
    assert!(leaders > 60, "{leaders}");
    assert!(views > 2 * leaders, "{views}");
}
