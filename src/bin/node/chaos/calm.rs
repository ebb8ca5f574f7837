//! The run without faults.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::Config;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin};

use super::cluster::{command, log_file};
use super::ports::Ports;

/// A process that trains all in itself, in stores of its own.
pub(crate) struct Calm {
    child: Child,
    /// Closes when this process dies, and the calm run ends.
    _lifeline: Option<ChildStdin>,
}

/// What it answers: its summary, or why there is none.
#[derive(Deserialize)]
struct Answer {
    digest: Option<String>,
    error: Option<String>,
}

impl Calm {
    /// `config` says where it stores; its own configuration and log go to `folder`.
    pub(crate) fn start(config: &Config, folder: &Path, ports: &mut Ports) -> anyhow::Result<Self> {
        let mut calm = config.clone();
        calm.nodes.clear();
        calm.service.listen = ports.take()?;
        calm.service.grpc_listen = None;
        let file = folder.join("calm.toml");
        std::fs::write(&file, calm.to_toml()?)?;
        let mut command = command(&file)?;
        command.args(["--json", "run", "--until-stdin-ends"]).stdout(Stdio::piped());
        command.stderr(log_file(&folder.join("calm.log"))?);
        let mut child = command.spawn().context("starting the calm run")?;
        let lifeline = child.stdin.take();
        Ok(Self { child, _lifeline: lifeline })
    }

    pub(crate) async fn digest(&mut self, limit: Duration) -> anyhow::Result<String> {
        let output = self.child.stdout.take().context("the calm run's answer is read once")?;
        let mut lines = BufReader::new(output).lines();
        let Ok(line) = tokio::time::timeout(limit, lines.next_line()).await else {
            bail!("the calm run is not done within {} s; raise --for", limit.as_secs_f64());
        };
        let line = line?.context("the calm run ended without a word: nothing to compare with")?;
        let answer: Answer = serde_json::from_str(&line).context("the calm run's answer")?;
        let error = answer.error.unwrap_or_else(|| "no digest".to_owned());
        let Some(digest) = answer.digest else {
            bail!("the calm run failed, nothing to compare with: {error}");
        };
        self.end().await;
        Ok(digest)
    }

    pub(crate) async fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}
