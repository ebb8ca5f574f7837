//! `/gradmesh/status`: whose service this is, and how far the run is.

use actix::{Actor, Addr, Context, Handler};
use gradmesh::service::{ClusterStatus, STATUS_PATH, ServiceState};
use gradmesh_actors::ids::{Version, View};
use gradmesh_actors::ledger::Ledger;
use gradmesh_actors::messages::{BytesMoved, GetStatus, StatusError};
use gradmesh_actors::training::{Progress, TrainingStatus};
use serde_json::json;

use crate::support::{Server, error, stub_state};

/// A coordinator with a run that stands still.
struct Coordinator;

impl Actor for Coordinator {
    type Context = Context<Self>;
}

impl Handler<GetStatus> for Coordinator {
    type Result = Result<TrainingStatus, StatusError>;

    fn handle(&mut self, _: GetStatus, _: &mut Self::Context) -> Self::Result {
        Ok(run())
    }
}

fn run() -> TrainingStatus {
    TrainingStatus {
        held_up: None,
        resumed_from: None,
        progress: Progress::Running,
        view: View(1),
        version: Version(7),
        last_version: Some(Version(9)),
        steps_per_epoch: Some(3),
        train_rows: Some(30),
        checkpoint: None,
        shards: 1,
        servers: 1,
        replicas: 0,
        workers: 2,
        ledger: Ledger::default(),
        bytes: BytesMoved::default(),
        lost: 0,
        new_leases: 0,
        promotions: 0,
        handovers: 0,
        rollbacks: 0,
        shares: Vec::new(),
        leaving: Vec::new(),
        events: Default::default(),
    }
}

/// The state of a service in front of this coordinator.
fn state(coordinator: Option<Addr<Coordinator>>) -> ServiceState {
    stub_state()
        .with_status("digits".to_owned(), coordinator.map(Addr::recipient).into_iter().collect())
}

fn get(server: &Server) -> (u16, ClusterStatus) {
    let (code, body) = server.get(STATUS_PATH);
    (code, serde_json::from_value(body).unwrap())
}

#[test]
fn the_run_is_told_with_the_name_of_the_cluster() {
    let server = Server::run(async |_, _| state(Some(Coordinator.start())));
    let expected =
        ClusterStatus { cluster: "digits".to_owned(), training: Some(run()), error: None };
    assert_eq!(get(&server), (200, expected));
    assert_eq!(server.get(STATUS_PATH).1["training"]["progress"]["phase"], "running");
}

#[test]
fn a_service_that_trains_nothing_says_whose_it_is() {
    let server = Server::run(async |_, _| state(None));
    assert_eq!(server.get(STATUS_PATH), (200, json!({ "cluster": "digits", "training": null })));
}

#[test]
fn a_coordinator_that_is_gone_is_503_and_the_cluster_is_named_nevertheless() {
    let server = Server::run(async |_, _| {
        let stopped = Coordinator::create(|ctx| {
            actix::ActorContext::terminate(ctx);
            Coordinator
        });
        state(Some(stopped))
    });
    let (code, status) = get(&server);
    assert_eq!((code, status.cluster.as_str(), status.training), (503, "digits", None));
    let cause = status.error.unwrap();
    assert!(cause.starts_with("no coordinator answers: "), "{cause}");
}

#[test]
fn other_paths_and_methods_beside_the_status_are_refused_as_everywhere() {
    let server = Server::run(async |_, _| state(None));
    let no_path = error("no path \"/gradmesh/dashboard\" on this server");
    assert_eq!(server.get("/gradmesh/dashboard"), (404, no_path));
    let posted = server.post(STATUS_PATH, &json!({}));
    assert_eq!(posted, (405, error("POST is not allowed here; use GET, HEAD")));
}
