//! How long a step takes with more workers and servers than this machine has cores for.
//!
//! `cargo bench --bench scaling`
//!
//! What one worker and one shard do is measured here, alone on a core; the network between machines is
//! assumed. A simulation of the queues between them gives the rest: each worker and each server has a
//! core and a link of its own, a server one shard.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures this machine, with threads of its own")]

mod costs;
mod queues;

use costs::Measured;
use queues::{Costs, Network};

const GIGABIT: f64 = 1e9 / 8.0;
/// A round trip of 4 KiB between two processes, of which half is one way; `node bench` measures it.
const LATENCY: f64 = 70e-6;
const SERVERS: [u32; 4] = [1, 2, 4, 8];
const WORKERS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];

fn main() {
    for (name, hidden, rows) in [
        ("784-64-32-10, 64 rows a worker", vec![64, 32], 64),
        ("784-2048-2048-10, 256 rows a worker", vec![2048, 2048], 256),
    ] {
        let by_servers: Vec<Costs> = SERVERS
            .iter()
            .map(|&servers| Measured::of(&hidden, rows, servers).costs(LATENCY))
            .collect();
        let alone = by_servers[0].alone();
        println!("\n{name}: computing alone takes {:.2} ms", alone * 1e3);
        for gigabits in [10.0, 100.0] {
            println!(
                "links of {gigabits} Gbit/s: thousands of samples/s, part of what computing alone gives"
            );
            let servers = |n: u32| format!("{n:>10} server{}", if n == 1 { " " } else { "s" });
            println!("{:>8}{}", "workers", SERVERS.map(servers).concat());
            for workers in WORKERS {
                let network = Network { bytes_a_second: gigabits * GIGABIT };
                let cell = |costs: &Costs| {
                    let step = queues::step(costs, workers as usize, network);
                    let samples = f64::from(workers) * rows as f64 / step;
                    format!("{:>9.1} {:>6.0} %", samples / 1e3, 100.0 * alone / step)
                };
                let cells: String = by_servers.iter().map(cell).collect();
                println!("{workers:>8}{cells}");
            }
        }
    }
}
