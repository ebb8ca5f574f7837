//! Two registries under a swarm.

use gradmesh::sim::Seed;

use crate::registries::two_registries;

#[test]
fn two_registries_over_one_store_are_one_registry() {
    let restarted = |name: &'static str| {
        move |world: &gradmesh::sim::World<'_>| world.node(name).is_some_and(|n| n.restarts > 0)
    };
    two_registries()
        .sometimes("a registry was started again", restarted("registry-0"))
        .sometimes("a coordinator was started again", restarted("publisher-1"))
        .seeds(crate::swarm::seeds(100))
        .check();
}

#[test]
fn the_same_seed_of_two_registries_has_the_same_trace() {
    let run = || two_registries().run(Seed(7));
    assert_eq!(run().trace_hash, run().trace_hash);
}
