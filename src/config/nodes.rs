//! `[[nodes]]`: which machine runs what.

use std::fmt;
use std::net::SocketAddr;

use ::config::{Map, Value, ValueKind};
use gradmesh_actors::nearest::nearest;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::check::refused;
use super::error::Problem;
use super::layers::{printable, shown};
use super::schema::{Fallback, NODE_KEYS};

/// As many nodes as a step can have slots: one more would have nothing to do.
const NODES_MAX: usize = gradmesh_actors::job::MAX_VIRTUAL_WORKERS as usize;

/// One `[[nodes]]` entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    pub name: String,
    /// Where the node listens for the others.
    pub address: SocketAddr,
    /// At least one, none twice.
    pub roles: Vec<Role>,
    /// Where this node answers HTTP, if it has the role of a service and `service.listen` is not
    /// the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The same of gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_listen: Option<SocketAddr>,
}

/// What a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    Coordinator,
    Server,
    Worker,
    Registry,
    Service,
}

impl NodeConfig {
    /// Where this node answers HTTP if it serves. `listen`: `service.listen`.
    pub fn listens_on(&self, listen: SocketAddr) -> SocketAddr {
        self.listen.unwrap_or(listen)
    }

    /// Where this node answers gRPC if it serves; `None` where it doesn't. `grpc_listen`:
    /// `service.grpc_listen`.
    pub fn grpc_listens_on(&self, grpc_listen: Option<SocketAddr>) -> Option<SocketAddr> {
        self.grpc_listen.or(grpc_listen)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Server => "server",
            Self::Worker => "worker",
            Self::Registry => "registry",
            Self::Service => "service",
        })
    }
}

/// The entries as JSON, one problem for each value that can't be used, then the problems between
/// entries.
pub(super) fn read(value: &Value, source: &str) -> Result<Json, Vec<Problem>> {
    let ValueKind::Array(entries) = &value.kind else {
        let what_to_do = "write each node as [[nodes]]";
        return Err(vec![problem(
            "nodes",
            &value.kind,
            "is not a list of tables",
            what_to_do,
            source,
        )]);
    };
    if entries.len() > NODES_MAX {
        let problem = format!("{} nodes are more than {NODES_MAX}", entries.len());
        let what_to_do = "remove some [[nodes]]".to_owned();
        let (key, source) = ("nodes".to_owned(), source.to_owned());
        return Err(vec![Problem { key, value: None, problem, what_to_do, source }]);
    }
    let mut problems = Vec::new();
    let mut nodes = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let path = format!("nodes[{at}]");
        match &entry.kind {
            ValueKind::Table(table) => nodes.push(read_entry(&path, table, source, &mut problems)),
            other => {
                let what_to_do = "write each node as [[nodes]]";
                problems.push(problem(&path, other, "is not a table", what_to_do, source));
            }
        }
    }
    if problems.is_empty() { Ok(Json::from(nodes)) } else { Err(problems) }
}

fn read_entry(
    path: &str,
    table: &Map<String, Value>,
    source: &str,
    problems: &mut Vec<Problem>,
) -> Json {
    let names = || NODE_KEYS.iter().map(|key| last_part(key.path));
    let mut unknown: Vec<_> =
        table.iter().filter(|(name, _)| names().all(|known| known != name.as_str())).collect();
    unknown.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in unknown {
        let what_to_do = nearest(name, names()).map_or_else(
            || "remove it, or see all keys with `node check --keys`".to_owned(),
            |nearest| format!("did you mean {path}.{nearest}?"),
        );
        let key = format!("{path}.{}", printable(name));
        problems.push(problem(&key, &value.kind, "there is no such key", &what_to_do, source));
    }
    let mut node = serde_json::Map::new();
    for key in NODE_KEYS {
        let name = last_part(key.path);
        let given = table.get(name).map(|value| &value.kind);
        match given.and_then(|kind| key.kind.check(kind)) {
            Some(value) => drop(node.insert(name.to_owned(), value)),
            None if given.is_none() && key.default == Fallback::Unset => {}
            None => problems.push(refused(key, &format!("{path}.{name}"), given, source)),
        }
    }
    Json::from(node)
}

/// Names and addresses that two nodes share, roles that nobody or too many have. A cluster without
/// `[[nodes]]` runs in one process, which has them all.
pub(super) fn relations(nodes: &[NodeConfig], source: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |key: String, value: Option<String>, problem: String, what_to_do: String| {
        problems.push(Problem { key, value, problem, what_to_do, source: source.to_owned() });
    };
    for (at, node) in nodes.iter().enumerate() {
        if let Some(other) = nodes[..at].iter().position(|other| other.name == node.name) {
            let key = format!("nodes[{at}].name");
            let problem = format!("nodes[{other}] has the same name");
            report(key.clone(), Some(format!("{:?}", node.name)), problem, format!("change {key}"));
        }
        let key = format!("nodes[{at}].address");
        let value = Some(format!("\"{}\"", node.address));
        if let Some(other) = nodes[..at].iter().position(|other| other.address == node.address) {
            let problem = format!("nodes[{other}] has the same address");
            report(key, value, problem, format!("change nodes[{at}].address"));
        } else if node.address.port() == 0 {
            let problem =
                "the other nodes can't find a port that is chosen at the start".to_owned();
            report(key, value, problem, format!("set the port of nodes[{at}].address"));
        }
    }
    if nodes.is_empty() {
        return problems;
    }
    for role in [Role::Coordinator, Role::Server, Role::Worker, Role::Registry] {
        let count = nodes.iter().filter(|node| node.roles.contains(&role)).count();
        if count == 0 {
            let problem = format!("no node has the role {role}");
            report("nodes".to_owned(), None, problem, format!("add \"{role}\" to a node's roles"));
        }
    }
    problems
}

/// `service.listen` and `service.grpc_listen`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listens {
    pub(super) http: SocketAddr,
    pub(super) grpc: Option<SocketAddr>,
}

/// Where a service listens for one protocol.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    /// The key of `[service]` and `[[nodes]]`.
    key: &'static str,
    protocol: &'static str,
    /// What the node says itself.
    own: Option<SocketAddr>,
    address: SocketAddr,
}

fn endpoints(node: &NodeConfig, service: &Listens) -> Vec<Endpoint> {
    let listen = node.listens_on(service.http);
    let http = Endpoint { key: "listen", protocol: "HTTP", own: node.listen, address: listen };
    let grpc = node.grpc_listens_on(service.grpc).map(|address| Endpoint {
        key: "grpc_listen",
        protocol: "gRPC",
        own: node.grpc_listen,
        address,
    });
    std::iter::once(http).chain(grpc).collect()
}

/// Service nodes of one machine that would listen where another one does, and addresses of services
/// that are none.
pub(super) fn service_relations(
    nodes: &[NodeConfig],
    service: &Listens,
    source: &str,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let mut report = |key: &str, own: Option<SocketAddr>, problem: String, todo: String| {
            let (key, source) = (format!("nodes[{at}].{key}"), source.to_owned());
            let value = own.map(|own| format!("\"{own}\""));
            problems.push(Problem { key, value, problem, what_to_do: todo, source });
        };
        if !serves(node) {
            let own = [("listen", node.listen), ("grpc_listen", node.grpc_listen)];
            for (key, own) in own.into_iter().filter(|(_, own)| own.is_some()) {
                let problem = "this node has not the role service".to_owned();
                let what_to_do = format!("remove it, or add \"service\" to nodes[{at}].roles");
                report(key, own, problem, what_to_do);
            }
            continue;
        }
        for endpoint in endpoints(node, service) {
            let Some(taken) = taken(nodes, at, &endpoint, service) else { continue };
            let Endpoint { key, own, address, .. } = endpoint;
            let problem = match own {
                Some(_) => taken,
                None => format!("is missing, and on service.{key} ({address}) {taken}"),
            };
            report(key, own, problem, format!("set nodes[{at}].{key} to an address of its own"));
        }
    }
    problems
}

/// Who has the address of this endpoint of `nodes[at]` already. Nodes with one IP address are on one
/// machine.
fn taken(
    nodes: &[NodeConfig],
    at: usize,
    endpoint: &Endpoint,
    service: &Listens,
) -> Option<String> {
    let near = |(_, other): &(usize, &NodeConfig)| other.address.ip() == nodes[at].address.ip();
    let same = |other: SocketAddr| collide(endpoint.address, other);
    let neighbour = nodes.iter().enumerate().filter(near).find(|(_, other)| same(other.address));
    if let Some((other, _)) = neighbour {
        return Some(format!("nodes[{other}].address is the same"));
    }
    // The node's own endpoints are before each other in the order of their keys.
    let services = nodes[..=at].iter().enumerate().filter(near).filter(|(_, other)| serves(other));
    let mut earlier = services
        .flat_map(|(other, node)| endpoints(node, service).into_iter().map(move |e| (other, e)))
        .take_while(|(other, e)| (*other, e.key) != (at, endpoint.key));
    let (other, e) = earlier.find(|(_, e)| same(e.address))?;
    Some(format!("nodes[{other}] answers {} there", e.protocol))
}

fn serves(node: &NodeConfig) -> bool {
    node.roles.contains(&Role::Service)
}

/// Whether two programs of one machine can't listen on both.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

fn problem(key: &str, value: &ValueKind, problem: &str, what_to_do: &str, source: &str) -> Problem {
    Problem {
        key: key.to_owned(),
        value: Some(shown(value)),
        problem: problem.to_owned(),
        what_to_do: what_to_do.to_owned(),
        source: source.to_owned(),
    }
}

fn last_part(path: &'static str) -> &'static str {
    path.trim_start_matches("nodes.")
}
