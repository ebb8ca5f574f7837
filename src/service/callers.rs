//! Who asks: whoever reaches the service, or only those who have a key; and how much at a time.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, PoisonError};

use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, dev, web};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::OwnedSemaphorePermit;

use super::ServiceState;
use super::api_error::{ApiError, ErrorKind};
use super::keys::Key;

/// Whoever sent a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// None where the service needs none.
    key: Option<Arc<Key>>,
}

/// A prediction that is under way. Its places are free when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    _key: Option<OwnedSemaphorePermit>,
    _model: Option<OfModel>,
}

/// Predictions under way by model, where there is a limit. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    /// Of one model.
    limit: usize,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// One of them.
#[derive(Debug)]
struct OfModel {
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
    model: String,
}

impl ServiceState {
    /// Who sent a request with this `Authorization`.
    ///
    /// # Errors
    /// The service needs a key, and there is none, or none that it knows.
    pub(super) fn caller(&self, authorization: Option<&str>) -> Result<Caller, ApiError> {
        let Some(keys) = &self.keys else { return Ok(Caller { key: None }) };
        let refuse = |text: &str| ApiError::new(ErrorKind::Unauthenticated, text);
        let given = authorization.and_then(presented);
        let given = given.ok_or_else(|| {
            refuse("this service needs a key; send it as Authorization: Bearer, or as the password of Basic")
        })?;
        let key = keys.find(&given);
        let key = key.ok_or_else(|| refuse("the key is none that service.keys has"))?;
        Ok(Caller { key: Some(key) })
    }

    /// The same for a request over HTTP.
    ///
    /// # Errors
    /// As above.
    pub(super) fn caller_of(&self, request: &HttpRequest) -> Result<Caller, ApiError> {
        let header = request.headers().get(header::AUTHORIZATION);
        self.caller(header.and_then(|value| value.to_str().ok()))
    }

    /// A place for a prediction.
    ///
    /// # Errors
    /// The caller may not ask this model, or too much is under way already.
    pub(super) fn admit(&self, caller: &Caller, model: &str) -> Result<Admitted, ApiError> {
        let key = caller.key.as_ref().map(|key| key.place_for(model)).transpose()?;
        let model = self.under_way.as_ref().map(|under_way| under_way.enter(model)).transpose()?;
        Ok(Admitted { _key: key, _model: model })
    }
}

impl Caller {
    /// Whether the service needs no key.
    #[cfg(feature = "grpc")]
    pub(super) fn is_anyone(&self) -> bool {
        self.key.is_none()
    }

    /// # Errors
    /// The entry of its key does not name the model.
    pub(super) fn may_ask(&self, model: &str) -> Result<(), ApiError> {
        self.key.as_deref().map_or(Ok(()), |key| key.check_model(model))
    }

    /// # Errors
    /// Its key is not one that may change the registry.
    pub(super) fn may_write(&self) -> Result<(), ApiError> {
        self.may("change the registry", "registry_writes", |key| key.entry.registry_writes)
    }

    /// # Errors
    /// Its key is not one that may load and unload models, or not this one.
    pub(super) fn may_control(&self, model: &str) -> Result<(), ApiError> {
        self.may_ask(model)?;
        self.may("load or unload models", "model_control", |key| key.entry.model_control)
    }

    fn may(&self, what: &str, field: &str, has: impl Fn(&Key) -> bool) -> Result<(), ApiError> {
        match self.key.as_deref().filter(|key| !has(key)) {
            None => Ok(()),
            Some(key) => {
                let name = &key.entry.name;
                let text = format!("key {name:?} may not {what}; set its {field} in service.keys");
                Err(ApiError::new(ErrorKind::Forbidden, text))
            }
        }
    }
}

/// For handlers that do nothing else with it than to refuse those without a key.
impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let state = request.app_data::<web::Data<ServiceState>>();
        let missing = || ApiError::new(ErrorKind::Internal, "this path has no service behind it");
        ready(state.ok_or_else(missing).and_then(|state| state.caller_of(request)))
    }
}

impl Key {
    fn check_model(&self, model: &str) -> Result<(), ApiError> {
        if self.may_ask(model) {
            return Ok(());
        }
        let name = &self.entry.name;
        let text = format!("key {name:?} may not ask {model}; change its models in service.keys");
        Err(ApiError::new(ErrorKind::Forbidden, text))
    }

    fn place_for(&self, model: &str) -> Result<OwnedSemaphorePermit, ApiError> {
        self.check_model(model)?;
        let name = &self.entry.name;
        self.places.clone().try_acquire_owned().map_err(|_| {
            let limit = self.entry.requests;
            let text = format!(
                "{limit} requests of key {name:?} are under way already; try again, or raise its requests in service.keys"
            );
            ApiError::new(ErrorKind::Busy, text)
        })
    }
}

impl UnderWay {
    /// `limit`: predictions of one model at a time, ≥ 1.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, counts: Arc::default() }
    }

    fn enter(&self, model: &str) -> Result<OfModel, ApiError> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(model.to_owned()).or_default();
        if *count >= self.limit {
            let limit = self.limit;
            let text = format!(
                "{limit} requests for {model} are under way already; try again, or raise service.model_requests"
            );
            return Err(ApiError::new(ErrorKind::Busy, text));
        }
        *count += 1;
        drop(counts);
        Ok(OfModel { counts: self.counts.clone(), model: model.to_owned() })
    }
}

impl Drop for OfModel {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.model) {
            *count -= 1;
            // Nobody can fill the memory with names of models.
            if *count == 0 {
                counts.remove(&self.model);
            }
        }
    }
}

/// The key in the value of `Authorization`: that of `Bearer`, or the password of `Basic`, which
/// MLflow's clients have.
fn presented(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.trim().split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    let basic = Some(value).filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let pair = String::from_utf8(BASE64_STANDARD.decode(basic).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_as_a_bearer_or_as_the_password_of_basic() {
        for (authorization, key) in [
            ("Bearer gm-1", Some("gm-1")),
            ("bearer  gm-1 ", Some("gm-1")),
            // shop:gm-1
            ("Basic c2hvcDpnbS0x", Some("gm-1")),
            ("basic c2hvcDpnbS0x", Some("gm-1")),
            // shop
            ("Basic c2hvcA==", None),
            ("Basic %%%", None),
            ("Digest gm-1", None),
            ("gm-1", None),
            ("", None),
        ] {
            assert_eq!(presented(authorization).as_deref(), key, "{authorization}");
        }
    }

    #[test]
    fn a_model_has_so_many_requests_at_a_time_and_others_beside() {
        let under_way = UnderWay::new(2);
        let first = under_way.enter("a").unwrap();
        let _second = under_way.enter("a").unwrap();
        let refused = under_way.enter("a").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Busy);
        assert!(refused.text.starts_with("2 requests for a are under way"), "{refused}");
        let _other = under_way.enter("b").unwrap();
        drop(first);
        let _third = under_way.enter("a").unwrap();
        assert!(under_way.enter("a").is_err());
    }

    #[test]
    fn models_that_nobody_asks_are_not_remembered() {
        let under_way = UnderWay::new(1);
        for number in 0..100 {
            drop(under_way.enter(&number.to_string()).unwrap());
        }
        assert!(under_way.counts.lock().unwrap().is_empty());
    }
}
