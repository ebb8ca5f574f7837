use super::durable_counter as simulation;

/// Was: "increments are kept" does not hold.
#[test]
fn increments_are_kept_with_seed_3() {
    use gradmesh::sim::{Seed, kill};

    let faults = [kill("counter").at("2s").for_("10ms")];
    simulation().faults(faults).must_pass(Seed(3));
}
