//! The feed of what happens in the registry.

use gradmesh::service::ServiceLimits;
use serde_json::{Value, json};

use crate::support::{Server, registry_actors, state};

const PATH: &str = "/gradmesh/registry/events";

fn events(server: &Server, query: &str) -> Vec<Value> {
    let (status, feed) = server.get(&format!("{PATH}?{query}"));
    assert_eq!(status, 200, "{feed}");
    feed["events"].as_array().unwrap().clone()
}

/// Gives `sum` another description: one more entry of the log.
fn describe(server: &Server, text: &str) {
    let body = json!({ "name": "sum", "description": text }).to_string();
    let url = server.url("/api/2.0/mlflow/registered-models/update");
    assert_eq!(server.agent().patch(url).send(&body).unwrap().status(), 200);
}

#[test]
fn a_feed_tells_of_each_change_once_and_goes_on_behind_it() {
    let server = Server::start();
    let all = events(&server, "");
    assert_eq!((&all[0]["kind"], &all[0]["model"]), (&json!("published"), &json!("sum")));
    assert_eq!((&all[0]["number"], &all[0]["version"]), (&json!(1), &json!(1)));
    let last = all.last().unwrap()["number"].as_u64().unwrap();
    assert_eq!(last as usize, all.len(), "none is left out");
    assert_eq!(events(&server, &format!("after={last}")), [Value::Null; 0]);
    assert_eq!(events(&server, "after=0&limit=2"), all[..2]);
}

#[test]
fn who_waits_for_an_event_is_answered_when_it_comes() {
    let server = Server::start();
    let last = events(&server, "").len();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| events(&server, &format!("after={last}&wait_ms=30000")));
        describe(&server, "sums up");
        let came = waiting.join().unwrap();
        assert_eq!((came.len(), &came[0]["kind"]), (1, &json!("edited")));
    });
}

/// The client's patience is as long as the wait.
#[test]
fn who_waits_while_the_service_stops_is_answered_at_once() {
    let server = Server::run(async |registry, _| {
        let actors = registry_actors(&registry);
        let state = state(registry, ServiceLimits::default(), |_| {}).with_registry(actors, false);
        state.tell_that_it_stops();
        state
    });
    let last = events(&server, "").len();
    assert_eq!(events(&server, &format!("after={last}&wait_ms=30000")), [Value::Null; 0]);
}

#[test]
fn who_has_read_further_than_the_log_goes_is_told_where_it_ends() {
    let server = Server::start();
    let last = events(&server, "").len() as u64;
    for ahead in [1, 100, u64::MAX - last] {
        let (status, body) = server.get(&format!("{PATH}?after={}&wait_ms=30000", last + ahead));
        assert_eq!(status, 410, "{body}");
        let text = body["error"].as_str().unwrap();
        assert!(text.ends_with(&format!("go on after {last}")), "{text}");
    }
}

#[test]
fn a_query_that_makes_no_sense_is_refused() {
    let server = Server::start();
    for query in ["after=-1", "limit=0", "limit=257", "wait_ms=30001", "behind=1"] {
        let (status, body) = server.get(&format!("{PATH}?{query}"));
        assert_eq!(status, 400, "{query}: {body}");
        assert!(!body["error"].as_str().unwrap().is_empty());
    }
}
