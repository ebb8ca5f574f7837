//! Processes that are killed and paused at random instants.

use crate::support::{Place, answer};

/// Of each role.
const KILLS: &str = "5";

#[test]
fn any_process_may_be_killed_or_paused_at_any_instant() {
    let kills = std::env::var("GRADMESH_KILLS").unwrap_or_else(|_| KILLS.to_owned());
    for role in ["server", "worker", "coordinator"] {
        let place = Place::new();
        let arguments = ["random", "--role", role, "--kills", &kills, "--seed", "1", "--json"];
        let output = place.chaos("examples/digits.toml", &arguments).output().unwrap();
        let answer = answer(&output);
        assert!(output.status.success(), "{role}: {answer}");
        let wanted: u64 = kills.parse().unwrap();
        assert!(answer["killed"].as_u64() >= Some(wanted), "{role}: {answer}");
        println!("{role}: {answer}");
        assert!(place.folders().is_empty(), "{:?}", place.folders());
        assert_eq!(place.processes(), [""; 0]);
    }
}

#[test]
fn a_role_that_nobody_has_is_refused() {
    let place = Place::new();
    let arguments = ["random", "--role", "service"];
    let output = place.chaos("examples/digits.toml", &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no node has the role service; change --role"), "{said}");
}
