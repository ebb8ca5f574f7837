//! `node predict`: rows of a file, answered by a version of the registry.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use gradmesh::config::Config;
use gradmesh_actors::messages::{Predict, ask};

use crate::answer;
use crate::models::{parse, registry};

/// Loading a model is part of the first prediction.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn predict(
    config: Config,
    model: &str,
    version: &str,
    input: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let rows = read(input)?;
    let features = rows.first().map_or(0, Vec::len);
    if let Some(row) = rows.iter().position(|row| row.len() != features) {
        let got = rows[row].len();
        bail!("{}: row {} has {got} values, row 1 has {features}", input.display(), row + 1);
    }
    let node = registry(config).await?;
    let message = Predict {
        model: model.to_owned(),
        version: parse(version)?,
        rows: rows.len(),
        features,
        inputs: Arc::new(rows.concat()),
    };
    let answer = ask(&node.serving().predict, message, LIMIT).await?;
    let outputs: Vec<&[f32]> = answer.values.chunks(answer.outputs.max(1)).collect();
    if json {
        let answer = serde_json::json!({
            "model": answer.model, "version": answer.version, "digest": answer.digest,
            "outputs": outputs,
        });
        answer::line(answer)?;
    } else {
        for output in outputs {
            let best = output.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            match (answer.classes, best) {
                (Some(_), Some((class, part))) => {
                    answer::line(format_args!("class {class} ({:.1} %)", part * 100.0))?;
                }
                _ => answer::line(format_args!("{output:?}"))?,
            }
        }
    }
    node.stop().await;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<Vec<Vec<f32>>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("--input {name}"))?;
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(&text)
            .with_context(|| format!("--input {name} is no JSON array of rows of numbers"));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows: anyhow::Result<Vec<Vec<f32>>> = lines
        .map(|(line, text)| {
            let number = |cell: &str| {
                let cell = cell.trim();
                cell.parse().with_context(|| {
                    format!("--input {name}: line {}: {cell:?} is no number", line + 1)
                })
            };
            text.split(',').map(number).collect()
        })
        .collect();
    rows
}
