//! Three candidates over the simulated disk, under faults: the rule, the actor and the files
//! together.

use std::path::Path;
use std::time::Duration;

use actix::{Actor, Addr};
use bytes::Bytes;
use gradmesh::node::NodeContext;
use gradmesh::sim::{Seed, Sim, SimNode, Swarm, kill, pause};
use gradmesh::store::coordination::CoordinationStore;
use gradmesh_actors::candidacy::{Candidacy, LeaseTiming, Next};
use gradmesh_actors::ids::{Term, View};
use gradmesh_actors::messages::coordination::{Appended, Entry};
use tokio::time::{Instant, sleep};

use crate::support::{append, observe, renew};

const NAMES: [&str; 3] = ["a", "b", "c"];
const TTL: Duration = Duration::from_secs(1);
const HEALED: Duration = Duration::from_secs(10);
/// A disk that is slow or full at the end of the faults may hold a request for a second more.
const CALM: Duration = Duration::from_secs(15);

struct Candidate {
    node: SimNode,
    store: Addr<CoordinationStore>,
    rule: Candidacy,
    start: Instant,
}

impl Candidate {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn show(&self) {
        self.node.show("leads", i64::from(self.rule.leads_in().is_some()));
    }

    async fn stand(&mut self, view: View, term: Term) -> Result<(), String> {
        let state = Bytes::from(self.node.entropy().to_string());
        let entry = Entry { view, term, leader: self.node.name().to_owned(), state };
        loop {
            let asked_at = self.now();
            match append(&self.store, entry.clone()).await {
                Ok(Appended::Won) => {
                    self.rule.won(&entry, asked_at);
                    self.node.show("term", term.0 as i64);
                    return Ok(());
                }
                Ok(Appended::Taken(newest)) => {
                    self.rule.lost(&newest, self.now());
                    return Ok(());
                }
                Err(error) if error.may_pass() => sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn look(&mut self, raises: bool) -> Result<(), String> {
        let asked_at = self.now();
        let observed = observe(&self.store).await.map_err(|error| error.to_string())?;
        let view = observed.newest.as_ref().map_or(View(0), |newest| newest.view);
        self.node.show("view", view.0 as i64);
        match self.rule.observed(&observed, asked_at, self.now()) {
            Next::Lead { term } if raises => self.stand(view.next().unwrap(), term).await,
            Next::Stand { view, term } => self.stand(view, term).await,
            Next::Lead { .. } => {
                let Some(beat) = self.rule.beat() else { return Ok(()) };
                // The next look says what came of it.
                renew(&self.store, beat).await.ok();
                Ok(())
            }
            Next::Follow { .. } | Next::Wait => Ok(()),
        }
    }
}

async fn candidate(node: SimNode) -> Result<(), String> {
    let disk = node.open_store("coordination", Path::new(".")).map_err(|e| e.to_string())?;
    let store = CoordinationStore::in_folder(disk.objects, "coordination").start();
    let place = NAMES.iter().position(|name| *name == node.name()).unwrap();
    let rule = Candidacy::new(node.name(), LeaseTiming::of(TTL), place as u32);
    let mut candidate = Candidate { node, store, rule, start: Instant::now() };
    for looks in 1_u64.. {
        candidate.look(looks.is_multiple_of(5)).await?;
        candidate.show();
        sleep(candidate.rule.look_again_in(candidate.now())).await;
        candidate.show();
    }
    Ok(())
}

fn candidates() -> Sim {
    let sim = NAMES.iter().fold(Sim::new(), |sim, name| sim.node(name, candidate));
    sim.until(|world| {
        let leaders = NAMES.iter().filter(|name| world.value(name, "leads") == Some(1)).count();
        let views: Vec<_> = NAMES.iter().filter_map(|name| world.value(name, "view")).collect();
        let agree = views.len() == NAMES.len() && views.iter().all(|view| *view == views[0]);
        world.now() > CALM && leaders == 1 && agree
    })
    .always("a term is led by one candidate", |world| {
        let mut terms: Vec<_> = NAMES.iter().filter_map(|name| world.value(name, "term")).collect();
        terms.sort_unstable();
        terms.windows(2).all(|pair| pair[0] != pair[1])
    })
    .sometimes("the last place has led", |world| world.value("c", "term").is_some())
    .sometimes("a third leadership began", |world| {
        NAMES.iter().any(|name| world.value(name, "term") >= Some(3))
    })
    .limit(Duration::from_secs(30))
}

#[test]
fn a_leader_that_is_killed_or_paused_is_succeeded_within_two_leases() {
    for fault in [kill("a"), pause("a")] {
        let sim = candidates().faults([fault.at("2s").for_("6s")]).eventually(
            "another one leads within two leases",
            |world| {
                let led = |name: &&str| world.value(name, "leads") == Some(1);
                world.now() < Duration::from_secs(4) && ["b", "c"].iter().any(led)
            },
        );
        let report = sim.run(Seed(1));
        assert!(report.broken.is_none(), "{report}");
    }
}

#[test]
fn somebody_leads_after_any_faults_and_no_term_has_two_leaders() {
    let sim = candidates().swarm(Swarm::default().until(HEALED));
    let (mut last_place, mut third) = (false, false);
    for seed in 0..200 {
        let report = sim.run(Seed(seed));
        assert!(report.broken.is_none(), "{report}");
        last_place |= report.sometimes.iter().any(|name| name == "the last place has led");
        third |= report.sometimes.iter().any(|name| name == "a third leadership began");
    }
    assert!(last_place && third);
}
