//! Plans of kills and pauses at random instants, and the rounds in which they are tried.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use gradmesh::config::{NodeConfig, Role};
use gradmesh::sim::{Fault, FaultPlan, kill, pause};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A round is short, so that the next one also hits the start of a run.
const FAULTS_A_ROUND: u64 = 12;
/// Of so many instants one is of two nodes at once, and of so many faults one is a pause.
const ONE_OF: u64 = 4;
/// The longest time that a killed node stays down.
const DOWN_MAX: Duration = Duration::from_millis(600);
/// The longest pause: longer than `detector.dead_after_ms` is by default, so that some wake up as
/// zombies.
const PAUSE_MAX: Duration = Duration::from_millis(2500);

/// What is hit, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    /// Of all rounds.
    pub(crate) kills: usize,
    /// Nodes that have one of them; all where there are none.
    pub(crate) roles: Vec<Role>,
    pub(crate) seed: u64,
    /// Between two instants, on average.
    pub(crate) every: Duration,
}

impl Random {
    /// # Errors
    /// No node has one of the roles, or nothing would be hit.
    pub(crate) fn check(&self, nodes: &[NodeConfig]) -> anyhow::Result<()> {
        if self.kills == 0 {
            bail!("no kills test nothing; raise --kills");
        }
        if self.victims(nodes).is_empty() {
            let roles: Vec<String> = self.roles.iter().map(ToString::to_string).collect();
            bail!("no node has the role {}; change --role or [[nodes]]", roles.join(" or "));
        }
        Ok(())
    }

    fn victims<'a>(&self, nodes: &'a [NodeConfig]) -> Vec<&'a str> {
        let hit = |node: &&NodeConfig| {
            self.roles.is_empty() || node.roles.iter().any(|role| self.roles.contains(role))
        };
        nodes.iter().filter(hit).map(|node| &*node.name).collect()
    }

    /// The plan of a round, the same for the same seed.
    pub(crate) fn plan(&self, round: u64, nodes: &[NodeConfig]) -> FaultPlan {
        let victims = self.victims(nodes);
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(self.seed));
        draw.0.set_stream(round);
        let (mut faults, mut at) = (Vec::new(), 0);
        for _ in 0..FAULTS_A_ROUND {
            at += draw.below(2 * millis(self.every));
            let one = draw.below(victims.len() as u64);
            faults.push(draw.fault(victims[one as usize], at));
            if victims.len() > 1 && draw.below(ONE_OF) == 0 {
                let other = (one + 1 + draw.below(victims.len() as u64 - 1)) % victims.len() as u64;
                faults.push(draw.fault(victims[other as usize], at));
            }
        }
        FaultPlan { faults }
    }
}

/// Where a round's plan is kept, to be run again with `node chaos FILE`.
pub(crate) fn keep(plan: &FaultPlan, folder: &Path) -> anyhow::Result<()> {
    Ok(std::fs::write(folder.join("plan.toml"), plan.to_toml())?)
}

struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    fn fault(&mut self, node: &str, at_ms: u64) -> Fault {
        let (fault, longest) =
            if self.below(ONE_OF) == 0 { (pause(node), PAUSE_MAX) } else { (kill(node), DOWN_MAX) };
        Fault { at_ms, for_ms: 1 + self.below(millis(longest)), ..fault }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use gradmesh::sim::FaultKind;

    use super::*;

    fn nodes() -> Vec<NodeConfig> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let node = |name: &str, role| NodeConfig {
            name: name.to_owned(),
            address,
            roles: vec![role],
            listen: None,
            grpc_listen: None,
        };
        vec![node("main", Role::Coordinator), node("a", Role::Server), node("b", Role::Server)]
    }

    fn random(roles: &[Role]) -> Random {
        let every = Duration::from_millis(500);
        Random { kills: 1, roles: roles.to_vec(), seed: 7, every }
    }

    #[test]
    fn a_plan_hits_the_nodes_of_its_roles_and_sometimes_two_at_once() {
        let plans: Vec<FaultPlan> =
            (0..20).map(|round| random(&[Role::Server]).plan(round, &nodes())).collect();
        let faults = || plans.iter().flat_map(|plan| &plan.faults);
        assert!(faults().all(|fault| fault.nodes() != ["main"] && fault.for_ms > 0));
        assert!(faults().any(|fault| matches!(fault.kind, FaultKind::Pause { .. })));
        let at_once = plans.iter().flat_map(|plan| plan.faults.windows(2));
        let at_once: Vec<_> = at_once.filter(|two| two[0].at_ms == two[1].at_ms).collect();
        assert!(!at_once.is_empty());
        assert!(at_once.iter().all(|two| two[0].nodes() != two[1].nodes()));
    }

    #[test]
    fn a_round_has_one_plan_and_another_round_another_one() {
        let random = random(&[]);
        assert_eq!(random.plan(3, &nodes()), random.plan(3, &nodes()));
        assert_ne!(random.plan(3, &nodes()), random.plan(4, &nodes()));
    }

    #[test]
    fn a_role_that_nobody_has_is_refused() {
        assert!(random(&[Role::Service]).check(&nodes()).is_err());
        assert!(random(&[Role::Server]).check(&nodes()).is_ok());
    }
}
