//! Clusters in folders of their own, and processes that don't outlive their test.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what a step takes on a busy machine; a test that waits this long has failed.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at state that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// `up` gives each node 5 s to end.
const END_MAX: Duration = Duration::from_secs(10);

/// Longer words of the grid: all sizes instead of a few.
pub(crate) fn full_grid() -> bool {
    std::env::var("GRADMESH_GRID").is_ok_and(|grid| grid == "full")
}

/// A job on the digits in a temporary folder.
#[derive(Debug)]
pub(crate) struct Job {
    folder: TempDir,
    sets: Vec<String>,
    /// Addresses of `[[nodes]]` by name, then `service.listen`.
    pub(crate) ports: Vec<(String, u16)>,
}

impl Job {
    /// Everything in one process.
    pub(crate) fn embedded(sets: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = include_str!("../../examples/digits.toml")
            .replace("../gradmesh-data/digits", "store")
            .replace("../data", &format!("{}/data", env!("CARGO_MANIFEST_DIR")));
        std::fs::write(folder.path().join("cluster.toml"), text).unwrap();
        let mut job = Self { folder, sets: Vec::new(), ports: Vec::new() };
        // A free port for whoever serves, a detector that is not the longest part of a test.
        let listen = free_port();
        job.ports.push(("service".to_owned(), listen));
        job.set(&format!("service.listen=127.0.0.1:{listen}"));
        job.set("detector.heartbeat_ms=50");
        job.set("detector.dead_after_ms=500");
        sets.iter().for_each(|set| job.set(set));
        job
    }

    /// A process each for the coordinator with registry and service, and for each server and worker.
    pub(crate) fn processes(workers: u32, shards: u32, sets: &[&str]) -> Self {
        let mut job = Self::embedded(sets);
        job.set(&format!("workers.count={workers}"));
        job.set(&format!("servers.shards={shards}"));
        let mut nodes = vec![("main".to_owned(), r#"["coordinator", "registry", "service"]"#)];
        nodes.extend((0..shards).map(|shard| (format!("ps-{shard}"), r#"["server"]"#)));
        nodes.extend((0..workers).map(|worker| (format!("worker-{worker}"), r#"["worker"]"#)));
        let mut text = std::fs::read_to_string(job.config()).unwrap();
        for (name, roles) in nodes {
            let port = free_port();
            write!(
                text,
                "\n[[nodes]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nroles = {roles}\n"
            )
            .unwrap();
            job.ports.push((name, port));
        }
        std::fs::write(job.config(), text).unwrap();
        job
    }

    /// One that trains, two that have a registry and a service each, `a` and `b`, and `c`, which has
    /// a service alone. Services listen on the ports of `http-a`, `http-b` and `http-c`.
    pub(crate) fn two_registries(sets: &[&str]) -> Self {
        let mut job = Self::embedded(sets);
        let mut text = std::fs::read_to_string(job.config()).unwrap();
        for (name, roles) in [
            ("main", r#"["coordinator", "server", "worker"]"#),
            ("a", r#"["registry", "service"]"#),
            ("b", r#"["registry", "service"]"#),
            ("c", r#"["service"]"#),
        ] {
            let port = free_port();
            let node = format!("name = \"{name}\"\naddress = \"127.0.0.1:{port}\"");
            write!(text, "\n[[nodes]]\n{node}\nroles = {roles}\n").unwrap();
            job.ports.push((name.to_owned(), port));
            if roles.contains("service") {
                let listen = free_port();
                writeln!(text, "listen = \"127.0.0.1:{listen}\"").unwrap();
                job.ports.push((format!("http-{name}"), listen));
            }
        }
        std::fs::write(job.config(), text).unwrap();
        job
    }

    /// As the processes of this job read it.
    pub(crate) fn load(&self) -> gradmesh::config::Config {
        gradmesh::config::Config::load(&self.config(), &self.sets, std::iter::empty()).unwrap()
    }

    pub(crate) fn set(&mut self, set: &str) {
        self.sets.push(set.to_owned());
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("cluster.toml")
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(crate) fn port(&self, name: &str) -> u16 {
        self.ports.iter().find(|(known, _)| known == name).unwrap().1
    }

    /// Starts `node` with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// `node` with these arguments, not started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.arg("--config").arg(self.config()).arg("--log").arg("info");
        for set in &self.sets {
            command.arg("--set").arg(set);
        }
        command.args(arguments).env_remove("GRADMESH_LOG");
        command
    }

    /// Runs `node` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    /// Trains in one process, to the digest.
    pub(crate) fn train(&self) -> Trained {
        self.run(&["train", "--json"]).trained()
    }

    /// Trains on processes, to the digest.
    pub(crate) fn up(&self) -> Trained {
        self.run(&["up", "--train", "--json"]).trained()
    }

    /// Manifests of whole checkpoints, in the order of their versions.
    pub(crate) fn manifests(&self) -> Vec<PathBuf> {
        let Ok(folders) = self.path("store/checkpoints").read_dir() else { return Vec::new() };
        let mut manifests: Vec<PathBuf> = folders
            .filter_map(|folder| Some(folder.ok()?.path().join("manifest.json")))
            .filter(|manifest| manifest.is_file())
            .collect();
        manifests.sort();
        manifests
    }
}

/// What a finished run said of itself.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) digest: String,
    pub(crate) summary: Value,
    pub(crate) ended: Ended,
}

impl Trained {
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.summary[key].as_u64().unwrap_or_else(|| panic!("no {key} in {}", self.summary))
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn trained(self) -> Trained {
        assert_eq!(self.status.code(), Some(0), "{self}");
        let summary: Value = serde_json::from_str(self.stdout.trim())
            .unwrap_or_else(|error| panic!("no summary: {error}\n{self}"));
        let digest = summary["digest"].as_str().unwrap().to_owned();
        Trained { digest, summary, ended: self }
    }

    /// It failed, with exit code 1 and each of these sentences on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, sentences: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{self}");
        for sentence in sentences {
            assert!(self.stderr.contains(sentence), "{sentence:?} is missing in\n{self}");
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nstdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr)
    }
}

/// A process that ends with its test.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<(Stream, String)>,
    stdout: String,
    stderr: String,
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Out,
    Err,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        read(child.stdout.take().unwrap(), Stream::Out, sender.clone());
        read(child.stderr.take().unwrap(), Stream::Err, sender);
        Self { child, lines, stdout: String::new(), stderr: String::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Takes a line; `None` after `wait`. The end of the process is the end of both streams.
    fn line(&mut self, wait: Duration) -> Result<Option<&str>, RecvTimeoutError> {
        let (stream, line) = match self.lines.recv_timeout(wait) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(ended @ RecvTimeoutError::Disconnected) => return Err(ended),
        };
        let text = match stream {
            Stream::Out => &mut self.stdout,
            Stream::Err => &mut self.stderr,
        };
        let start = text.len();
        text.push_str(&line);
        text.push('\n');
        Ok(Some(&text[start..]))
    }

    /// Waits for the next line that contains `wanted`.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, wanted: &str) -> String {
        let until = Instant::now() + WAIT_MAX;
        loop {
            match self.line(until.saturating_duration_since(Instant::now())) {
                Ok(Some(line)) if line.contains(wanted) => return line.to_owned(),
                Ok(Some(_)) => {}
                Ok(None) => panic!("no line with {wanted:?}\n{self}"),
                Err(_) => panic!("ended without a line with {wanted:?}\n{self}"),
            }
        }
    }

    /// Waits until `reached` gives something, while the process runs.
    #[track_caller]
    pub(crate) fn wait_until<T>(&mut self, what: &str, reached: impl Fn() -> Option<T>) -> T {
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(reached) = reached() {
                return reached;
            }
            assert!(self.line(LOOK_EVERY).is_ok(), "ended before {what}\n{self}");
            assert!(Instant::now() < until, "no {what} in time\n{self}");
        }
    }

    /// Waits for whole checkpoints of `job`.
    #[track_caller]
    pub(crate) fn wait_for_manifests(&mut self, job: &Job, count: usize) {
        self.wait_until("a whole checkpoint", || (job.manifests().len() >= count).then_some(()));
    }

    /// The newest process of a node that this `up` started. Waits for its log line.
    #[track_caller]
    pub(crate) fn node(&mut self, name: &str) -> Pid {
        while let Ok(Some(_)) = self.line(Duration::ZERO) {}
        if let Some(pid) = started(&self.stderr, Some(name)).last() {
            return *pid;
        }
        let line = self.wait_for_line(&format!("started node=\"{name}\""));
        started(&line, Some(name))[0]
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.collect()
    }

    /// `kill -9` to an `up` and to all that it started.
    pub(crate) fn kill_all(mut self) -> Ended {
        self.child.kill().unwrap();
        let ended = self.collect();
        for node in started(&ended.stderr, None) {
            // Those that were replaced are gone.
            let _ = kill(node, Signal::SIGKILL);
        }
        ended
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        self.collect()
    }

    #[track_caller]
    fn collect(&mut self) -> Ended {
        let until = Instant::now() + WAIT_MAX;
        while let Ok(line) = self.line(until.saturating_duration_since(Instant::now())) {
            assert!(line.is_some(), "not ended in time\n{self}");
        }
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.clone(), self.stderr.clone());
        let ended = Ended { status, stdout, stderr };
        assert!(!ended.stderr.contains("panicked"), "{ended}");
        ended
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // `up` ends its nodes when it is asked to end; one that doesn't is killed with them.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let until = Instant::now() + END_MAX;
        while let Ok(Some(_)) = self.line(until.saturating_duration_since(Instant::now())) {}
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            for node in started(&self.stderr, None) {
                let _ = kill(node, Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Processes that an `up` says it has started, all or one node's.
fn started(log: &str, name: Option<&str>) -> Vec<Pid> {
    let of_node = |line: &&str| {
        let mark =
            name.map_or("started node=".to_owned(), |name| format!("started node=\"{name}\""));
        line.contains(&mark)
    };
    let pid = |line: &str| line.split_once("pid=")?.1.trim_end().parse().ok().map(Pid::from_raw);
    log.lines().filter(of_node).filter_map(pid).collect()
}

fn read(stream: impl Read + Send + 'static, which: Stream, lines: Sender<(Stream, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if lines.send((which, line)).is_err() {
                return;
            }
        }
    });
}

/// A port that nobody has, below those that the system gives to outgoing connections: one of those
/// could be taken again between here and the node's start.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port < 32_768, "no free port is left for this test");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
