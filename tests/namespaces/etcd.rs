//! An etcd of one member on the third host.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::network::{Network, STORE, address};

/// What `coordination.store` says.
pub(crate) fn place() -> String {
    format!("etcd://{}:2379/gradmesh/test", STORE.1)
}

/// Nobody waits until it can be asked: coordinators ask again.
pub(crate) fn start(network: &Network, folder: &Path) -> Child {
    let url = |address: &str, port: u16| format!("http://{address}:{port}");
    let (client, peer) = (url(STORE.1, 2379), url(&address(STORE.0), 2380));
    let log = File::create(folder.join("etcd.log")).unwrap();
    let mut command = network.on(STORE.0, "etcd");
    command
        .args(["--name", "test", "--logger", "zap", "--data-dir"])
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("test={peer}")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("etcd is needed: install Debian's etcd-server")
}
