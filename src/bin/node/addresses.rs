//! Whether a cluster can have its addresses, asked before anything of it is started.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::bail;
use gradmesh::config::{Config, Role};
use tokio::time::Instant;

/// Nodes whose `up` was just killed are still ending.
const FREE_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Binds each address of the cluster once.
///
/// # Errors
/// Somebody listens on one of them, such as the same cluster that runs already, or this machine
/// doesn't have it.
pub(crate) async fn are_free(config: &Config) -> anyhow::Result<()> {
    let until = Instant::now() + FREE_WITHIN;
    for (address, key) in all(config) {
        loop {
            match TcpListener::bind(address) {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    if Instant::now() > until {
                        bail!(
                            "{address} is in use, perhaps by this cluster, which is started already; end it, or change {key}"
                        );
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => bail!("can't listen on {address}: {error}; change {key}"),
            }
        }
    }
    Ok(())
}

/// Each address with its key.
fn all(config: &Config) -> Vec<(SocketAddr, String)> {
    let nodes = config.nodes.iter().enumerate();
    let mut all: Vec<_> =
        nodes.map(|(at, node)| (node.address, format!("nodes[{at}].address"))).collect();
    for (at, node) in config.nodes.iter().enumerate() {
        if !node.roles.contains(&Role::Service) {
            continue;
        }
        all.push(match node.listen {
            Some(listen) => (listen, format!("nodes[{at}].listen")),
            None => (config.service.listen, "service.listen".to_owned()),
        });
        all.extend(match (node.grpc_listen, config.service.grpc_listen) {
            (Some(listen), _) => Some((listen, format!("nodes[{at}].grpc_listen"))),
            (None, listen) => listen.map(|listen| (listen, "service.grpc_listen".to_owned())),
        });
    }
    all
}
