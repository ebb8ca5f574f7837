//! The models in memory and the shadows of their routes as metrics, read whenever the page is asked
//! for.

use std::fmt;

use gradmesh_actors::in_memory::Models;
use gradmesh_actors::peers::Peers;
use gradmesh_actors::shadows::{ShadowCounts, Shadows};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug)]
pub(super) struct ModelMetrics {
    models: Models,
    shadows: Shadows,
    peers: Peers,
}

/// Of a shadow.
type Count = (&'static str, &'static str, fn(&ShadowCounts) -> u64);

const SHADOW_COUNTS: [Count; 3] = [
    ("shadow_failures", "Requests that a shadow had no answer to", |counts| counts.failed),
    ("shadow_rows", "Rows that a shadow and the version in use have answered", |counts| {
        counts.rows
    }),
    ("shadow_agreeing_rows", "Rows of which both say the same", |counts| counts.agreed),
];

impl ModelMetrics {
    pub(super) fn new(models: Models, shadows: Shadows, peers: Peers) -> Self {
        Self { models, shadows, peers }
    }
}

impl Collector for ModelMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (bytes, versions) = self.models.used();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let versions = i64::try_from(versions).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("model_memory_bytes", "Bytes of the models in memory", bytes),
            ("models_in_memory", "Versions of models in memory", versions),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Runs of models that other nodes have done for this one";
        let lent = ConstCounter::new(self.peers.lent());
        lent.encode(encoder.encode_descriptor("runs_lent", help, None, MetricType::Counter)?)?;
        let shadows = self.shadows.counts();
        for (name, help, count) in SHADOW_COUNTS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (model, version, counts) in &shadows {
                let labels = [("model", model.as_str()), ("version", version.as_str())];
                ConstCounter::new(count(counts)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
