//! How long the store takes; printed for `docs/coordination.md`, compared with nothing.
//!
//! `cargo test --features etcd --test coordination timing -- --ignored --nocapture`

use std::time::Duration;

use tokio::time::Instant;

use crate::folder::Folder;
use crate::support::{Place, beat, observe, renew, won};

const TIMES: u64 = 500;

#[allow(clippy::print_stdout, reason = "it shows times")]
fn show(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}

async fn measure(name: &str, place: &impl Place) {
    let store = place.open();
    let (mut appends, mut observes, mut renewals) = (Vec::new(), Vec::new(), Vec::new());
    for view in 1..=TIMES {
        let start = Instant::now();
        won(&store, view, 1, "a").await;
        appends.push(start.elapsed());
        let start = Instant::now();
        renew(&store, beat(1, "a", view)).await.unwrap();
        renewals.push(start.elapsed());
        let start = Instant::now();
        observe(&store).await.unwrap();
        observes.push(start.elapsed());
    }
    show(&format!("{name} append"), appends);
    show(&format!("{name} renew"), renewals);
    show(&format!("{name} observe"), observes);
}

#[actix_rt::test]
#[ignore = "prints times"]
async fn on_a_folder() {
    measure("folder", &Folder::new()).await;
}

#[cfg(feature = "etcd")]
#[actix_rt::test]
#[ignore = "prints times"]
async fn on_etcd() {
    measure("etcd", &crate::etcd::Etcd::start().await).await;
}
