//! Which servers hold which shard, and how that changes when servers come and go.
//!
//! Primary-backup replication with views (Liskov and Cowling, "Viewstamped Replication Revisited",
//! 2012; Lin et al., "PacificA", 2008). Every function here is of the holders before and of who is
//! there: two coordinators that know the same decide the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ServerId, ShardCopy, ShardId};
use crate::planted::{self, Bug};

/// The servers that hold one shard in one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    pub primary: ServerId,
    /// Have every version that anyone has seen: each of them can be the next primary.
    pub replicas: Vec<ServerId>,
    /// Are being filled, and can't.
    pub learners: Vec<ServerId>,
}

impl Holders {
    /// All servers, the primary first.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        std::iter::once(self.primary).chain(self.replicas.iter().chain(&self.learners).copied())
    }

    /// Those that have the shard's state.
    pub fn in_sync(&self) -> impl Iterator<Item = ServerId> + '_ {
        std::iter::once(self.primary).chain(self.replicas.iter().copied())
    }

    fn holds(&self, server: ServerId) -> bool {
        self.servers().any(|other| other == server)
    }
}

/// Shards and holders, side by side.
pub fn by_shard(holders: &[Holders]) -> impl Iterator<Item = (ShardId, &Holders)> {
    (0u32..).map(ShardId).zip(holders)
}

/// Everyone who holds something.
pub fn copies(holders: &[Holders]) -> impl Iterator<Item = ShardCopy> + '_ {
    by_shard(holders)
        .flat_map(|(shard, held)| held.servers().map(move |server| ShardCopy { shard, server }))
}

/// Holders where nobody holds anything yet: primaries in turn, each shard's replicas on the
/// servers after its primary's. Empty without servers.
///
/// `replicas`: wanted beside the primary; there are never more than servers.
pub fn place(shards: u32, servers: &[ServerId], replicas: u32) -> Vec<Holders> {
    let count = servers.len();
    if count == 0 {
        return Vec::new();
    }
    let extra = (replicas as usize).min(count - 1);
    (0..shards as usize)
        .map(|shard| {
            // Each further round of primaries has its replicas one server on, so that the load of a
            // server that dies falls on more than one.
            let shift = shard / count;
            let replica = |i: usize| {
                let step = if count > 1 { 1 + (shift + i) % (count - 1) } else { 0 };
                servers[(shard + step) % count]
            };
            Holders {
                primary: servers[shard % count],
                replicas: (0..extra).map(replica).collect(),
                learners: Vec::new(),
            }
        })
        .collect()
}

/// The holders that are left where only `there` have what they held: the first replica takes a lost
/// primary's place. `None` if a shard has nobody left who has its state.
pub fn promote(holders: &[Holders], there: &BTreeSet<ShardCopy>) -> Option<Vec<Holders>> {
    let left = |(shard, held): (ShardId, &Holders)| {
        let is_there = |server: &ServerId| there.contains(&ShardCopy { shard, server: *server });
        let mut in_sync = held.in_sync().filter(is_there);
        let mut learners: Vec<ServerId> = held.learners.iter().copied().filter(is_there).collect();
        let promoted = match in_sync.next() {
            None if planted::is(Bug::LearnerPromoted) && !learners.is_empty() => {
                Some(learners.remove(0))
            }
            first => first,
        };
        Some(Holders { primary: promoted?, replicas: in_sync.collect(), learners })
    };
    by_shard(holders).map(left).collect()
}

/// The next change towards `replicas` copies beside each primary, spread evenly over `servers`; the
/// same holders where nothing is left to do.
///
/// `servers` may hold shards in the long run. Others, which are to leave, keep what they hold until
/// somebody else has it. One change of each kind at a time: what a change costs is a fill, and all
/// of them at once would hold up the steps.
pub fn improve(holders: &[Holders], servers: &[ServerId], replicas: u32) -> Vec<Holders> {
    let mut next = holders.to_vec();
    let wanted = (replicas as usize).min(servers.len().saturating_sub(1));
    if servers.is_empty() || next.is_empty() {
        return next;
    }
    hand_over(&mut next, servers);
    drop_surplus(&mut next, servers, wanted);
    fill_missing(&mut next, servers, wanted);
    if next.iter().all(|held| held.learners.is_empty()) {
        spread(&mut next, servers, wanted);
    }
    next
}

/// The same as far as it gives nothing up: copies are added, none go.
pub fn repair(holders: &[Holders], servers: &[ServerId], replicas: u32) -> Vec<Holders> {
    let mut next = holders.to_vec();
    fill_missing(&mut next, servers, (replicas as usize).min(servers.len().saturating_sub(1)));
    next
}

/// Learners where copies are missing, on the servers that hold least.
fn fill_missing(holders: &mut [Holders], servers: &[ServerId], wanted: usize) {
    for shard in 0..holders.len() {
        loop {
            let staying = |server: &ServerId| servers.contains(server);
            let held = &holders[shard];
            let copies = held.servers().filter(staying).count();
            if copies > wanted {
                break;
            }
            let load = copy_load(holders);
            let free = servers.iter().filter(|server| !held.holds(**server));
            let Some(&server) = free.min_by_key(|server| load_of(&load, server)) else { break };
            holders[shard].learners.push(server);
        }
    }
}

/// Copies that nobody needs any more go: those on servers that leave first, then those on the
/// servers that hold most.
fn drop_surplus(holders: &mut [Holders], servers: &[ServerId], wanted: usize) {
    for shard in 0..holders.len() {
        while holders[shard].replicas.len() > wanted {
            let load = copy_load(holders);
            let held = &mut holders[shard];
            let burden = |server: &ServerId| (!servers.contains(server), load_of(&load, server));
            let most = held.replicas.iter().copied().max_by_key(burden);
            held.replicas.retain(|server| Some(*server) != most);
        }
    }
}

/// A replica takes over from a primary that leaves, or that has more primaries than its share.
fn hand_over(holders: &mut [Holders], servers: &[ServerId]) {
    for shard in 0..holders.len() {
        let load = primary_load(holders);
        let held = &mut holders[shard];
        // The next primary would have to fill them from the start.
        if !held.learners.is_empty() {
            continue;
        }
        let leaves = !servers.contains(&held.primary);
        let staying = held.replicas.iter().copied().filter(|server| servers.contains(server));
        let Some(next) = staying.min_by_key(|server| load_of(&load, server)) else { continue };
        if leaves || load_of(&load, &held.primary).0 > load_of(&load, &next).0 + 1 {
            let place = held.replicas.iter().position(|server| *server == next);
            let before = std::mem::replace(&mut held.primary, next);
            if let Some(place) = place {
                held.replicas[place] = before;
            }
        }
    }
}

/// One more copy where a server holds two copies more than another.
fn spread(holders: &mut [Holders], servers: &[ServerId], wanted: usize) {
    let load = copy_load(holders);
    let Some(least) = servers.iter().min_by_key(|server| load_of(&load, server)) else { return };
    let Some(most) = servers.iter().max_by_key(|server| load_of(&load, server).0) else { return };
    if load_of(&load, most).0 < load_of(&load, least).0 + 2 {
        return;
    }
    // Without replicas a primary moves: it is filled elsewhere, then hands over.
    let moves = |held: &&mut Holders| {
        let may_go = if wanted == 0 { held.primary == *most } else { held.replicas.contains(most) };
        may_go && !held.holds(*least)
    };
    if let Some(held) = holders.iter_mut().find(moves) {
        held.learners.push(*least);
    }
}

fn copy_load(holders: &[Holders]) -> BTreeMap<ServerId, usize> {
    count(holders.iter().flat_map(Holders::servers))
}

fn primary_load(holders: &[Holders]) -> BTreeMap<ServerId, usize> {
    count(holders.iter().map(|held| held.primary))
}

fn count(servers: impl Iterator<Item = ServerId>) -> BTreeMap<ServerId, usize> {
    servers.fold(BTreeMap::new(), |mut load, server| {
        *load.entry(server).or_default() += 1;
        load
    })
}

fn load_of(load: &BTreeMap<ServerId, usize>, server: &ServerId) -> (usize, ServerId) {
    (load.get(server).copied().unwrap_or(0), *server)
}

#[cfg(test)]
mod tests;
