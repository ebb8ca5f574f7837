//! Kills a process every so often.

use std::collections::BTreeMap;
use std::time::Duration;

use gradmesh::config::{NodeConfig, Role};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::time::Instant;
use tracing::info;

use super::Wanted;
use crate::chaos::cluster::Cluster;

#[derive(Debug)]
pub(super) struct Killer {
    draw: ChaCha8Rng,
    victims: Vec<(String, Role)>,
    every: Duration,
    next: Instant,
    /// No more kills from then on: the run must come to its end.
    until: Instant,
    tally: BTreeMap<Role, u64>,
}

impl Killer {
    pub(super) fn new(seed: u64, wanted: &Wanted, nodes: &[NodeConfig]) -> Self {
        let meant = |role: &Role| wanted.roles.is_empty() || wanted.roles.contains(role);
        let victims = nodes.iter().filter_map(|node| {
            let role = node.roles.iter().copied().find(meant)?;
            Some((node.name.clone(), role))
        });
        let now = Instant::now();
        Self {
            draw: ChaCha8Rng::seed_from_u64(seed),
            victims: victims.collect(),
            every: wanted.every,
            next: now + wanted.every,
            until: now + wanted.lasts,
            tally: BTreeMap::new(),
        }
    }

    /// Kills who is due.
    pub(super) fn look(&mut self, cluster: &mut Cluster, step: u64) {
        let now = Instant::now();
        if now < self.next || now > self.until {
            return;
        }
        let drawn = self.draw.next_u64() % self.victims.len().max(1) as u64;
        let Some((name, role)) = self.victims.get(drawn as usize) else { return };
        // Who is down is drawn again at the next look.
        if cluster.kill(name) {
            self.next += self.every;
            *self.tally.entry(*role).or_default() += 1;
            info!(node = name, step, "SIGKILL");
        }
    }

    /// Kills by role.
    pub(super) fn tally(self) -> BTreeMap<Role, u64> {
        self.tally
    }
}
