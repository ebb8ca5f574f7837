//! `node predict`: rows of a file, answered by a version of the registry.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use flate2::bufread::MultiGzDecoder;
use gradmesh::config::Config;
use gradmesh_actors::messages::{Predict, ask};

use crate::answer;
use crate::models::{parse, registry};

/// Loading a model is part of the first prediction.
const LIMIT: Duration = Duration::from_secs(60);

/// Rows are held in memory as text and as numbers: 64 MiB of text are 30,000 rows of 784 values.
const INPUT_BYTES_MAX: u64 = 64 << 20;
/// The first two bytes of a gzip file (RFC 1952, 2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

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
    let inputs = Arc::new(rows.concat());
    let request = Predict::of_rows(model, parse(version)?, rows.len(), features, inputs)?;
    let answer = ask(&node.serving().predict, request, LIMIT).await?;
    let (values, width) = answer.values();
    let outputs: Vec<&[f32]> = values.chunks(width.max(1)).collect();
    if json {
        let answer = serde_json::json!({
            "model": answer.model, "version": answer.version.number(), "digest": answer.digest,
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

/// The text of a file or of standard input, unpacked if it is gzip.
fn text(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let source: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(File::open(path).with_context(|| format!("--input {name}"))?),
    };
    let mut source = BufReader::new(source);
    let packed = source.fill_buf().with_context(|| format!("--input {name}"))?.starts_with(&GZIP);
    let source: Box<dyn Read> =
        if packed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
    let mut text = String::new();
    let read = source.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.with_context(|| format!("--input {name} can't be read as text"))?;
    if read as u64 > INPUT_BYTES_MAX {
        bail!("--input {name} has more than {INPUT_BYTES_MAX} bytes (unpacked); give a part of it");
    }
    Ok(text)
}

fn read(path: &Path) -> anyhow::Result<Vec<Vec<f32>>> {
    let name = path.display();
    let text = text(path)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text)
            .with_context(|| format!("--input {name} is no JSON array of rows of numbers"));
    }
    if text.trim_start().starts_with('{') {
        bail!("--input {name} is a JSON object; give an array of rows, such as [[0.5, 1], [2, 3]]");
    }
    if text.trim().is_empty() {
        bail!("--input {name} has no rows");
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let rows: anyhow::Result<Vec<Vec<f32>>> = lines
        .map(|(line, text)| {
            let number = |cell: &str| {
                let cell = cell.trim();
                let foreign = cell.contains([';', '\t', ' ']);
                let comma = if foreign { "; separate values with commas" } else { "" };
                cell.parse().with_context(|| {
                    format!("--input {name}: line {}: {cell:?} is no number{comma}", line + 1)
                })
            };
            text.split(',').map(number).collect()
        })
        .collect();
    rows
}
