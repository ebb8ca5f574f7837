//! One inference request on its way, and what is counted of it.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::http::StatusCode;
use gradmesh_actors::catalog::CatalogError;
use gradmesh_actors::messages::{FindError, Predict, PredictError, Prediction, ask};
use gradmesh_actors::version::VersionRef;
use tokio::time::Instant;
use tracing::debug;

use super::model::check_name;
use super::statistics::Answered;
use super::{InferRequest, InferResponse};
use crate::service::ServiceState;
use crate::service::api_error::ApiError;
use crate::service::callers::Admitted;

/// From the first word of a request to its answer. Whatever becomes of it, it is counted: by
/// [`Inference::end`], or as given up where its sender has gone.
#[derive(Debug)]
pub(in crate::service) struct Inference<'a> {
    state: &'a ServiceState,
    start: Instant,
    /// The model that was asked for, if there is one.
    known: Option<String>,
    /// Of the answer.
    status: StatusCode,
    request_id: String,
}

/// Bytes of a key, which is hashed once a version: the name of a user or a session.
const ROUTING_KEY_MAX: usize = 1024;

/// As nginx writes it: the client has closed the request.
const GIVEN_UP: u16 = 499;

impl Drop for Inference<'_> {
    fn drop(&mut self) {
        let (model, status, took) = (self.known.as_deref(), self.status, self.start.elapsed());
        if !self.request_id.is_empty() {
            let request_id = &self.request_id;
            debug!(request_id, model, status = status.as_u16(), ?took, "request is over");
        }
        self.state.requests.count(model, status, took);
    }
}

impl<'a> Inference<'a> {
    /// `request_id`: what its sender calls it, for the logs.
    pub(in crate::service) fn begin(state: &'a ServiceState, request_id: String) -> Self {
        let status = StatusCode::from_u16(GIVEN_UP).unwrap_or(StatusCode::BAD_REQUEST);
        Self { state, start: Instant::now(), known: None, status, request_id }
    }

    /// With a place for it, reads the request, asks the model, and writes its answer; which version it is says the model's
    /// route where none is named. What `read` returns beside the
    /// request is for `write`.
    ///
    /// # Errors
    /// Those of `read` and `write`; the request doesn't fit the model, or there is no prediction.
    pub(in crate::service) async fn answer<Form, Answer>(
        &mut self,
        _admitted: Admitted,
        model: String,
        version: Option<VersionRef>,
        read: impl FnOnce() -> Result<(InferRequest, Form), ApiError>,
        write: impl FnOnce(InferResponse, Form) -> Result<Answer, ApiError>,
    ) -> Result<Answer, ApiError> {
        let begun = Instant::now();
        check_name(&model)?;
        let (request, form) = read()?;
        let InferRequest { id, outputs, inputs, turn } = request;
        let key = turn.routing_key.len();
        if key > ROUTING_KEY_MAX {
            let text = format!("routing_key has {key} bytes; {ROUTING_KEY_MAX} are the most");
            return Err(ApiError::bad(text));
        }
        let longest = self.state.limits.infer;
        let predict = Predict {
            model: model.clone(),
            routed: version.is_none().then_some(turn.routing_key),
            version: version.unwrap_or(VersionRef::Latest),
            inputs,
            request_id: self.request_id.clone(),
            priority: turn.priority,
            limit: turn.timeout.map_or(longest, |timeout| timeout.min(longest)),
        };
        let sent = Instant::now();
        let limit = predict.limit;
        let prediction = ask(self.state.predictor(), predict, limit).await;
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
    pub(in crate::service) fn end(mut self, status: StatusCode) {
        self.status = status;
    }

    fn count_answer(&self, prediction: &Prediction, times: Times) {
        let state = self.state;
        state.requests.count_rows(&prediction.model, prediction.rows);
        if prediction.run.first {
            state.requests.count_run(&prediction.model, prediction.run.rows);
        }
        state.requests.count_resolved(prediction.resolved);
        // What answers is ready, whoever has asked first.
        state.ready.store(true, Ordering::Relaxed);
        let infer = Duration::from_nanos(prediction.compute_ns);
        let answered = Answered {
            rows: prediction.rows as u64,
            run: prediction.run.first.then_some(prediction.run.rows as u64),
            at_unix_ms: unix_ms(),
            total: times.written - self.start,
            queue: (times.received - times.sent).saturating_sub(infer),
            input: times.sent - times.begun,
            infer,
            output: times.written - times.received,
        };
        let mut statistics = state.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        statistics.answered(&prediction.model, prediction.version.number(), &answered);
    }

    /// Failures that a version is to blame for; those of callers are none of it.
    fn count_failure(&self, error: &PredictError) {
        if let PredictError::Load { model, version, .. }
        | PredictError::Model { model, version, .. } = error
        {
            let state = self.state;
            let mut statistics = state.statistics.lock().unwrap_or_else(PoisonError::into_inner);
            statistics.failed(model, version.number(), self.start.elapsed());
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
            | PredictError::Bytes { .. }
            | PredictError::Full { .. }
            | PredictError::Late { .. }
            | PredictError::Link(_),
        ) => false,
        Err(_) => true,
    }
}

#[expect(clippy::disallowed_methods, reason = "a date for people; nothing is decided by it")]
pub(in crate::service) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
