//! Drains nodes of a plan, as `node drain` does.

use std::collections::BTreeMap;
use std::time::Duration;

use gradmesh::config::Config;
use gradmesh::node::drain_of;
use tracing::{info, warn};

use super::Aborted;
use crate::status::Coordinators;

/// Between two requests.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The newest wish for each node, until the cluster has done or refused it.
#[derive(Default)]
pub(crate) struct Operator(BTreeMap<String, Aborted>);

impl Operator {
    /// A node is to leave, or to come back.
    pub(crate) fn wish(&mut self, config: &Config, node: &str, leaves: bool) {
        let task = actix_rt::spawn(ask(config.clone(), node.to_owned(), leaves));
        self.0.insert(node.to_owned(), Aborted(task));
    }
}

async fn ask(config: Config, node: String, leaves: bool) {
    let (Some(drain), Ok(coordinators)) =
        (drain_of(&config, &node, !leaves), Coordinators::of(&config))
    else {
        return;
    };
    loop {
        match coordinators.drain(&drain).await {
            Ok(draining) if draining.settled => {
                let view = draining.view.0;
                return info!(node, view, "{}", if leaves { "drained" } else { "back" });
            }
            Err(error) if !error.may_pass() => return warn!(node, %error, "not drained"),
            _ => tokio::time::sleep(ASK_EVERY).await,
        }
    }
}
