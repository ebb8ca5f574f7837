//! When a request has its turn: together with others, before or after them, too late, or never.

use gradmesh::metrics::Metrics;
use gradmesh::service::{PredictorFactory, ServiceActors, ServiceLimits, ServiceState};
use gradmesh_actors::messages::SetRoute;
use gradmesh_actors::predictor::{Predictor, PredictorParts};
use gradmesh_actors::request_queue::Batching;
use gradmesh_actors::route::{Route, Split};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use tokio::sync::watch;

use actix::Actor;

use crate::support::{Server, error, kinds, rows, sentence, until};

/// The same rows with parameters of the request.
fn with(parameters: Value) -> Value {
    let mut request = rows(&[1.0, 2.0]);
    request["parameters"] = parameters;
    request
}

/// A service that batches like this. `everywhere`: with a predictor on each of its threads.
pub(crate) fn start(batching: Batching, everywhere: bool) -> Server {
    Server::run(async move |registry, log| {
        let (find, fetch) = (registry.clone().recipient(), registry.clone().recipient());
        let (offers, offer) = watch::channel(Default::default());
        let mut parts = PredictorParts::new(kinds(), offers, find.clone(), fetch);
        parts.batching = batching;
        parts.log = Some(log);
        parts.find_route = Some(registry.clone().recipient());
        let predictor = Predictor::new(parts.clone()).start();
        let actors = ServiceActors {
            predict: predictor.clone().recipient(),
            load: predictor.clone().recipient(),
            unload: predictor.recipient(),
            offer,
            find,
            list: registry.recipient(),
        };
        let state = ServiceState::new(actors, Metrics::new(), ServiceLimits::default());
        let state = state.with_model_control(true);
        if !everywhere {
            return state;
        }
        let start = move || Predictor::new(parts.clone()).start().recipient();
        state.with_predictors(PredictorFactory::new(start))
    })
}

#[test]
fn a_request_says_when_its_turn_is_and_how_long_it_waits() {
    let server = Server::start();
    for parameters in [
        json!({ "priority": 1, "timeout": 5_000_000 }),
        json!({ "priority": 0, "timeout": 0 }),
        json!({ "priority": 99 }),
    ] {
        assert_eq!(server.infer("sum", &with(parameters)).0, 200);
    }
    let expected = "parameter \"priority\" is \"high\", not a whole number";
    assert_eq!(server.infer("sum", &with(json!({ "priority": "high" }))), (400, error(expected)));
    let expected = "parameter \"timeout\" is -1, not a whole number";
    assert_eq!(server.infer("sum", &with(json!({ "timeout": -1 }))), (400, error(expected)));
}

#[test]
fn a_request_that_waits_shorter_than_the_answer_takes_is_504() {
    let server = Server::start_stub();
    let late = server.infer("slow", &with(json!({ "timeout": 3000 })));
    assert_eq!(late, (504, error("no answer within 3 ms")));
}

#[test]
fn requests_beyond_the_queue_are_told_to_come_again_and_those_in_it_are_answered_together() {
    // They go after half of their time: long enough for all of them to have come.
    let wait = Duration::from_secs(60);
    let server = start(Batching { rows_max: 64, wait, queue: 2 }, false);
    let ask = || server.infer("sum", &with(json!({ "timeout": 4_000_000 })));
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (answered, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|(status, _)| *status == 200);
    assert_eq!((answered.len(), refused.len()), (2, 6), "{answers:?}");
    for (status, body) in refused {
        assert_eq!(*status, 429);
        let expected = "2 requests wait for sum already; try again, or raise service.queue or \
                        service.instances";
        assert_eq!(sentence(body), expected);
    }
    let (_, stats) = server.get("/v2/models/sum/stats");
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&json!(2), &json!(1)));
    assert_eq!(stats["batch_stats"][0]["batch_size"], 2);
}

/// It has closed its connection as an end of a process does, not broken it.
#[test]
fn whoever_is_gone_leaves_its_place_before_its_turn() {
    let wait = Duration::from_secs(60);
    let server = start(Batching { rows_max: 64, wait, queue: 1 }, false);
    let mut gone = TcpStream::connect(server.address).unwrap();
    let body = with(json!({})).to_string();
    let head = "POST /v2/models/sum/infer HTTP/1.1\r\nhost: a\r\ncontent-length";
    write!(gone, "{head}: {}\r\n\r\n{body}", body.len()).unwrap();
    drop(gone);
    let noticed = until("it is noticed", || server.given_up() == 1);
    actix_rt::System::new().block_on(noticed);
    assert_eq!(server.infer("sum", &with(json!({ "timeout": 200_000 }))).0, 200);
}

#[test]
fn each_thread_of_the_service_answers_and_all_of_them_have_one_offer() {
    let server = start(Batching::default(), true);
    // Each on a connection of its own.
    let ask = || (0..8).map(|_| server.infer("sum", &rows(&[1.0, 2.0])).0).collect::<Vec<_>>();
    assert_eq!(ask(), [200; 8]);
    assert_eq!(server.post_text("/v2/repository/models/sum/unload", "").0, 200);
    assert_eq!(ask(), [503; 8]);
    assert_eq!(server.post_text("/v2/repository/models/sum/load", "").0, 200);
    assert_eq!(ask(), [200; 8]);
}

/// Half of the requests for `sum` go to each of its versions, and one is asked beside the other.
fn route(server: &Server) {
    let split = |version: &str| Split { version: version.parse().unwrap(), weight: 1 };
    let route = Route {
        splits: vec![split("production"), split("2")],
        shadow: Some("latest".parse().unwrap()),
    };
    let set = SetRoute { model: "sum".into(), route: Some(route) };
    let registry = server.registry.clone();
    actix_rt::System::new().block_on(async { registry.send(set).await.unwrap().unwrap() });
}

#[test]
fn requests_of_one_key_get_one_version_over_either_protocol() {
    let server = start(Batching::default(), true);
    let version = |key: &str| {
        let (status, body) = server.infer("sum", &with(json!({ "routing_key": key })));
        assert_eq!(status, 200, "{body}");
        body["model_version"].as_str().unwrap().to_owned()
    };
    assert_eq!(version("anybody"), "2");
    route(&server);
    let mut versions = std::collections::BTreeSet::new();
    for key in 0..16 {
        let key = key.to_string();
        let first = version(&key);
        assert_eq!(version(&key), first);
        #[cfg(feature = "grpc")]
        assert_eq!(crate::grpc::version_of_key(&server, &key), first);
        versions.insert(first);
    }
    assert_eq!(Vec::from_iter(versions), ["1", "2"]);
    let named =
        server.post("/v2/models/sum/versions/2/infer", &with(json!({ "routing_key": "0" })));
    assert_eq!(named.1["model_version"], "2");
    let expected = "parameter \"routing_key\" is 7, not a text";
    assert_eq!(server.infer("sum", &with(json!({ "routing_key": 7 }))), (400, error(expected)));
}
