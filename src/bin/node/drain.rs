//! `node drain`: takes a node's servers and workers out of the run, or lets them in again.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::node::drain_of;
use gradmesh_actors::messages::{Drain, Draining};
use gradmesh_actors::training::{Leaver, TrainingStatus, Who};
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use crate::answer;
use crate::status::Coordinators;

/// Between two questions how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A leader that dies has a successor within some seconds.
const SILENT_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn drain(
    config: Config,
    node: &str,
    back: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let coordinators = Coordinators::of(&config)?;
    let known = config.nodes.iter().find(|known| known.name == node);
    let (Some(known), Some(drain)) = (known, drain_of(&config, node, back)) else {
        let names: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).collect();
        bail!("no node is called {node:?}; there are {}", names.join(", "));
    };
    if drain.servers.is_empty() && drain.workers.is_empty() {
        bail!("{node} has no server and no worker: nothing of it takes part in a step");
    }
    let draining = until_settled(&coordinators, &drain, node, json).await?;
    if json {
        let Draining { view, leaving, replicas, wanted, .. } = draining;
        answer::line(json!({
            "node": node, "back": back, "view": view, "leaving": leaving,
            "replicas": replicas, "replicas_wanted": wanted,
        }))?;
    } else if back {
        answer::line(format_args!("{node} may hold shards and compute slots again"))?;
    } else {
        answer::line(format_args!(
            "{node} holds nothing and computes nothing: it can be stopped{}",
            others(known)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks again and again, and says what has changed.
async fn until_settled(
    coordinators: &Coordinators,
    drain: &Drain,
    node: &str,
    json: bool,
) -> anyhow::Result<Draining> {
    let mut told = String::new();
    let mut heard = Instant::now();
    loop {
        match coordinators.drain(drain).await {
            Ok(draining) => {
                heard = Instant::now();
                let text = progress(node, &draining);
                if text != told && !draining.settled {
                    if json {
                        info!("{text}")
                    } else {
                        answer::line(&text)?
                    }
                    told = text;
                }
                if draining.settled {
                    return Ok(draining);
                }
            }
            Err(error) if error.may_pass() => {
                let silent = heard.elapsed();
                if silent > SILENT_MAX {
                    bail!(
                        "nobody leads or answers since {} s: {error}; is the cluster started (`node up`)? What was asked may have been heard: ask again",
                        silent.as_secs()
                    );
                }
            }
            Err(refused) => bail!("{node}: {refused}"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn progress(node: &str, draining: &Draining) -> String {
    let mut text = match holds(&draining.leaving) {
        None => format!("{node}: the next view is waited for"),
        Some(holds) => format!("{node} has {holds}"),
    };
    if draining.replicas < draining.wanted {
        let Draining { replicas, wanted, .. } = draining;
        text += &format!("; servers are left for {replicas} of {wanted} replicas of each shard");
    }
    text
}

/// What is not drained with it.
fn others(node: &NodeConfig) -> String {
    let drained = |role: &&Role| !matches!(role, Role::Server | Role::Worker);
    let others: Vec<String> = node.roles.iter().filter(drained).map(Role::to_string).collect();
    match others[..] {
        [] => String::new(),
        _ => format!(" (its {} is not drained)", others.join(", ")),
    }
}

/// What these have; `None` for nothing.
fn holds(leavers: &[Leaver]) -> Option<String> {
    let sum = |is: fn(&Who) -> bool| -> u32 {
        leavers.iter().filter(|leaver| is(&leaver.who)).map(|leaver| leaver.holds).sum()
    };
    let copies = sum(|who| !matches!(who, Who::Worker(_)));
    let slots = sum(|who| matches!(who, Who::Worker(_)));
    match (copies, slots) {
        (0, 0) => None,
        (copies, 0) => Some(format!("{copies} copies of shards")),
        (0, slots) => Some(format!("{slots} slots of each step")),
        (copies, slots) => {
            Some(format!("{copies} copies of shards and {slots} slots of each step"))
        }
    }
}

/// Nodes that are to leave, with what they still have; `None` where there are none.
pub(crate) fn leaving(config: &Config, status: &TrainingStatus) -> Option<String> {
    let of_node = |node: &NodeConfig| {
        let drain = drain_of(config, &node.name, false)?;
        let own = |leaver: &&Leaver| match leaver.who {
            Who::Server(server) => drain.servers.contains(&server),
            Who::Worker(worker) => drain.workers.contains(&worker),
            Who::Copy(_) => false,
        };
        let own: Vec<Leaver> = status.leaving.iter().filter(own).copied().collect();
        if own.is_empty() {
            return None;
        }
        let has = holds(&own).unwrap_or_else(|| "nothing, it can be stopped".to_owned());
        Some(format!("{} has {has}", node.name))
    };
    let nodes: Vec<String> = config.nodes.iter().filter_map(of_node).collect();
    if nodes.is_empty() { None } else { Some(nodes.join("; ")) }
}
