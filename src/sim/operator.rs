//! Who drains nodes of a simulated cluster, as a person does with `node drain`.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::Recipient;
use gradmesh_actors::messages::{Drain, ask};
use tokio::sync::watch;

use crate::config::Config;
use crate::node::drain_of;

/// By name: whether the node is to leave. Those that are not named never were.
pub(super) type Wishes = BTreeMap<String, bool>;

/// As the command does.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// A mailbox of the same process answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Asks the coordinator of this node for what is wished until it leads, and has done or refused it.
pub(super) async fn operate(
    config: Config,
    coordinator: Recipient<Drain>,
    mut wishes: watch::Receiver<Wishes>,
) {
    let mut done = Wishes::new();
    loop {
        let wished = wishes.borrow_and_update().clone();
        for (node, leaves) in &wished {
            if done.get(node) == Some(leaves) {
                continue;
            }
            let has = |drain: &Drain| !drain.servers.is_empty() || !drain.workers.is_empty();
            let over = match drain_of(&config, node, !leaves).filter(has) {
                Some(drain) => match ask(&coordinator, drain, ANSWER_MAX).await {
                    Ok(draining) => draining.settled,
                    Err(error) => !error.may_pass(),
                },
                None => true,
            };
            if over {
                done.insert(node.clone(), *leaves);
            }
        }
        // An error is the end of the simulation.
        if done != wished {
            tokio::time::sleep(ASK_EVERY).await;
        } else if wishes.changed().await.is_err() {
            return;
        }
    }
}
