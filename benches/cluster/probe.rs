//! Asks coordinator and servers where they are.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use gradmesh::config::{Config, Role};
use gradmesh::node::hello;
use gradmesh::peer::{Link, LinkPolicy, Peer};
use gradmesh::transport::TcpTransport;
use gradmesh::wire::{self, Target};
use gradmesh_actors::ids::{ShardId, Version, View};
use gradmesh_actors::messages::{GetStatus, PullError, PullParameters};
use gradmesh_actors::training::{Progress, TrainingStatus};
use tokio::time::timeout;

/// An answer on one machine takes less than a millisecond; a server that was killed gives none.
const ANSWER_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Probe {
    coordinators: Vec<Link>,
    servers: Vec<Link>,
    shards: u32,
}

impl Probe {
    pub(crate) fn new(config: &Config) -> Self {
        let of_role = |role: Role| config.nodes.iter().filter(move |n| n.roles.contains(&role));
        let link = |node: &gradmesh::config::NodeConfig| {
            let peer = Peer { node: node.name.clone(), address: node.address };
            let own = hello(config, "probe".to_owned());
            Link::open(peer, own, Rc::new(TcpTransport), LinkPolicy::default())
        };
        Self {
            coordinators: of_role(Role::Coordinator).map(link).collect(),
            servers: of_role(Role::Server).map(link).collect(),
            shards: config.servers.shards,
        }
    }

    /// What each coordinator says, in their order; none where one doesn't answer.
    pub(crate) async fn statuses(&self) -> Vec<Option<TrainingStatus>> {
        let target = Target::new(wire::Role::Coordinator, 0);
        let asked = self.coordinators.iter().map(|coordinator| async move {
            timeout(ANSWER_MAX, coordinator.request(target, GetStatus {})).await.ok()?.ok()
        });
        join_all(asked).await
    }

    /// What the leader says, and its number.
    pub(crate) async fn leader(&self) -> Option<(usize, TrainingStatus)> {
        let leads = |(at, status): (usize, Option<TrainingStatus>)| {
            let status = status?;
            let follows = matches!(status.progress, Progress::Following { .. });
            (!follows).then_some((at, status))
        };
        self.statuses().await.into_iter().enumerate().find_map(leads)
    }

    /// The version that each shard's primary has committed, where one answers. The server that was
    /// killed isn't asked: nobody waits for it.
    pub(crate) async fn versions(&self, killed: Option<usize>) -> Vec<Option<Version>> {
        let others = || self.servers.iter().enumerate().filter(move |(at, _)| killed != Some(*at));
        let of_shard = |shard| async move {
            let asked = others().map(|(_, server)| version(server, ShardId(shard)));
            join_all(asked).await.into_iter().flatten().max()
        };
        join_all((0..self.shards).map(of_shard)).await
    }
}

/// Asks for a version that no job has: a primary refuses that with the one that it has.
async fn version(server: &Link, shard: ShardId) -> Option<Version> {
    let target = Target::new(wire::Role::ParameterServer, shard.0);
    let pull = PullParameters { view: View(u64::MAX), shard, version: Some(Version(u64::MAX)) };
    match timeout(ANSWER_MAX, server.request(target, pull)).await {
        Ok(Err(PullError::OutOfWindow { version, .. })) => Some(version),
        _ => None,
    }
}
