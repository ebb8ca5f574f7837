//! The cluster of the demonstration.

use std::net::{Ipv4Addr, SocketAddr};

use gradmesh::config::{Config, NodeConfig, Role};

/// One leads, the other is ready to.
const COORDINATORS: u32 = 2;
const SERVERS: u32 = 3;
const REPLICAS: u32 = 1;
const WORKERS: u32 = 3;
const REGISTRIES: u32 = 2;
const SERVICES: u32 = 2;

/// Puts these nodes, a process each, in the place of those of the configuration.
pub(super) fn give(config: &mut Config) {
    config.servers.shards = SERVERS;
    config.servers.replicas = REPLICAS;
    config.workers.count = WORKERS;
    let roles = [
        (Role::Coordinator, COORDINATORS),
        (Role::Server, SERVERS),
        (Role::Worker, WORKERS),
        (Role::Registry, REGISTRIES),
        (Role::Service, SERVICES),
    ];
    let names = roles.into_iter().flat_map(|(role, count)| (0..count).map(move |at| (role, at)));
    // Addresses are given when it starts.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let node = |(role, at)| NodeConfig {
        name: format!("{role}-{at}"),
        address,
        roles: vec![role],
        listen: None,
        grpc_listen: None,
    };
    config.nodes = names.map(node).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_processes_of_its_own() {
        let file = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/cluster.toml"));
        let mut config = Config::load(file, &[], std::iter::empty()).unwrap();
        give(&mut config);
        let names: Vec<&str> = config.nodes.iter().map(|node| &*node.name).collect();
        assert_eq!((names.len(), names[0], names[11]), (12, "coordinator-0", "service-1"));
        assert!(config.nodes.iter().all(|node| node.roles.len() == 1));
    }
}
