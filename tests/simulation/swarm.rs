//! Whatever a seed draws: the digest of the calm run.

use gradmesh::sim::{Sim, Swarm, World};

use crate::{HARD, digits};

/// Fresh ones each time with `GRADMESH_SIM_FROM`.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("GRADMESH_SIM_FROM").unwrap_or(0);
    from..from + number("GRADMESH_SIM_SEEDS").unwrap_or(count)
}

fn recovers(sim: Sim) -> Sim {
    let trained = |look: fn(&gradmesh::actors::training::TrainingStatus) -> bool| {
        move |world: &World<'_>| world.with_training(look).unwrap_or(false)
    };
    sim.swarm(Swarm::default())
        .sometimes("everyone went back to a checkpoint", trained(|run| run.rollbacks > 0))
        .sometimes("a node was started again", |world| world.counts().restarts > 0)
        .at_end(
            "each row of each epoch counted once",
            trained(|run| {
                let rows = run.train_rows.unwrap_or(0);
                run.ledger.finished.iter().all(|epoch| epoch.rows == rows)
            }),
        )
}

#[test]
fn whatever_a_swarm_does_the_digest_is_that_of_a_calm_run() {
    let moved = |world: &World<'_>| world.with_training(|run| run.new_leases > 0).unwrap_or(false);
    recovers(digits(&[])).sometimes("slots moved", moved).seeds(seeds(60)).check();
}

#[test]
fn with_residuals_a_norm_and_momentum_too() {
    recovers(digits(HARD)).seeds(seeds(60)).check();
}
