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

/// Service nodes of one machine that would listen where another one does, and addresses of services
/// that are none. Nodes with one IP address are on one machine. `listen`: `service.listen`.
pub(super) fn service_relations(
    nodes: &[NodeConfig],
    listen: SocketAddr,
    source: &str,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |at: usize, value: Option<SocketAddr>, problem: String, what_to_do: String| {
        let (key, source) = (format!("nodes[{at}].listen"), source.to_owned());
        let value = value.map(|value| format!("\"{value}\""));
        problems.push(Problem { key, value, problem, what_to_do, source });
    };
    let serves = |node: &NodeConfig| node.roles.contains(&Role::Service);
    for (at, node) in nodes.iter().enumerate() {
        if !serves(node) {
            if node.listen.is_some() {
                let problem = "this node has not the role service".to_owned();
                let what_to_do = format!("remove it, or add \"service\" to nodes[{at}].roles");
                report(at, node.listen, problem, what_to_do);
            }
            continue;
        }
        let own = node.listens_on(listen);
        let neighbours = nodes.iter().enumerate().filter(|(_, other)| {
            other.address.ip() == node.address.ip() && collide(own, other.address)
        });
        let services = nodes[..at].iter().enumerate().filter(|(_, other)| {
            serves(other)
                && other.address.ip() == node.address.ip()
                && collide(own, other.listens_on(listen))
        });
        let taken = neighbours
            .map(|(other, _)| format!("nodes[{other}].address is the same"))
            .chain(services.map(|(other, _)| format!("nodes[{other}] answers HTTP there")))
            .next();
        if let Some(taken) = taken {
            let problem = match node.listen {
                Some(_) => taken,
                None => format!("is missing, and on service.listen ({listen}) {taken}"),
            };
            let what_to_do = format!("set nodes[{at}].listen to an address of its own");
            report(at, node.listen, problem, what_to_do);
        }
    }
    problems
}

/// Whether two programs of one machine can't listen on both.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
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
