//! Ports for processes that die and come back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;
use gradmesh::node::{NodeContext, OperatingSystem};

/// Below those that systems give to outgoing connections: one of those could take a port while its
/// node is down.
const FIRST: u64 = 10_000;
const LAST: u64 = 32_000;
/// A machine on which so many are taken has others to give to nobody.
const TRIES: usize = 1000;

/// Ports that were free when they were taken, each once.
#[derive(Default)]
pub(super) struct Ports(BTreeSet<u16>);

impl Ports {
    pub(super) fn take(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..TRIES {
            let port = FIRST + OperatingSystem.entropy() % (LAST - FIRST);
            let Ok(port) = u16::try_from(port) else { continue };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() && self.0.insert(port) {
                return Ok(address);
            }
        }
        bail!("no free port between {FIRST} and {LAST} after {TRIES} tries")
    }
}
