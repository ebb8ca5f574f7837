//! Which node runs what, and how to reach it: a mailbox here, a proxy there.

use std::collections::BTreeMap;
use std::rc::Rc;

use actix::{Actor, Addr, Recipient};
use gradmesh_actors::messages::{NodeCalled, WireMessage};
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::config::{Config, NodeConfig, Role};
use crate::peer::{Link, LinkPolicy, Peer, Proxy, Reach};
use crate::transport::Transport;
use crate::wire::{Hello, Target};

/// Nodes of a cluster by what they run. Empty where everything runs in one process.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    nodes: Vec<NodeConfig>,
    own: Option<String>,
}

impl Plan {
    pub(super) fn new(config: &Config, own: Option<String>) -> Self {
        Self { nodes: config.nodes.clone(), own }
    }

    /// The node that runs number `index` of a role; `None` where there are no nodes.
    pub(super) fn node(&self, role: Role, index: u32) -> Option<&NodeConfig> {
        let with_role: Vec<_> = self.nodes_of(role).collect();
        let count = u32::try_from(with_role.len()).ok().filter(|count| *count > 0)?;
        with_role.get((index % count) as usize).copied()
    }

    /// The nodes of a role, in their order; none where there are no nodes.
    fn nodes_of(&self, role: Role) -> impl Iterator<Item = &NodeConfig> {
        self.nodes.iter().filter(move |node| node.roles.contains(&role))
    }

    /// Whether this process is the node with this number among those of a role.
    pub(super) fn is_node(&self, role: Role, number: u32) -> bool {
        self.own.is_none() || self.own_index(role) == Some(number)
    }

    /// Names of the nodes with a role, in the order of its numbers; empty where there are no nodes.
    pub(super) fn names(&self, role: Role) -> Vec<String> {
        self.nodes_of(role).map(|node| node.name.clone()).collect()
    }

    /// Number of this process among those with a role, if it has the role. 0 where there are no
    /// nodes.
    pub(super) fn own_index(&self, role: Role) -> Option<u32> {
        let Some(own) = &self.own else { return self.nodes.is_empty().then_some(0) };
        let at = self.names(role).iter().position(|name| name == own)?;
        u32::try_from(at).ok()
    }

    /// Place of this process among all nodes.
    pub(super) fn place(&self) -> usize {
        let own = |node: &NodeConfig| self.own.as_ref() == Some(&node.name);
        self.nodes.iter().position(own).unwrap_or(0)
    }

    /// Whether this process runs number `index` of a role.
    pub(super) fn is_here(&self, role: Role, index: u32) -> bool {
        match (&self.own, self.node(role, index)) {
            (Some(own), Some(node)) => node.name == *own,
            (None, _) => true,
            (Some(_), None) => false,
        }
    }
}

/// Links to the other nodes, each opened once.
pub(super) struct Directory {
    plan: Plan,
    own: Hello,
    transport: Rc<dyn Transport>,
    /// Connections are of one target alone, whose thread takes them over.
    direct: bool,
    links: BTreeMap<(String, Option<Target>), Link>,
}

impl Directory {
    pub(super) fn new(plan: Plan, own: Hello, transport: Rc<dyn Transport>) -> Self {
        Self { plan, own, transport, direct: false, links: BTreeMap::new() }
    }

    /// For one actor and what it asks most: from its thread to the other one's, past those of the
    /// nodes.
    pub(super) fn direct(plan: Plan, own: Hello, transport: Rc<dyn Transport>) -> Self {
        Self { direct: true, ..Self::new(plan, own, transport) }
    }

    /// A stand-in for an actor of another node; `None` where nobody has the role.
    pub(super) fn remote(&mut self, role: Role, target: Target) -> Option<Addr<Proxy>> {
        let node = self.plan.node(role, target.index)?.clone();
        Some(self.proxy(node, target))
    }

    /// A stand-in for an actor of one of the nodes of a role, by its number among them.
    pub(super) fn remote_at(
        &mut self,
        role: Role,
        number: u32,
        target: Target,
    ) -> Option<Addr<Proxy>> {
        let node = self.plan.nodes_of(role).nth(number as usize)?.clone();
        Some(self.proxy(node, target))
    }

    /// Tells the coordinator how other nodes' addresses answer calls.
    pub(super) fn watch_calls(&self, coordinator: &Recipient<NodeCalled>) {
        for link in self.links.values() {
            let (mut reach, node) = (link.watch(), link.node().to_owned());
            let coordinator = coordinator.clone();
            spawn_local(async move {
                // An error is the end of the link.
                while reach.changed().await.is_ok() {
                    let refused = match *reach.borrow_and_update() {
                        Reach::Refused { calls } => calls,
                        Reach::Connected => 0,
                        Reach::Uncalled | Reach::Broken | Reach::Unreachable => continue,
                    };
                    // A coordinator that restarts hears of the next call.
                    let _ = coordinator.send(NodeCalled { node: node.clone(), refused }).await;
                }
            });
        }
    }

    /// The link to one of the nodes of a role, by its number among them, where there is one.
    pub(super) fn link_to(&self, role: Role, number: u32) -> Option<Link> {
        let node = self.plan.nodes_of(role).nth(number as usize)?;
        self.links.get(&(node.name.clone(), None)).cloned()
    }

    /// Links to these nodes call again at once where they lose their connection, while this is held.
    pub(super) fn keep_calling(&self, role: Role) -> Vec<watch::Receiver<Reach>> {
        let of_role =
            |(name, _): &(String, _)| self.plan.nodes_of(role).any(|node| node.name == *name);
        let links = self.links.iter().filter(|(to, _)| of_role(to));
        links.map(|(_, link)| link.watch()).collect()
    }

    fn proxy(&mut self, node: NodeConfig, target: Target) -> Addr<Proxy> {
        let alone = self.direct.then_some(target);
        let link = self.links.entry((node.name.clone(), alone)).or_insert_with(|| {
            let peer = Peer { node: node.name, address: node.address };
            let own = Hello { target: alone, ..self.own.clone() };
            Link::open(peer, own, Rc::clone(&self.transport), LinkPolicy::default())
        });
        Proxy { link: link.clone(), target }.start()
    }
}

/// Either side of a `Recipient`.
pub(super) enum Place<A: Actor> {
    Here(Addr<A>),
    There(Addr<Proxy>),
}

impl<A: Actor> Clone for Place<A> {
    fn clone(&self) -> Self {
        match self {
            Self::Here(address) => Self::Here(address.clone()),
            Self::There(proxy) => Self::There(proxy.clone()),
        }
    }
}

impl<A: Actor> Place<A> {
    pub(super) fn recipient<M>(&self) -> Recipient<M>
    where
        M: WireMessage + Send + 'static,
        M::Result: Send,
        A: actix::Handler<M>,
        A::Context: actix::dev::ToEnvelope<A, M>,
    {
        match self {
            Self::Here(address) => address.clone().recipient(),
            Self::There(proxy) => proxy.clone().recipient(),
        }
    }
}
