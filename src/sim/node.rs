//! What a simulated node has of its world.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16};
use std::time::Duration;

use gradmesh_actors::training::TrainingStatus;
use tokio::sync::watch;
use tokio::task::spawn_local;

use super::disk::Disk;
use super::network::Network;
use super::operator::Wishes;
use super::trace::NodeIndex;
use super::transport::SimTransport;
use crate::node::NodeContext;
use crate::peer::{Link, LinkPolicy, Peer};
use crate::router::Router;
use crate::store::{Store, StoreError};
use crate::transport::Transport;
use crate::wire::{ConfigDigest, Hello};

/// 2026-01-01: simulations begin then.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Where [`SimNode::serve`] listens.
const PORT: u16 = 7000;

/// One life of a simulated node: its clock, network, disk and name.
#[derive(Clone)]
pub struct SimNode {
    pub(super) index: NodeIndex,
    pub(super) name: Rc<str>,
    pub(super) names: Rc<[String]>,
    /// Drawn for this life.
    pub(super) entropy: u64,
    pub(super) disk: Disk,
    pub(super) seen: Rc<Seen>,
    pub(super) skew_ms: Rc<Cell<i64>>,
    /// The next gradient that is computed here panics.
    pub(super) panics: Arc<AtomicBool>,
    /// How many times as long a gradient takes here.
    pub(super) slow: Arc<AtomicU16>,
    /// Nodes that are to leave.
    pub(super) wishes: watch::Receiver<Wishes>,
}

/// What nodes show to the checks.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) training: RefCell<BTreeMap<NodeIndex, watch::Receiver<TrainingStatus>>>,
    pub(super) values: RefCell<BTreeMap<(NodeIndex, String), i64>>,
}

impl Seen {
    /// Whether a run has another status than at the last call.
    pub(super) fn training_changed(&self) -> bool {
        let mut any = false;
        for status in self.training.borrow_mut().values_mut() {
            if status.has_changed().unwrap_or(true) {
                status.mark_unchanged();
                any = true;
            }
        }
        any
    }
}

impl SimNode {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shows a number of this node to the checks of the simulation. It outlives the node.
    pub fn show(&self, key: &str, value: i64) {
        self.seen.values.borrow_mut().insert((self.index, key.to_owned()), value);
    }

    /// Shows a run to the checks, and to the report.
    pub fn show_training(&self, mut status: watch::Receiver<TrainingStatus>) {
        status.mark_changed();
        self.seen.training.borrow_mut().insert(self.index, status);
    }

    /// Answers other nodes' messages with the actors of `router`, for as long as this node lives.
    ///
    /// # Errors
    /// It serves already.
    pub async fn serve(&self, router: &Router) -> std::io::Result<()> {
        let listener = self.transport().listen(address(self.index)).await?;
        spawn_local(router.clone().serve(listener, self.hello()));
        Ok(())
    }

    /// The way to another node, which need not be up.
    ///
    /// # Panics
    /// The simulation has no node of that name.
    #[must_use]
    pub fn link(&self, node: &str) -> Link {
        let index = self.names.iter().position(|name| name == node);
        let Some(index) = index.and_then(|index| NodeIndex::try_from(index).ok()) else {
            panic!("no node is called {node:?}; there are {}", self.names.join(", "))
        };
        let peer = Peer { node: node.to_owned(), address: address(index) };
        Link::open(peer, self.hello(), self.transport(), LinkPolicy::default())
    }

    fn hello(&self) -> Hello {
        Hello {
            cluster: "simulation".to_owned(),
            node: self.name.to_string(),
            config_digest: ConfigDigest([0; 32]),
            target: None,
        }
    }
}

fn address(node: NodeIndex) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + node), PORT))
}

impl NodeContext for SimNode {
    fn transport(&self) -> Rc<dyn Transport> {
        Rc::new(SimTransport { node: self.index })
    }

    fn open_store(&self, url_or_path: &str, _base: &Path) -> Result<Store, StoreError> {
        // No path of the real machine: it would be in the trace.
        Ok(self.disk.open(self.index, url_or_path).into())
    }

    fn unix_time(&self) -> Duration {
        let now = Network::with(|wires| wires.now_ms()).unwrap_or(0);
        Duration::from_millis((EPOCH_MS + now).saturating_add_signed(self.skew_ms.get()))
    }

    fn entropy(&self) -> u64 {
        self.entropy
    }

    fn threads(&self) -> Option<fn() -> Rc<dyn Transport>> {
        None
    }
}

impl fmt::Debug for SimNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNode").field("name", &self.name).finish_non_exhaustive()
    }
}
