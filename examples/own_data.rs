//! Rows of one's own: a data set that is no file.
//!
//! What it shows: a [`Dataset`] that makes its rows, points inside and outside of a ring, trained by
//! two workers of one process. A table of a database or a folder of images would do the same: say
//! the shape, and give any range of rows.
//!
//! ```sh
//! cargo run --example own_data
//! ```
//!
//! It prints:
//!
//! ```text
//! rings: 4000 rows, 1260 steps, test accuracy 98.70 %
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gradmesh::actors::dataset::{
    Dataset, DatasetError, DatasetShape, RowTargets, Rows, Scaling, Split,
};
use gradmesh::config::Config;
use gradmesh::node::NodeBuilder;
use ndarray::Array2;

/// `job.data` says nothing that is used: format and train are keys that must be there.
const CONFIGURATION: &str = r#"
job.epochs = 20
job.model = { name = "rings", kind = "mlp", hidden = [32, 32] }
job.data = { format = "csv", train = "made by the program" }
job.optimizer = { kind = "adam", learning_rate = 0.01 }
"#;

/// Points of the plane, -1 to 1; class 1 are those between two circles around the origin.
#[derive(Debug)]
struct Rings {
    shape: DatasetShape,
}

impl Rings {
    const INNER: f32 = 0.4;
    const OUTER: f32 = 0.8;

    fn new(train_rows: usize, test_rows: usize) -> Self {
        // Whatever decides the rows: a node that makes others must not train with this one.
        let what = format!("rings 1: {} {} {train_rows} {test_rows}", Self::INNER, Self::OUTER);
        let digest = blake3::hash(what.as_bytes()).to_hex().to_string();
        let (features, classes, target_width) = (2, Some(2), 1);
        let shape = DatasetShape { train_rows, test_rows, features, classes, target_width, digest };
        Self { shape }
    }

    /// Row `index` of all rows. It depends on nothing but its number, so that any range is the
    /// same on each node, whoever loads what before.
    fn row(index: usize) -> ([f32; 2], u32) {
        let hash = blake3::hash(&(index as u64).to_le_bytes());
        let coordinate = |at: usize| {
            let bytes = [hash.as_bytes()[at], hash.as_bytes()[at + 1]];
            f32::from(u16::from_le_bytes(bytes)) / 32767.5 - 1.0
        };
        let point = [coordinate(0), coordinate(2)];
        let radius = point[0].hypot(point[1]);
        (point, u32::from((Self::INNER..Self::OUTER).contains(&radius)))
    }
}

impl Dataset for Rings {
    fn shape(&self) -> &DatasetShape {
        &self.shape
    }

    fn scaling(&self) -> &Scaling {
        &Scaling::None
    }

    fn load(&self, split: Split, range: Range<usize>) -> Result<Rows, DatasetError> {
        let (first, rows) = match split {
            Split::Train => (0, self.shape.train_rows),
            Split::Test => (self.shape.train_rows, self.shape.test_rows),
        };
        if range.end > rows {
            return Err(DatasetError(format!("rows {range:?} of {rows} are asked for")));
        }
        let rows = range.map(|row| Self::row(first + row));
        let (points, classes): (Vec<_>, Vec<_>) = rows.unzip();
        Ok(Rows { inputs: Array2::from(points), targets: RowTargets::Classes(classes) })
    }
}

fn main() -> anyhow::Result<()> {
    let stores = tempfile::tempdir()?;
    // Checkpoints and versions go below this folder.
    let config = Config::from_toml(CONFIGURATION, Path::new(stores.path()))?;
    actix_rt::System::new().block_on(async {
        let rows = Arc::new(Rings::new(4000, 1000));
        let node = NodeBuilder::new(config).data(rows).start().await?;
        let (published, status) = node.trained().await?;
        let accuracy = status.ledger.finished.last().and_then(|epoch| epoch.test_accuracy);
        println!(
            "{}: {} rows, {} steps, test accuracy {:.2} %",
            published.model,
            status.train_rows.unwrap_or_default(),
            status.version.0,
            100.0 * accuracy.unwrap_or_default()
        );
        node.stop().await;
        Ok(())
    })
}
