//! Trains a model of pictures and one of texts, publishes a pipeline of both, and asks it over HTTP.
//!
//! What it shows: the three files of `examples/emoji` with `node train`, `node models import` and `node run`.
//! Which of nine kinds of thing an emoji shows is learned from its picture and from the words of its names;
//! the mean of both answers is right more often than either. Stores are in a temporary folder, the port is a
//! free one. Fails if the pipeline is not better than its best branch.
//!
//! ```sh
//! cargo build --release && cargo run --release --example two_modalities
//! ```
//!
//! It prints, in about ten seconds:
//!
//! ```text
//! emoji-image: test accuracy 62.47 %
//! emoji-text: test accuracy 71.92 %
//! pipeline.toml is version 1 of emoji now
//! served, right of 381: picture 238 (62.47 %), words 274 (71.92 %), both 291 (76.38 %)
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::disallowed_methods, reason = "real processes have a real clock")]

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// Until the service answers. It takes tenths of a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Rows of a request.
const ROWS: usize = 100;
/// Names of the outputs of `pipeline.toml`, and what they go by.
const OUTPUTS: [(&str, &str); 3] =
    [("by_image", "picture"), ("by_text", "words"), ("probabilities", "both")];

fn main() -> anyhow::Result<()> {
    let place = Place::new()?;
    for branch in ["image", "text"] {
        let summary: Value = serde_json::from_str(&place.node(branch, &["--json", "train"])?)?;
        let accuracy = summary["test_accuracy"].as_f64().unwrap_or_default();
        println!("emoji-{branch}: test accuracy {:.2} %", 100.0 * accuracy);
    }
    let pipeline = place.example("pipeline.toml");
    let pipeline = pipeline.to_string_lossy();
    let published = place.node("image", &["models", "import", &pipeline, "--model", "emoji"])?;
    println!("{}", published.trim().replace(&*pipeline, "pipeline.toml"));

    let service = Service::start(&place)?;
    let right = service.count()?;
    let rows = place.rows()?.len();
    let told = std::iter::zip(OUTPUTS, right).map(|((_, by), right)| {
        format!("{by} {right} ({:.2} %)", 100.0 * right as f64 / rows as f64)
    });
    println!("served, right of {rows}: {}", told.collect::<Vec<_>>().join(", "));
    let [by_image, by_text, both] = right;
    ensure!(both > by_image.max(by_text), "the pipeline is no better than its best branch");
    Ok(())
}

/// The files of the example, and a folder for what comes of them.
struct Place {
    node: PathBuf,
    root: &'static Path,
    folder: tempfile::TempDir,
}

/// A test row: raw values of the picture, names, class.
struct Row {
    pixels: Vec<u8>,
    name: String,
    class: usize,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        // `target/{profile}/node`, of this program's `target/{profile}/examples/two_modalities`.
        let own = std::env::current_exe()?;
        let node = own.ancestors().nth(2).context("a program in no folder")?.join("node");
        ensure!(node.is_file(), "there is no {}; run `cargo build` first", node.display());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Ok(Self { node, root, folder: tempfile::tempdir()? })
    }

    fn example(&self, file: &str) -> PathBuf {
        self.root.join("examples/emoji").join(file)
    }

    /// `node` with the configuration of a branch, and the stores in the folder.
    fn command(&self, branch: &str) -> Command {
        let mut command = Command::new(&self.node);
        command.arg("--config").arg(self.example(&format!("{branch}.toml")));
        command.args(["--log", "warn"]);
        let folder = self.folder.path().display();
        for (store, path) in [
            ("registry", format!("{folder}/registry")),
            ("checkpoint", format!("{folder}/{branch}/checkpoints")),
            ("coordination", format!("{folder}/{branch}/coordination")),
        ] {
            command.arg("--set").arg(format!("{store}.store={path}"));
        }
        command
    }

    /// What it prints, once it has ended well.
    fn node(&self, branch: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(branch).args(arguments).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "node {}: {}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let unpacked = |file: &str| -> anyhow::Result<Vec<u8>> {
            let path = self.root.join("data/emoji").join(file);
            let packed = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let (images, texts) =
            (unpacked("test-images-idx3-ubyte.gz")?, unpacked("test-texts.csv.gz")?);
        // Headers: type and three lengths, and a line with the names of the columns.
        let (_, images) = images.split_at_checked(16).context("an IDX file without a header")?;
        let texts = String::from_utf8(texts)?;
        let lines: Vec<&str> = texts.lines().skip(1).collect();
        let pictures = images.chunks_exact(images.len() / lines.len().max(1));
        let row = |(pixels, line): (&[u8], &&str)| {
            let (name, class) = line.rsplit_once(',').context("a line without a class")?;
            Ok(Row { pixels: pixels.to_vec(), name: name.to_owned(), class: class.parse()? })
        };
        pictures.zip(&lines).map(row).collect()
    }
}

/// A node that serves the registry of the example. It ends when this is dropped: its standard input does.
struct Service<'a> {
    place: &'a Place,
    node: Child,
    url: String,
}

impl<'a> Service<'a> {
    fn start(place: &'a Place) -> anyhow::Result<Self> {
        // Both held at once, so that they differ.
        let free = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [http, grpc] = [free[0].local_addr()?, free[1].local_addr()?];
        drop(free);
        let mut command = place.command("image");
        command.arg("--set").arg(format!("service.listen={http}"));
        command.arg("--set").arg(format!("service.grpc_listen={grpc}"));
        command.args(["run", "--until-stdin-ends"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let url = format!("http://{http}/v2/models/emoji");
        let mut service = Self { place, node: command.spawn()?, url };
        let deadline = Instant::now() + LIMIT;
        while ureq::get(format!("{}/ready", service.url)).call().is_err() {
            ensure!(service.node.try_wait()?.is_none(), "the service ended");
            ensure!(Instant::now() < deadline, "the service does not answer");
            sleep(Duration::from_millis(20));
        }
        Ok(service)
    }

    /// How many rows each output is right about.
    fn count(&self) -> anyhow::Result<[usize; 3]> {
        let mut right = [0; 3];
        for rows in self.place.rows()?.chunks(ROWS) {
            let answer = self.infer(rows)?;
            for (right, (name, _)) in right.iter_mut().zip(OUTPUTS) {
                let classes = largest(&answer, name, rows.len())?;
                *right += std::iter::zip(rows, classes)
                    .filter(|(row, class)| row.class == *class)
                    .count();
            }
        }
        Ok(right)
    }

    fn infer(&self, rows: &[Row]) -> anyhow::Result<Value> {
        let pixels: Vec<u8> = rows.iter().flat_map(|row| row.pixels.clone()).collect();
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let request = json!({ "inputs": [
            { "name": "pixels", "datatype": "FP32", "shape": [rows.len(), pixels.len() / rows.len()], "data": pixels },
            { "name": "name", "datatype": "BYTES", "shape": [rows.len()], "data": names },
        ]});
        let mut answer = ureq::post(format!("{}/infer", self.url)).send_json(request)?;
        Ok(answer.body_mut().read_json()?)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        drop(self.node.stdin.take());
        let _ = self.node.wait();
    }
}

/// The column of each row in which an output is largest.
fn largest(answer: &Value, name: &str, rows: usize) -> anyhow::Result<Vec<usize>> {
    let outputs = answer["outputs"].as_array().context("no outputs")?;
    let output = outputs.iter().find(|output| output["name"] == name);
    let values = output.and_then(|output| output["data"].as_array()).context("no such output")?;
    let values: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
    let rows = values.chunks_exact(values.len() / rows);
    let column = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    rows.map(|row| column(row).context("a row without columns")).collect()
}
