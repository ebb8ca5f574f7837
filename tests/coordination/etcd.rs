//! The log in a real etcd: one server on the loopback device, with a folder and ports of its own.

use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use actix::{Actor, Addr};
use etcd_client::{Client, GetOptions};
use gradmesh::store::coordination::CoordinationStore;
use gradmesh_actors::messages::coordination::{Appended, CoordinationError};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::conformance::conforms;
use crate::support::{Place, append, beat, entry, observe, renew, resign, won};

/// What Debian's etcd-server says when it can be asked.
const READY: &str = "serving client traffic insecurely";
/// A start takes less than a second; this is for a very busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const PREFIX: &str = "gradmesh/test";

pub(crate) struct Etcd {
    folder: TempDir,
    port: u16,
    peer_port: u16,
    server: Mutex<Option<Child>>,
}

impl Etcd {
    pub(crate) async fn start() -> Self {
        let (folder, port, peer_port) = (TempDir::new().unwrap(), free_port(), free_port());
        let etcd = Self { folder, port, peer_port, server: Mutex::new(None) };
        etcd.run().await;
        etcd
    }

    async fn run(&self) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = (url(self.port), url(self.peer_port));
        let mut server = Command::new("etcd")
            .args(["--name", "test", "--logger", "zap", "--data-dir"])
            .arg(self.folder.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("test={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd is needed: install Debian's etcd-server");
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(READY) {
                    return;
                }
            }
            panic!("etcd has ended");
        };
        tokio::time::timeout(STARTS_WITHIN, ready).await.expect("etcd doesn't start");
        // Its pipe is emptied for as long as it lives.
        tokio::task::spawn_local(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        *self.server.lock().unwrap() = Some(server);
    }

    /// SIGKILL.
    async fn kill(&self) {
        let server = self.server.lock().unwrap().take();
        server.unwrap().kill().await.unwrap();
    }

    fn at(&self, endpoints: &str, patience: Duration) -> Addr<CoordinationStore> {
        let place = format!("etcd://{endpoints}/{PREFIX}");
        let store = CoordinationStore::open(&place, patience, |_| panic!("it is no folder"));
        store.unwrap().start()
    }

    async fn client(&self) -> Client {
        Client::connect([format!("127.0.0.1:{}", self.port)], None).await.unwrap()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Place for Etcd {
    fn open(&self) -> Addr<CoordinationStore> {
        // Long enough for a busy machine.
        self.at(&format!("127.0.0.1:{}", self.port), Duration::from_secs(10))
    }

    fn entry_name(&self, view: u64) -> String {
        let port = self.port;
        format!(
            "key {PREFIX}/views/{view:020} in coordination.store etcd://127.0.0.1:{port}/{PREFIX} is damaged"
        )
    }

    async fn overwrite(&self, view: u64, bytes: &[u8]) {
        let key = format!("{PREFIX}/views/{view:020}");
        self.client().await.put(key, bytes, None).await.unwrap();
    }

    async fn overwrite_beat(&self, bytes: &[u8]) {
        self.client().await.put(format!("{PREFIX}/beat"), bytes, None).await.unwrap();
    }

    async fn views(&self) -> Vec<u64> {
        let all = GetOptions::new().with_prefix().with_keys_only();
        let prefix = format!("{PREFIX}/views/");
        let found = self.client().await.get(prefix.clone(), Some(all)).await.unwrap();
        let number = |key: &str| key.strip_prefix(&prefix).unwrap().parse().unwrap();
        found.kvs().iter().map(|found| number(found.key_str().unwrap())).collect()
    }
}

conforms!(Etcd::start().await);

#[actix_rt::test]
async fn a_server_that_was_killed_and_started_again_has_kept_the_log_and_is_found_again() {
    let etcd = Etcd::start().await;
    let store = etcd.at(&format!("127.0.0.1:{}", etcd.port), Duration::from_millis(500));
    eventually(async || append(&store, entry(1, 1, "a")).await == Ok(Appended::Won)).await;
    etcd.kill().await;
    for refused in [
        append(&store, entry(2, 1, "a")).await.unwrap_err(),
        observe(&store).await.unwrap_err(),
        renew(&store, beat(1, "a", 1)).await.unwrap_err(),
    ] {
        assert!(matches!(refused, CoordinationError::NoAnswer { .. }), "{refused}");
        assert!(refused.may_pass());
    }
    etcd.run().await;
    eventually(async || observe(&store).await.is_ok()).await;
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "a")));
    won(&store, 2, 1, "a").await;
}

#[actix_rt::test]
async fn one_member_of_several_is_enough() {
    let etcd = Etcd::start().await;
    // One says nothing, one isn't there.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let endpoints = format!("{silent_at},127.0.0.1:{},127.0.0.1:{}", free_port(), etcd.port);
    let store = etcd.at(&endpoints, Duration::from_secs(6));
    for view in 1..=20 {
        won(&store, view, 1, "a").await;
    }
}

/// A server that accepts connections and says nothing.
#[actix_rt::test]
async fn a_server_that_is_silent_is_not_waited_for_longer_than_the_patience() {
    let etcd = Etcd::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = silent.local_addr().unwrap().to_string();
    let store = etcd.at(&endpoints, Duration::from_millis(200));
    let start = tokio::time::Instant::now();
    let refused = observe(&store).await.unwrap_err();
    assert!(matches!(refused, CoordinationError::NoAnswer { .. }), "{refused}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Etcd counts whole seconds, and at least as many as its own election takes: two here.
#[actix_rt::test]
async fn the_beat_of_a_leader_that_is_gone_goes_and_one_that_is_renewed_stays() {
    let etcd = Etcd::start().await;
    let store = etcd.open();
    won(&store, 1, 1, "a").await;
    let mut count = 0;
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < until {
        count += 1;
        renew(&store, beat(1, "a", count)).await.unwrap();
        assert_eq!(observe(&store).await.unwrap().beat, Some(beat(1, "a", count)));
    }
    eventually(async || observe(&store).await.unwrap().beat.is_none()).await;
    assert_eq!(observe(&store).await.unwrap().newest, Some(entry(1, 1, "a")));
    resign(&store, 1, "a").await;
}

/// Asks again until it holds; each question takes its time.
async fn eventually(holds: impl AsyncFn() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(STARTS_WITHIN, asked).await.expect("it never holds");
}
