//! Ports for processes that die and come back.

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
#[derive(Debug)]
pub(crate) struct Ports(u64);

impl Ports {
    /// Begins where nobody else is likely to begin.
    pub(crate) fn new() -> Self {
        let time = u64::from(OperatingSystem.unix_time().subsec_nanos());
        Self(OperatingSystem.entropy().wrapping_mul(97).wrapping_add(time))
    }

    pub(crate) fn take(&mut self) -> anyhow::Result<SocketAddr> {
        for _ in 0..TRIES {
            self.0 = self.0.wrapping_add(1);
            let Ok(port) = u16::try_from(FIRST + self.0 % (LAST - FIRST)) else { continue };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
        bail!("no free port between {FIRST} and {LAST} after {TRIES} tries")
    }
}
