//! What a node counts, for Prometheus.

mod models;
mod plain;
mod training;

use std::sync::{Arc, Mutex, PoisonError};

use gradmesh_actors::in_memory::Models;
use gradmesh_actors::peers::Peers;
use gradmesh_actors::shadows::Shadows;
use gradmesh_actors::training::TrainingStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};
use tokio::sync::watch;

use models::ModelMetrics;
use training::TrainingMetrics;

/// The metrics of one node. Clones share them; each part of the node registers its own.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// No metrics yet. Each name will begin with `gradmesh_`.
    pub fn new() -> Self {
        Self { registry: Arc::new(Mutex::new(Registry::with_prefix("gradmesh"))) }
    }

    /// Adds a metric, which its owner goes on counting with a clone of it. Register a name once.
    ///
    /// A counter's name gets `_total` behind it; `help` ends without a full stop.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register(name, help, metric);
    }

    /// Adds a run, `gradmesh_training_…`: progress, losses, members, recoveries, bytes. Once, on
    /// the node that has the coordinator.
    pub fn watch_training(&self, status: watch::Receiver<TrainingStatus>) {
        let run = Box::new(TrainingMetrics::new(status));
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(run);
    }

    /// Adds the models in memory, and the shadows of their routes. Once.
    pub fn watch_models(&self, models: Models, shadows: Shadows, peers: Peers) {
        let models = Box::new(ModelMetrics::new(models, shadows, peers));
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).register_collector(models);
    }

    /// All values now, in the older text format of Prometheus (0.0.4).
    pub fn plain_text(&self) -> String {
        plain::plain(&self.text())
    }

    /// All values now, in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` fails only if a metric's own encoding does; what was written
        // before it is still good.
        if let Err(error) =
            encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))
        {
            tracing::warn!(%error, "a metric could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn a_metric_of_any_part_is_on_the_shared_page() {
        let metrics = Metrics::new();
        let workers: Gauge = Gauge::default();
        metrics.clone().register("workers", "Workers alive", workers.clone());
        workers.set(3);
        assert!(metrics.text().contains("gradmesh_workers 3\n"), "{}", metrics.text());
    }
}
