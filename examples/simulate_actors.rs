//! Actors of one's own under simulated failures: no training, no cluster.toml.
//!
//! What it shows: two nodes whose actors exchange a typed message, a fault plan by hand, a swarm of
//! faults, and checks. A `Counter` keeps a number on its disk; a client adds to it, and repeats
//! what was not answered. Whatever is killed, cut off or lost, what was acknowledged is there.
//!
//! ```sh
//! cargo run --example simulate_actors
//! ```
//!
//! It prints:
//!
//! ```text
//! by hand: 20 additions acknowledged, 20 kept, 1 restart
//! 50 seeds of a swarm: every addition counted once
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use futures_util::TryStreamExt;
use gradmesh::actors::messages::{LinkError, WireMessage, WirePart, ask};
use gradmesh::node::NodeContext;
use gradmesh::peer::Proxy;
use gradmesh::router::Router;
use gradmesh::sim::{Seed, Sim, SimNode, Swarm, kill, partition};
use gradmesh::wire::{Role, Target};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

/// What the client wants to have counted.
const ADDITIONS: i64 = 20;
const COUNTER: Target = Target { role: Role::Own, index: 0 };

/// Client → Counter. The number makes it safe to repeat.
#[derive(Clone, Debug, actix::Message, Serialize, Deserialize)]
#[rtype(result = "Result<(), AddError>")]
struct Add {
    number: i64,
}

#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
enum AddError {
    #[error("not written: {0}")]
    Disk(String),
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl WirePart for Add {}
impl WirePart for AddError {}

impl WireMessage for Add {
    // Those of gradmesh are below 0x8000.
    const KIND: u16 = 0x8001;
    type Reply = ();
    type Refusal = AddError;
}

/// One file for each addition: writing it twice is writing it once.
struct Counter {
    disk: Arc<dyn ObjectStore>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Add> for Counter {
    type Result = ResponseFuture<Result<(), AddError>>;

    fn handle(&mut self, add: Add, _ctx: &mut Self::Context) -> Self::Result {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move {
            let path = StorePath::from(format!("additions/{}", add.number));
            let written = disk.put(&path, vec![1].into()).await;
            written.map(drop).map_err(|error| AddError::Disk(error.to_string()))
        })
    }
}

/// The node of the counter: what its `main` would do.
async fn counter(node: SimNode) -> Result<(), String> {
    let disk =
        node.open_store("counter", Path::new(".")).map_err(|error| error.to_string())?.objects;
    let router = Router::new();
    let address = Counter { disk: Arc::clone(&disk) }.start();
    router.route(COUNTER, address.recipient::<Add>());
    node.serve(&router).await.map_err(|error| error.to_string())?;
    loop {
        let files: Vec<_> = disk
            .list(None)
            .try_collect()
            .await
            .map_err(|error: object_store::Error| error.to_string())?;
        let kept: BTreeSet<_> = files.into_iter().map(|file| file.location).collect();
        node.show("kept", kept.len() as i64);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The node of the client.
async fn client(node: SimNode) -> Result<(), String> {
    let proxy = Proxy { link: node.link("counter"), target: COUNTER }.start();
    let counter: Recipient<Add> = proxy.recipient();
    for number in 1..=ADDITIONS {
        while ask(&counter, Add { number }, Duration::from_secs(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        node.show("acknowledged", number);
    }
    std::future::pending().await
}

/// Two nodes, and what must hold.
fn cluster() -> Sim {
    Sim::new()
        .node("counter", counter)
        .node("client", client)
        .until(|world| world.value("counter", "kept") == Some(ADDITIONS))
        .always("no addition is kept that nobody asked for", |world| {
            world.value("counter", "kept").unwrap_or(0) <= ADDITIONS
        })
        .sometimes("the counter was started again", |world| {
            world.node("counter").is_some_and(|node| node.restarts > 0)
        })
        .limit(Duration::from_secs(120))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [one_way, other_way] = partition("client", "counter");
    let by_hand = [
        kill("counter").at("80ms").for_("500ms"),
        one_way.at("900ms").for_("2s"),
        other_way.at("900ms").for_("2s"),
    ];
    let report = cluster().faults(by_hand).run(Seed(1));
    if let Some(broken) = &report.broken {
        return Err(format!("{broken}\n{report}").into());
    }
    println!(
        "by hand: {ADDITIONS} additions acknowledged, {ADDITIONS} kept, {} restart",
        report.counts.restarts
    );

    let seeds = 50;
    let swarm = cluster().swarm(Swarm::default().until(Duration::from_secs(5)));
    for seed in 0..seeds {
        let report = swarm.run(Seed(seed));
        if !report.passed() {
            return Err(report.to_string().into());
        }
    }
    println!("{seeds} seeds of a swarm: every addition counted once");
    Ok(())
}
