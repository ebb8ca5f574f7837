//! `node status`: asks the coordinator of a started cluster, or the service of a single process.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use crate::answer;

use anyhow::bail;
use comfy_table::{Table, presets};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use gradmesh::config::{Config, NodeConfig, Role};
use gradmesh::node::{ask_leader, hello};
use gradmesh::peer::{Link, LinkPolicy, Peer};
use gradmesh::transport::TcpTransport;
use gradmesh::wire::{self, Target};
use gradmesh_actors::messages::{Drain, DrainError, Draining, GetStatus, LinkError, StatusError};
use gradmesh_actors::training::{EventFeed, Progress, TrainingStatus};

use crate::drain::leaving;
use crate::http_status;

/// A connection and an answer on one machine take milliseconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);

/// For which another coordinator is waited for when one says that it leads: longer than an answer
/// takes, and nobody notices.
const OTHERS_WITHIN: Duration = Duration::from_millis(100);

/// Events in the table; --json has more of them.
const SHOWN: usize = 10;

/// Links to the nodes that may coordinate.
pub(crate) struct Coordinators(Vec<Link>);

impl Coordinators {
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let coordinates = |node: &&NodeConfig| node.roles.contains(&Role::Coordinator);
        let link = |node: &NodeConfig| {
            let peer = Peer { node: node.name.clone(), address: node.address };
            let own = hello(config, "status".to_owned());
            Link::open(peer, own, Rc::new(TcpTransport), LinkPolicy::default())
        };
        let links: Vec<Link> = config.nodes.iter().filter(coordinates).map(link).collect();
        anyhow::ensure!(!links.is_empty(), "the configuration has no [[nodes]]");
        Ok(Self(links))
    }

    /// The leader's word; that of one which follows where no leader answers. A leader that has been
    /// superseded and can't hear of it answers, too, with a view that is over.
    pub(crate) async fn status(&self) -> Result<TrainingStatus, StatusError> {
        let mut asked: FuturesUnordered<_> = self.0.iter().map(ask_status).collect();
        let mut leader: Option<TrainingStatus> = None;
        let mut best = Err(StatusError::Link(LinkError::Closed));
        loop {
            let patience = if leader.is_some() { OTHERS_WITHIN } else { LIMIT };
            let Ok(Some(answer)) = tokio::time::timeout(patience, asked.next()).await else {
                break;
            };
            match answer {
                Ok(status) if !matches!(status.progress, Progress::Following { .. }) => {
                    if leader.as_ref().is_none_or(|known| known.view < status.view) {
                        leader = Some(status);
                    }
                }
                Err(_) if best.is_ok() => {}
                answer => best = answer,
            }
        }
        leader.map_or(best, Ok)
    }

    /// The leader's answer, whichever of them leads.
    pub(crate) async fn drain(&self, drain: &Drain) -> Result<Draining, DrainError> {
        ask_leader(&self.0, drain, LIMIT).await
    }
}

async fn ask_status(link: &Link) -> Result<TrainingStatus, StatusError> {
    let target = Target::new(wire::Role::Coordinator, 0);
    let answer = link.request::<GetStatus>(target, GetStatus {});
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(StatusError::Link(LinkError::Timeout {
            limit_ms: u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX),
        })),
    }
}

pub(crate) async fn status(config: Config, json: bool) -> anyhow::Result<ExitCode> {
    let status = if config.nodes.is_empty() {
        http_status::ask(&config)?
    } else {
        match Coordinators::of(&config)?.status().await {
            Ok(status) => status,
            Err(error) => bail!("no status: {error}; is the cluster started (`node up`)?"),
        }
    };
    if json {
        answer::line(serde_json::to_string(&status)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    let progress = match &status.progress {
        Progress::Done(published) => format!("done: version {}", published.version),
        Progress::Failed { cause } => format!("failed: {cause}"),
        Progress::Following { leader: None } => "nobody leads yet".to_owned(),
        Progress::Following { leader: Some(leader) } => {
            format!("led by {leader}, which doesn't answer")
        }
        other => format!("{other:?}").to_lowercase(),
    };
    table.add_row(["run", &progress]);
    let last = status.last_version.map_or_else(|| "?".to_owned(), |last| last.0.to_string());
    table.add_row(["step", &format!("{} of {last}", status.version.0)]);
    table.add_row(["view", &status.view.0.to_string()]);
    let alive = format!(
        "{} servers with {} shards and {} replicas in sync, {} workers",
        status.servers, status.shards, status.replicas, status.workers
    );
    table.add_row(["alive", &alive]);
    if let Some(leaving) = leaving(&config, &status) {
        table.add_row(["leaving", &leaving]);
    }
    let healed = format!(
        "{} members lost, {} promotions, {} rollbacks, {} views that went on",
        status.lost, status.promotions, status.rollbacks, status.new_leases
    );
    table.add_row(["healed", &healed]);
    let checkpoint = status.checkpoint.map_or_else(|| "-".to_owned(), |v| v.0.to_string());
    table.add_row(["checkpoint", &checkpoint]);
    answer::line(table)?;
    if let Some(events) = newest(&status.events) {
        answer::line(events)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What happened last, in plain words.
fn newest(feed: &EventFeed) -> Option<Table> {
    let newest = feed.newest.len().saturating_sub(SHOWN);
    let newest = feed.newest.get(newest..).filter(|newest| !newest.is_empty())?;
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    for event in newest {
        let at = format!("{:.1} s", event.at_ms as f64 / 1e3);
        table.add_row([at, event.view.to_string(), event.to_string()]);
    }
    Some(table)
}
