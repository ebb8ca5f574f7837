//! What makes the actors of gradmesh a cluster, and the service in front of them.
//!
//! A job is trained by parameter servers, workers and a coordinator, published to a registry and
//! served by predictors. All of them are actix actors of [`actors`]; this crate gives them files, a
//! network, restarts, a configuration, and the `node` binary. Kill any process at any instant: the
//! trained model has the same bits.
//!
//! # Map
//!
//! Each layer knows only those above it in this table.
//!
//! | layer | module | |
//! |---|---|---|
//! | rules, actors | [`actors`] | Messages, the pure rules, and the actors that connect a mailbox to them. |
//! | wire | [`wire`] | Frames: a typed part in MessagePack, tensors as raw bytes beside it. |
//! | | [`transport`] | Where connections come from: TCP, or memory in tests. |
//! | runtime | [`peer`] | The other side: an actor of another node behind a local `Recipient`. |
//! | | [`router`] | This side: takes a peer's frames to the mailboxes of this node. |
//! | | [`supervisor`] | Builds an actor anew when it dies, within a budget. |
//! | | [`store`] | Checkpoints and versions in a folder. |
//! | | [`data`] | Data sets of IDX and CSV files, of which a worker loads its own rows. |
//! | | [`metrics`] | Counters of one node and the state of its run, as a Prometheus page. |
//! | node | [`config`] | `cluster.toml`, the environment and `--set` as one checked [`config::Config`]. |
//! | | [`service`] | Open Inference Protocol v2 over HTTP and gRPC, metrics, status; mounts in an application of one's own. |
//! | | [`progress`] | A run's epochs as progress bars or log lines. |
//! | | [`curve`] | A run's losses as SVG. |
//! | | [`node`] | The composition root: starts the actors of a node's roles and connects them. |
//!
//! # Embedding
//!
//! An actix program trains and asks for a prediction, without `node` and without HTTP:
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use gradmesh::actors::messages::{Predict, ask};
//! use gradmesh::actors::version::VersionRef;
//! use gradmesh::config::{Config, environment};
//! use gradmesh::node::NodeBuilder;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! actix_rt::System::new().block_on(async {
//!     let config = Config::load(Path::new("examples/digits.toml"), &[], environment())?;
//!     let node = NodeBuilder::new(config).start().await?;
//!     let (published, _) = node.trained().await?;
//!
//!     let version = VersionRef::Number(published.version);
//!     let rows = Arc::new(vec![0.0; 64]);
//!     let request = Predict::of_rows(published.model, version, 1, 64, rows)?;
//!     let answer = ask(&node.serving().predict, request, Duration::from_secs(10)).await?;
//!     println!("{:?} by version {}", answer.values().0, answer.version);
//!     node.stop().await;
//!     Ok(())
//! })
//! # }
//! ```
//!
//! The examples show more: `embed_in_actix_web` serves beside routes of its own, `custom_model`
//! trains a model that gradmesh doesn't know, `own_data` trains on rows of no file, `three_nodes`
//! kills a process.

#[cfg(feature = "transformers")]
pub mod bert;
pub mod config;
pub mod curve;
pub mod data;
pub mod metrics;
pub mod node;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod peer;
pub mod progress;
pub mod router;
pub mod service;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store;
pub mod supervisor;
pub mod transport;
pub mod wire;

pub use gradmesh_actors as actors;
