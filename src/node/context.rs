//! What a node has of the world: its clock, randomness, network, disk and threads.
//!
//! Nothing else in a node's code reaches for them, so that whoever starts the node can give it
//! others, as the simulation does.

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::store::{Store, StoreError, open_store};
use crate::transport::{TcpTransport, Transport};

/// The world of one life of a node. Timers and deadlines come from the runtime that the node runs
/// on, whose clock a simulation moves.
pub trait NodeContext: fmt::Debug {
    fn transport(&self) -> Rc<dyn Transport>;

    /// Opens the store at a path or URL; a relative path is one from `base`.
    ///
    /// # Errors
    /// See [`open_store`].
    fn open_store(&self, url_or_path: &str, base: &Path) -> Result<Store, StoreError>;

    /// Time since 1970, by a clock that may be set back: for descriptions, and to tell one life
    /// of a node from the one before.
    fn unix_time(&self) -> Duration;

    /// A number that no other life of a node is likely to have.
    fn entropy(&self) -> u64;

    /// The transport of actors on threads of their own; `None` where they have none.
    fn threads(&self) -> Option<fn() -> Rc<dyn Transport>>;

    /// Whether other processes may open the same stores, so that the coordinator's is locked.
    fn has_other_processes(&self) -> bool {
        false
    }
}

/// The operating system's clock, TCP, disk and threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct OperatingSystem;

impl NodeContext for OperatingSystem {
    fn transport(&self) -> Rc<dyn Transport> {
        Rc::new(TcpTransport)
    }

    fn open_store(&self, url_or_path: &str, base: &Path) -> Result<Store, StoreError> {
        open_store(url_or_path, base)
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the clock comes in")]
    fn unix_time(&self) -> Duration {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }

    #[expect(clippy::disallowed_methods, reason = "this is where randomness comes in")]
    fn entropy(&self) -> u64 {
        // With the time, which is in a node's life too, no two processes of a machine agree.
        u64::from(std::process::id())
    }

    fn threads(&self) -> Option<fn() -> Rc<dyn Transport>> {
        Some(|| Rc::new(TcpTransport))
    }

    fn has_other_processes(&self) -> bool {
        true
    }
}
