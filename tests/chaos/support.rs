//! The job of the plans, and `node chaos` in a temporary folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what a process takes to end on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The digits on two servers and two workers with residuals, a norm over both shards and state at
/// the servers: 460 steps in some three seconds, simulated and real.
pub(crate) const JOB: [&str; 10] = [
    "job.epochs=20",
    "workers.count=2",
    "servers.shards=2",
    "checkpoint.every_steps=20",
    "job.gradient.codec=top-k",
    "job.gradient.top_k=0.05",
    "job.gradient.clip_norm=1",
    "job.optimizer.kind=momentum",
    "detector.heartbeat_ms=50",
    "detector.dead_after_ms=500",
];

pub(crate) fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// A place for the temporary files of `node chaos` and `node demo`.
#[derive(Debug)]
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `node chaos` with this configuration on the job of the plans.
    pub(crate) fn chaos(&self, config: &str, arguments: &[&str]) -> Command {
        self.node(config, "chaos", arguments)
    }

    /// Another command on the same.
    pub(crate) fn node(&self, config: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_node"));
        command.arg("--config").arg(path(config)).env("TMPDIR", self.0.path());
        for set in JOB {
            command.args(["--set", set]);
        }
        command.arg(name).args(arguments).env_remove("GRADMESH_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let file = self.0.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Folders that a `node chaos` has left.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let entries = self.0.path().read_dir().unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect()
    }

    /// Processes whose command line names this place: nodes have their configuration here.
    pub(crate) fn processes(&self) -> Vec<String> {
        let own = self.0.path().to_str().unwrap();
        let Ok(entries) = Path::new("/proc").read_dir() else { return Vec::new() };
        let lines = entries.filter_map(|entry| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        });
        lines.filter(|line| line.contains("/gradmesh-") && line.contains(own)).collect()
    }

    /// Waits until `reached`.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let until = Instant::now() + WAIT_MAX;
        while !reached(self) {
            assert!(Instant::now() < until, "no {what}: {:?}", self.processes());
            std::thread::yield_now();
        }
    }
}

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[track_caller]
pub(crate) fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no answer: {error}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}
