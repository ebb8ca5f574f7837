//! `grpc.health.v1`: whether the service can answer, for load balancers.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use tokio::time::sleep;
use tonic::{Request, Response, Status};

use super::proto_health::health_check_response::ServingStatus;
use super::proto_health::health_server::Health;
use super::proto_health::{HealthCheckRequest, HealthCheckResponse};
use crate::service::{ServiceState, oip};

/// Services that can be asked for; the empty name is the whole server.
const KNOWN: [&str; 2] = ["", "inference.GRPCInferenceService"];

/// How often a watcher's status is looked at: sooner than load balancers act on it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Readiness {
    pub(super) state: ServiceState,
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !KNOWN.contains(&service.as_str()) {
            return Err(Status::not_found(format!("no service {service:.80?} on this server")));
        }
        Ok(Response::new(said(status(&self.state).await)))
    }

    type WatchStream = Statuses;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        if !KNOWN.contains(&request.into_inner().service.as_str()) {
            // It may come, says the protocol, and the call goes on.
            let unknown = futures_util::stream::iter([Ok(said(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(unknown.chain(futures_util::stream::pending()).boxed()));
        }
        let statuses = unfold((self.state.clone(), None), async |(state, told)| {
            loop {
                let now = status(&state).await;
                if told != Some(now) {
                    return Some((Ok(said(now)), (state, Some(now))));
                }
                sleep(LOOK_EVERY).await;
            }
        });
        Ok(Response::new(statuses.boxed()))
    }
}

async fn status(state: &ServiceState) -> ServingStatus {
    match oip::server_ready(state).await {
        Ok(()) => ServingStatus::Serving,
        Err(_) => ServingStatus::NotServing,
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
