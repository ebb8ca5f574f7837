//! What of a node is to leave, and how the coordinator that leads is asked for it.

use std::time::Duration;

use gradmesh_actors::ids::{ServerId, WorkerId};
use gradmesh_actors::messages::{Drain, DrainError, Draining, LinkError};

use super::directory::Plan;
use super::roles::coordinator_target;
use crate::config::{Config, Role};
use crate::peer::Link;

/// The request that a node's servers and workers leave, or come back. Empty where it has none;
/// `None` where there is no such node.
#[must_use]
pub fn drain_of(config: &Config, node: &str, back: bool) -> Option<Drain> {
    config.nodes.iter().find(|known| known.name == node)?;
    let plan = Plan::new(config, Some(node.to_owned()));
    let servers = plan.own_index(Role::Server).map(ServerId).into_iter().collect();
    let workers = 0..config.workers.count;
    let workers = workers.filter(|worker| plan.is_here(Role::Worker, *worker)).map(WorkerId);
    Some(Drain { servers, workers: workers.collect(), back })
}

/// Asks one coordinator after the other, until one leads. Each has `limit` to answer.
///
/// # Errors
/// The leader's refusal; or why the last of those who did not answer as a leader did not.
pub async fn ask_leader(
    coordinators: &[Link],
    drain: &Drain,
    limit: Duration,
) -> Result<Draining, DrainError> {
    let mut last = DrainError::NotLeading;
    for link in coordinators {
        let asked = link.request::<Drain>(coordinator_target(), drain.clone());
        match tokio::time::timeout(limit, asked).await {
            Ok(Err(error)) if error.may_pass() => last = error,
            Ok(answer) => return answer,
            Err(_) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                last = DrainError::Link(LinkError::Timeout { limit_ms });
            }
        }
    }
    Err(last)
}
