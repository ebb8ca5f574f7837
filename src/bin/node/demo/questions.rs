//! What the services are asked: rows of the test data, as users have them.

use gradmesh::config::{Config, Role};
use gradmesh_actors::dataset::{Scaling, Split};
use serde_json::json;

/// Different ones, so that no answer can be a repetition of the one before.
const ROWS: usize = 16;

/// Where to ask, and bodies of requests of one row each.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    /// Of each service.
    pub(super) addresses: Vec<String>,
    pub(super) bodies: Vec<String>,
}

pub(super) fn questions(config: &Config) -> anyhow::Result<Questions> {
    let job = &config.job;
    let data = gradmesh::data::open(&job.data, job.model.loss, job.seed, &config.folder)?;
    let rows = data.load(Split::Test, 0..ROWS.min(data.shape().test_rows))?;
    let bodies = rows.inputs.rows().into_iter().map(|row| {
        let values: Vec<f32> =
            row.iter().enumerate().map(|(at, value)| raw(data.scaling(), at, *value)).collect();
        let input = json!({
            "name": "input", "shape": [1, values.len()], "datatype": "FP32", "data": values,
        });
        json!({ "inputs": [input] }).to_string()
    });
    let serves = config.nodes.iter().filter(|node| node.roles.contains(&Role::Service));
    let addresses = serves.map(|node| {
        let address = node.listens_on(config.service.listen);
        format!("http://{address}/v2/models/{}/infer", job.model.name)
    });
    Ok(Questions { addresses: addresses.collect(), bodies: bodies.collect() })
}

/// Before it was scaled.
fn raw(scaling: &Scaling, at: usize, value: f32) -> f32 {
    match scaling {
        Scaling::None => value,
        Scaling::Divide { by } => value * by,
        Scaling::Standard { mean, deviation } => value * deviation[at] + mean[at],
    }
}
