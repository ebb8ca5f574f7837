//! What failures and replicas cost, on a cluster of processes on this machine.
//!
//! ```sh
//! cargo bench --bench cluster                          # both, 100 kills each: 8 minutes
//! cargo bench --bench cluster -- failover --kills 20
//! cargo bench --bench cluster -- replicas --pairs 5
//! cargo bench --bench cluster -- --quick               # both, to see that it works
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark: whatever goes wrong ends it"
)]

mod cluster;
mod failover;
mod kills;
mod probe;
mod replicas;

use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(5);
const KILLS: usize = 100;
const PAIRS: usize = 7;

fn main() {
    // cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |text: &str| text.parse().expect("a number");
    let (kills, pairs) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (KILLS, PAIRS),
        ["--quick"] => (5, 1),
        ["failover"] => (KILLS, 0),
        ["failover", "--kills", kills] => (number(kills), 0),
        ["replicas"] => (0, PAIRS),
        ["replicas", "--pairs", pairs] => (0, number(pairs)),
        _ => {
            panic!("takes failover [--kills N], replicas [--pairs N] or --quick, got {arguments:?}")
        }
    };
    actix_rt::System::new().block_on(async {
        if kills > 0 {
            failover::run(kills).await;
        }
        if pairs > 0 {
            replicas::run(pairs).await;
        }
    });
}
