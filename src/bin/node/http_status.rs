//! The status of a single process, which has no address but that of its service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::bail;
use gradmesh::config::Config;
use gradmesh::service::{ClusterStatus, STATUS_PATH};
use gradmesh_actors::training::TrainingStatus;

use crate::status::LIMIT;

/// An epoch takes 150 bytes: enough for the longest runs, and no stranger fills the memory.
const ANSWER_MAX: u64 = 64 << 20;

/// Asks whoever listens on `service.listen`.
pub(crate) fn ask(config: &Config) -> anyhow::Result<TrainingStatus> {
    let address = reachable(config.service.listen);
    if address.port() == 0 {
        bail!("service.listen has port 0, so nobody knows where it listens; set its port");
    }
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // What answers here is the cluster or a mistake, never somebody to be sent on by.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .timeout_global(Some(LIMIT))
        .build()
        .new_agent();
    let mut answer = match agent.get(format!("http://{address}{STATUS_PATH}")).call() {
        Ok(answer) => answer,
        Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            bail!("nothing listens on {address}; start `node run`, or correct service.listen")
        }
        Err(ureq::Error::Protocol(_)) => bail!("{}", not_gradmesh(address)),
        Err(error) => bail!("no status from {address}: {error}; check service.listen"),
    };
    let Ok(status) = answer.body_mut().with_config().limit(ANSWER_MAX).read_json::<ClusterStatus>()
    else {
        bail!("{}", not_gradmesh(address));
    };
    judge(status, config, address)
}

/// Whether it is the status of this configuration's run.
fn judge(
    status: ClusterStatus,
    config: &Config,
    address: SocketAddr,
) -> anyhow::Result<TrainingStatus> {
    let own = &config.cluster.name;
    let other = &status.cluster;
    if other != own {
        bail!(
            "the gradmesh on {address} is of cluster {other:?}, not {own:?}; correct cluster.name or service.listen"
        );
    }
    match (status.training, status.error) {
        (Some(training), _) => Ok(training),
        (None, Some(error)) => bail!("no status: {error}"),
        (None, None) => bail!("the gradmesh on {address} trains nothing, it only serves"),
    }
}

fn not_gradmesh(address: SocketAddr) -> String {
    format!("what listens on {address} is not gradmesh; correct service.listen")
}

/// A service that listens everywhere is reached on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
