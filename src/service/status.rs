//! What is gradmesh's own beside the protocol, below `/gradmesh`: how far the run is.

use actix::Recipient;
use actix_web::{HttpResponse, Scope, web};
use futures_util::future::join_all;
use gradmesh_actors::messages::{GetStatus, StatusError, ask};
use gradmesh_actors::training::{Progress, TrainingStatus};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api_error::link_kind;
use super::rest::{self, no_such_path, readable};
use super::{FIND_LIMIT, ServiceState};

/// Where [`ClusterStatus`] is answered.
pub const STATUS_PATH: &str = "/gradmesh/status";

/// A cluster as its service tells of it. Readers ignore fields that they don't know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatus {
    /// `cluster.name` of the configuration: whose service this is.
    pub cluster: String,
    /// `None` where the process trains nothing, or where `error` says why it isn't known.
    #[schema(value_type = Option<Object>)]
    pub training: Option<TrainingStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All below `/gradmesh`.
pub(super) fn scope(state: ServiceState) -> Scope {
    web::scope("/gradmesh")
        .app_data(web::Data::new(state))
        .service(readable("/status", status))
        .service(readable("/registry/events", super::events::events))
        .configure(rest::documents)
        .default_service(web::to(no_such_path))
}

/// How far the run is.
///
/// Says whose service this is in any case: a caller who asked the wrong one shall learn it.
#[utoipa::path(get, path = "/gradmesh/status", tag = "cluster", responses(
    (status = 200, body = ClusterStatus),
    (status = 429, description = "Too much is under way", body = ClusterStatus),
    (status = 503, description = "No coordinator is there", body = ClusterStatus),
    (status = 504, description = "No coordinator answers", body = ClusterStatus),
))]
pub(super) async fn status(state: web::Data<ServiceState>) -> HttpResponse {
    let cluster = state.cluster.clone();
    match of_leader(&state.coordinators).await {
        None => HttpResponse::Ok().json(ClusterStatus { cluster, training: None, error: None }),
        Some(Ok(training)) => {
            let training = Some(training);
            HttpResponse::Ok().json(ClusterStatus { cluster, training, error: None })
        }
        Some(Err(StatusError::Link(link))) => {
            let error = Some(format!("no coordinator answers: {link}"));
            let status = ClusterStatus { cluster, training: None, error };
            HttpResponse::build(link_kind(&link).status()).json(status)
        }
    }
}

/// The leader's word; that of one which follows where no leader answers. `None` without any.
async fn of_leader(
    coordinators: &[Recipient<GetStatus>],
) -> Option<Result<TrainingStatus, StatusError>> {
    let asked = coordinators.iter().map(|coordinator| ask(coordinator, GetStatus {}, FIND_LIMIT));
    let leads = |answer: &Result<TrainingStatus, StatusError>| match answer {
        Ok(status) if !matches!(status.progress, Progress::Following { .. }) => 2,
        Ok(_) => 1,
        Err(_) => 0,
    };
    join_all(asked).await.into_iter().max_by_key(leads)
}
