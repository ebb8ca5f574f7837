//! Serving: the HTTP service of a node beside a bare handler, both in this process, under the same
//! load.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use anyhow::{Context, bail};
use bytes::Bytes;
use gradmesh::config::Config;
use gradmesh::node::{Node, NodeBuilder};
use gradmesh_actors::dataset::Scaling;
use gradmesh_actors::layout::Layout;
use gradmesh_actors::messages::{PublishModel, Published, ask};
use gradmesh_actors::model::{Model, ModelDescription, ModelKinds, initialise};
use gradmesh_actors::new_version::NewVersion;
use gradmesh_actors::version::TensorShape;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::load::{Answers, Client, Load, load};
use super::row::{Goal, Row, Unit, quantile};
use super::{Effort, bare, requests};
use crate::chaos::cluster::stores_in;

/// The model of the peers' figures.
const FEATURES: usize = 784;
const HIDDEN: [usize; 2] = [64, 32];
const OUTPUTS: usize = 10;

const CONNECTIONS: [usize; 2] = [1, 64];
/// Of the load under which versions are published.
const SWAP_CONNECTIONS: usize = 8;
/// How often each side of a row is measured in a round. The other programs of a machine slow down
/// some moments, and both sides seldom alike: the median of many short ones is what a row says.
const TURNS: u32 = 5;
/// Between two publications.
const SWAP_EVERY: Duration = Duration::from_millis(100);
const PUBLISH_MAX: Duration = Duration::from_secs(10);
const NEW_VERSION_MAX: Duration = Duration::from_secs(10);
/// Publications whose first reply is waited for, quick and full.
const FIRST_REPLIES: [usize; 2] = [5, 40];

/// The service and the handler beside it.
pub(super) struct Served {
    node: Node,
    architecture: ModelDescription,
    layout: Layout,
    /// What versions have by turns. Made before: no part of a publication, on the same two cores.
    parameters: [Vec<f32>; 2],
    published: usize,
    limit: std::net::SocketAddr,
    limit_handle: ServerHandle,
}

#[derive(Deserialize)]
struct Answer {
    model_version: String,
}

pub(super) async fn rows(
    config: &Config,
    effort: Effort,
    folder: &Path,
) -> anyhow::Result<Vec<Row>> {
    let mut served = Served::start(config, &folder.join("serving")).await?;
    let row = row();
    let forms = [("JSON", requests::json(&row)), ("binary", requests::binary(&row))];
    let mut rows = Vec::new();
    for connections in CONNECTIONS {
        for (form, request) in &forms {
            rows.push(served.beside(form, request, connections, effort).await?);
        }
    }
    rows.push(served.swaps(&forms[1].1, effort).await?);
    rows.push(served.first_replies(&forms[0].1, effort).await?);
    served.stop().await;
    Ok(rows)
}

/// What is asked for.
pub(super) fn row() -> Vec<f32> {
    (0..FEATURES).map(|at| (at * 37 % 256) as f32).collect()
}

impl Served {
    pub(super) async fn start(config: &Config, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(folder).context("temporary folder")?;
        let mut config = stores_in(config, folder);
        config.nodes.clear();
        config.service.listen = ([127, 0, 0, 1], 0).into();
        config.service.grpc_listen = None;
        let node = NodeBuilder::new(config).train(false).serve(true).start().await?;
        let settings = json!({
            "features": FEATURES, "outputs": OUTPUTS, "hidden": HIDDEN,
            "activation": "relu", "loss": "softmax",
        });
        let architecture = ModelDescription { kind: "mlp".to_owned(), settings };
        let model: Arc<dyn Model> = ModelKinds::builtin().build(&architecture)?;
        let layout = Layout::new(model.tensors())?;
        let of = |seed| initialise(&layout, seed, 0..layout.len());
        let parameters = [of(0)?, of(1)?];
        let (limit, limit_handle) = bare::start(model, parameters[0].clone())?;
        let mut served =
            Self { node, architecture, layout, parameters, published: 0, limit, limit_handle };
        served.publish().await?;
        Ok(served)
    }

    pub(super) async fn stop(self) {
        self.limit_handle.stop(false).await;
        self.node.stop().await;
    }

    pub(super) fn address(&self) -> anyhow::Result<std::net::SocketAddr> {
        self.node.http_address().context("the node serves")
    }

    /// A version with other parameters than the one before.
    async fn publish(&mut self) -> anyhow::Result<u64> {
        self.published += 1;
        let (layout, run) = (&self.layout, format!("bench-{}", self.published));
        let values = &self.parameters[self.published % 2];
        let shape = |spec: &gradmesh_actors::layout::TensorSpec| TensorShape {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
        };
        let description = NewVersion {
            model: requests::MODEL.to_owned(),
            architecture: self.architecture.clone(),
            tensors: layout.tensors().iter().map(shape).collect(),
            features: FEATURES,
            outputs: OUTPUTS,
            classes: Some(OUTPUTS),
            scaling: Scaling::Divide { by: 255.0 },
            job: json!({}),
            job_digest: "bench".to_owned(),
            data_digest: "none".to_owned(),
            digest: run.clone(),
            run,
            steps: 0,
            epochs: 0,
            metrics: Default::default(),
            created_unix_ms: 0,
            signature: None,
            made_of: Vec::new(),
            parent: None,
        };
        let mut rest = values.as_slice();
        let mut tensors = Vec::new();
        for tensor in &description.tensors {
            let (values, others) = rest.split_at(tensor.len().context("a small tensor")?);
            tensors.push(values.to_vec().into());
            rest = others;
        }
        let publish = PublishModel { description, tensors, file: None };
        let publication = ask(&self.node.registries().publish, publish, PUBLISH_MAX).await;
        let Published { version, .. } = publication.context("publication of the bench's model")?;
        Ok(version)
    }

    /// Both under the same load, in turns.
    async fn beside(
        &self,
        form: &str,
        request: &Bytes,
        connections: usize,
        effort: Effort,
    ) -> anyhow::Result<Row> {
        let (what, unit, goal) = if connections == 1 {
            let what = format!("{form} request, 1 connection, p50");
            (what, Unit::Microseconds, Goal::AtMost(1.3))
        } else {
            let what = format!("{form} requests, {connections} connections");
            (what, Unit::RequestsPerSecond, Goal::AtLeast(0.8))
        };
        let of = |answers: &Answers| match unit {
            Unit::Microseconds => answers.quantile(0.5),
            _ => answers.rate(),
        };
        let mut row = Row::new(what, "bare handler", unit, goal);
        for _ in 0..TURNS {
            let lasts = effort.repeats * 4 / TURNS;
            let limit = load(self.limit, request, connections, lasts).await?;
            let ours = load(self.address()?, request, connections, lasts).await?;
            row = row.with(of(&ours), of(&limit));
        }
        Ok(row)
    }

    /// A load while versions are published, in turns with the same load alone.
    async fn swaps(&mut self, request: &Bytes, effort: Effort) -> anyhow::Result<Row> {
        let what = "p99 while ten versions a second are published".to_owned();
        let mut row = Row::new(what, "no publication", Unit::Microseconds, Goal::AtMost(1.2));
        for _ in 0..TURNS {
            let lasts = effort.repeats * 2;
            let calm = load(self.address()?, request, SWAP_CONNECTIONS, lasts).await?;
            let under = Load::start(self.address()?, request.clone(), SWAP_CONNECTIONS);
            let started = Instant::now();
            while started.elapsed() < lasts {
                sleep(SWAP_EVERY).await;
                self.publish().await?;
            }
            let swapped = under.end().await?;
            row = row.with(swapped.quantile(0.99), calm.quantile(0.99));
        }
        Ok(row)
    }

    /// From a publication's answer to the first prediction by the new version.
    async fn first_replies(&mut self, request: &Bytes, effort: Effort) -> anyhow::Result<Row> {
        let mut client = Client::connect(self.address()?).await?;
        client.ask(request).await?;
        let mut seconds = Vec::new();
        for _ in 0..FIRST_REPLIES[usize::from(effort.repeats >= Effort::FULL.repeats)] {
            let version = self.publish().await?.to_string();
            let acknowledged = Instant::now();
            loop {
                let answer: Answer = serde_json::from_slice(&client.ask(request).await?)?;
                if answer.model_version == version {
                    break;
                }
                if acknowledged.elapsed() > NEW_VERSION_MAX {
                    bail!("version {version} does not answer");
                }
            }
            seconds.push(acknowledged.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let what = "publication to the first reply by it, p99".to_owned();
        let row = Row::new(what, "goal", Unit::Microseconds, Goal::AtMost(1.0));
        Ok(row.with(quantile(&seconds, 0.99) * 1e6, 20e3))
    }
}
