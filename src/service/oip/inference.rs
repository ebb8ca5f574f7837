//! One inference request on its way, and what is counted of it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::StatusCode;
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::messages::{FindError, Predict, PredictError, Prediction, Values, ask};
use gradmesh_actors::version::VersionRef;
use tokio::time::Instant;

use super::statistics::Answered;
use super::{InferRequest, InferResponse};
use crate::service::ServiceState;
use crate::service::api_error::ApiError;

/// From the first word of a request to its answer. Whatever becomes of it, [`Inference::end`]
/// counts it.
#[derive(Debug)]
pub(in crate::service) struct Inference<'a> {
    state: &'a ServiceState,
    start: Instant,
    /// The model that was asked for, if there is one.
    known: Option<String>,
}

impl<'a> Inference<'a> {
    pub(in crate::service) fn begin(state: &'a ServiceState) -> Self {
        Self { state, start: Instant::now(), known: None }
    }

    /// Reads the request, asks the model, and writes its answer. What `read` returns beside the
    /// request is for `write`.
    ///
    /// # Errors
    /// Those of `read` and `write`; the request doesn't fit the model, or there is no prediction.
    pub(in crate::service) async fn answer<Form, Answer>(
        &mut self,
        model: String,
        version: VersionRef,
        read: impl FnOnce() -> Result<(InferRequest, Form), ApiError>,
        write: impl FnOnce(InferResponse, Form) -> Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        let begun = Instant::now();
        let (request, form) = read()?;
        let rows = request.rows()?;
        let InferRequest { id, outputs, inputs } = request;
        // The model's copy is enough from here on.
        drop(inputs);
        let predict = Predict {
            model: model.clone(),
            version,
            rows: rows.rows,
            features: rows.features,
            inputs: Values::new(rows.values),
        };
        let sent = Instant::now();
        let prediction = ask(&self.state.actors.predict, predict, self.state.limits.infer).await;
        let received = Instant::now();
        if proves_model(&prediction) {
            self.known = Some(model);
        }
        let prediction = prediction.inspect_err(|error| self.count_failure(error))?;
        let answer = write(InferResponse::new(id, &outputs, &prediction)?, form)?;
        self.count_answer(&prediction, Times { begun, sent, received, written: Instant::now() });
        Ok(answer)
    }

    /// Counts the request with the HTTP status that its outcome has.
    pub(in crate::service) fn end(self, status: StatusCode) {
        self.state.requests.count(self.known.as_deref(), status, self.start.elapsed());
    }

    fn count_answer(&self, prediction: &Prediction, times: Times) {
        let state = self.state;
        state.requests.count_rows(&prediction.model, prediction.rows);
        state.requests.count_resolved(prediction.resolved);
        // What answers is ready, whoever has asked first.
        state.ready.store(true, Ordering::Relaxed);
        let infer = Duration::from_nanos(prediction.compute_ns);
        let answered = Answered {
            rows: prediction.rows as u64,
            at_unix_ms: unix_ms(),
            total: times.written - self.start,
            queue: (times.received - times.sent).saturating_sub(infer),
            input: times.sent - times.begun,
            infer,
            output: times.written - times.received,
        };
        let mut statistics = state.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        statistics.answered(&prediction.model, prediction.version, &answered);
    }

    /// Failures that a version is to blame for; those of callers are none of it.
    fn count_failure(&self, error: &PredictError) {
        if let PredictError::Load { model, version, .. }
        | PredictError::Model { model, version, .. } = error
        {
            let state = self.state;
            let mut statistics = state.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            statistics.failed(model, *version, self.start.elapsed());
        }
    }
}

/// When what was done.
#[derive(Debug)]
struct Times {
    begun: Instant,
    sent: Instant,
    received: Instant,
    written: Instant,
}

/// Whether this answer is given only for a model that exists.
fn proves_model<T>(answer: &Result<T, PredictError>) -> bool {
    match answer {
        Ok(_) => true,
        Err(PredictError::Registry(FindError::Catalog(cause))) => matches!(
            cause,
            CatalogError::NoVersion { .. }
                | CatalogError::NoVersions { .. }
                | CatalogError::NoAlias { .. }
        ),
        Err(
            PredictError::Registry(_)
            | PredictError::NoRows
            | PredictError::Busy { .. }
            | PredictError::Link(_),
        ) => false,
        Err(_) => true,
    }
}

#[expect(clippy::disallowed_methods, reason = "a date for people; nothing is decided by it")]
fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
