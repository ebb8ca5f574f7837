//! The calls of `GRPCInferenceService`.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::convert::version;
use super::infer::infer;
use super::inference as proto;
use super::inference::grpc_inference_service_server::GrpcInferenceService;
use super::metered::Answered;
use crate::service::api_error::{ApiError, ErrorKind};
use crate::service::callers::Caller;
use crate::service::request_id::request_id;
use crate::service::{ServiceState, oip};

#[derive(Debug)]
pub(super) struct Calls {
    pub(super) state: ServiceState,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for Calls {
    async fn server_live(
        &self,
        _: Request<proto::ServerLiveRequest>,
    ) -> Answer<proto::ServerLiveResponse> {
        Ok(Response::new(proto::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<proto::ServerReadyRequest>,
    ) -> Answer<proto::ServerReadyResponse> {
        let ready = oip::server_ready(&self.state).await.is_ok();
        Ok(Response::new(proto::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<proto::ModelReadyRequest>,
    ) -> Answer<proto::ModelReadyResponse> {
        self.caller(&request)?;
        let proto::ModelReadyRequest { name, version: text } = request.into_inner();
        let version = version(&text).map_err(ApiError::from)?;
        let ready = match oip::model_ready(&self.state, name, version).await {
            Ok(_) => true,
            Err(ApiError { kind: ErrorKind::Unloaded, .. }) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Response::new(proto::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<proto::ServerMetadataRequest>,
    ) -> Answer<proto::ServerMetadataResponse> {
        Ok(Response::new(proto::ServerMetadataResponse {
            name: oip::NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: oip::EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<proto::ModelMetadataRequest>,
    ) -> Answer<proto::ModelMetadataResponse> {
        self.caller(&request)?;
        let proto::ModelMetadataRequest { name, version: text } = request.into_inner();
        let version = version(&text).map_err(ApiError::from)?;
        Ok(Response::new(oip::metadata(&self.state, name, version).await?.into()))
    }

    async fn model_infer(
        &self,
        request: Request<proto::ModelInferRequest>,
    ) -> Answer<proto::ModelInferResponse> {
        let (id, caller) = (called(&request), self.caller(&request)?);
        Ok(Response::new(infer(&self.state, &caller, request.into_inner(), false, id).await?))
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<proto::ModelStreamInferResponse, Status>> + Send>>;

    /// One after the other, in the order of the requests. A request that is refused does not end
    /// the stream; bytes that are no message do, and those for which there is no room.
    async fn model_stream_infer(
        &self,
        requests: Request<Streaming<proto::ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let (state, call) = (self.state.clone(), called(&requests));
        let caller = self.caller(&requests)?;
        let authorization = authorization(&requests).map(str::to_owned);
        let answered = requests.extensions().get::<Answered>().cloned().unwrap_or_default();
        let answers = requests.into_inner().then(move |request| {
            let (state, call, answered) = (state.clone(), call.clone(), answered.clone());
            let (mut caller, authorization) = (caller.clone(), authorization.clone());
            async move {
                let request = request?;
                // Its key may have been taken back meanwhile.
                if !caller.is_anyone() {
                    caller = state.caller(authorization.as_deref())?;
                }
                let id = request.id.clone();
                let answer = infer(&state, &caller, request, true, call).await;
                answered.one();
                Ok(match answer {
                    Ok(response) => proto::ModelStreamInferResponse {
                        infer_response: Some(response),
                        ..Default::default()
                    },
                    // The identifier tells which request it was.
                    Err(error) => proto::ModelStreamInferResponse {
                        error_message: error.text,
                        infer_response: Some(proto::ModelInferResponse {
                            id,
                            ..Default::default()
                        }),
                    },
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn model_config(
        &self,
        request: Request<proto::ModelConfigRequest>,
    ) -> Answer<proto::ModelConfigResponse> {
        self.caller(&request)?;
        let proto::ModelConfigRequest { name, version: text } = request.into_inner();
        let version = version(&text).map_err(ApiError::from)?;
        let config = oip::config(&self.state, name, version).await?.into();
        Ok(Response::new(proto::ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<proto::ModelStatisticsRequest>,
    ) -> Answer<proto::ModelStatisticsResponse> {
        self.caller(&request)?;
        let proto::ModelStatisticsRequest { name, version: text } = request.into_inner();
        let one = (!text.is_empty()).then(|| version(&text)).transpose();
        let one = one.map_err(ApiError::from)?;
        let asked = (!name.is_empty()).then_some((name, one));
        let statistics = oip::statistics(&self.state, asked).await?;
        let model_stats = statistics.into_iter().map(Into::into).collect();
        Ok(Response::new(proto::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<proto::RepositoryIndexRequest>,
    ) -> Answer<proto::RepositoryIndexResponse> {
        self.caller(&request)?;
        let proto::RepositoryIndexRequest { repository_name, ready } = request.into_inner();
        one_repository(&repository_name)?;
        let index = oip::index(&self.state, ready).await?;
        let models = index.into_iter().map(Into::into).collect();
        Ok(Response::new(proto::RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<proto::RepositoryModelLoadRequest>,
    ) -> Answer<proto::RepositoryModelLoadResponse> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        one_repository(&request.repository_name)?;
        let parameters = request.parameters.keys().map(String::as_str);
        oip::load(&self.state, &caller, request.model_name, parameters).await?;
        Ok(Response::new(proto::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<proto::RepositoryModelUnloadRequest>,
    ) -> Answer<proto::RepositoryModelUnloadResponse> {
        let caller = self.caller(&request)?;
        let request = request.into_inner();
        one_repository(&request.repository_name)?;
        oip::unload(&self.state, &caller, request.model_name).await?;
        Ok(Response::new(proto::RepositoryModelUnloadResponse {}))
    }
}

impl Calls {
    /// # Errors
    /// A key is needed, and the call has none that is known.
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, ApiError> {
        self.state.caller(authorization(request))
    }
}

pub(super) fn authorization<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("authorization").and_then(|value| value.to_str().ok())
}

/// What the logs call it.
fn called<T>(request: &Request<T>) -> String {
    let header = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
    request_id(header("traceparent"), header("x-request-id"))
}

/// Over HTTP, repositories have no names either.
fn one_repository(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Ok(());
    }
    let text =
        format!("there is one repository, without a name; leave repository_name {name:?} out");
    Err(ApiError::new(ErrorKind::Unsupported, text))
}
