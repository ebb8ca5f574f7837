//! `grpc.health.v1`: whether the service can answer, for load balancers.

use tonic::{Request, Response, Status};

use super::proto_health::health_check_response::ServingStatus;
use super::proto_health::health_server::Health;
use super::proto_health::{HealthCheckRequest, HealthCheckResponse};
use crate::service::{ServiceState, oip};

/// Services that can be asked for; the empty name is the whole server.
const KNOWN: [&str; 2] = ["", "inference.GRPCInferenceService"];

#[derive(Debug)]
pub(super) struct Readiness {
    pub(super) state: ServiceState,
}

#[tonic::async_trait]
impl Health for Readiness {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !KNOWN.contains(&service.as_str()) {
            return Err(Status::not_found(format!("no service {service:?} on this server")));
        }
        let status = match oip::server_ready(&self.state).await {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }
}
