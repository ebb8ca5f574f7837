//! Counters of the service.

use std::time::Duration;

use actix_web::http::StatusCode;
use gradmesh_actors::messages::Resolved;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::metrics::Metrics;

/// Inference requests by model and outcome. A label names a model only once the registry has
/// confirmed it, so that nobody can make labels by asking for names.
#[derive(Clone, Debug)]
pub(super) struct RequestMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<ModelLabels, Histogram, fn() -> Histogram>,
    rows: Family<ModelLabels, Counter>,
    runs: Family<ModelLabels, Histogram, fn() -> Histogram>,
    remembered: Counter,
    /// 1 after an answer for which no registry was there, 0 after one for which one was.
    away: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    /// Empty where it is not known to exist.
    model: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

impl RequestMetrics {
    /// Registers the counters. Once for a [`Metrics`].
    pub(super) fn new(metrics: &Metrics) -> Self {
        // 0.5 ms to 16 s by doubling: from a small model's answer to beyond the default deadline.
        let buckets = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        // 1 to 1024 rows by doubling: four times the most that is put together by default.
        let run_buckets = || Histogram::new(exponential_buckets(1.0, 2.0, 11));
        let new = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            rows: Family::default(),
            runs: Family::new_with_constructor(run_buckets),
            remembered: Counter::default(),
            away: Gauge::default(),
        };
        let requests =
            "Inference requests by model (empty if unknown) and HTTP status, also over gRPC";
        metrics.register("inference_requests", requests, new.requests.clone());
        let seconds = "Time from the first byte of a request's body to its answer, in seconds";
        metrics.register("inference_duration_seconds", seconds, new.seconds.clone());
        metrics.register("predicted_rows", "Rows that were answered", new.rows.clone());
        let runs = "Rows that a model was asked for at once, of all requests that waited together";
        metrics.register("model_run_rows", runs, new.runs.clone());
        let remembered = "Predictions whose version was the one that its name meant before, as no registry answered";
        metrics.register("predictions_without_registry", remembered, new.remembered.clone());
        let away = "Whether no registry answered for the newest prediction";
        metrics.register("registry_away", away, new.away.clone());
        new
    }

    pub(super) fn count_resolved(&self, resolved: Resolved) {
        if resolved == Resolved::Before {
            self.remembered.inc();
        }
        self.away.set(i64::from(resolved == Resolved::Before));
    }

    /// A request that was refused before anybody knew what it asks.
    #[cfg(feature = "grpc")]
    pub(super) fn count_refused(&self, code: StatusCode) {
        let labels = RequestLabels { model: String::new(), code: code.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    pub(super) fn count(&self, model: Option<&str>, code: StatusCode, took: Duration) {
        let model = model.unwrap_or_default().to_owned();
        let labels = RequestLabels { model: model.clone(), code: code.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.seconds.get_or_create(&ModelLabels { model }).observe(took.as_secs_f64());
    }

    /// Rows of one run of a model.
    pub(super) fn count_run(&self, model: &str, rows: usize) {
        let labels = ModelLabels { model: model.to_owned() };
        self.runs.get_or_create(&labels).observe(rows as f64);
    }

    pub(super) fn count_rows(&self, model: &str, rows: usize) {
        let labels = ModelLabels { model: model.to_owned() };
        self.rows.get_or_create(&labels).inc_by(rows as u64);
    }
}
