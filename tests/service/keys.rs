//! Callers who need a key, and how much each may ask at a time.

use std::path::PathBuf;
use std::time::Duration;

use gradmesh::service::{Keys, ServiceLimits};
use serde_json::{Value, json};

use crate::support::{Server, rows, sentence, state, stub_state_within, until};

/// Paths that need no key: they tell whether it runs, numbers, and what can be asked.
const FOR_ALL: [&str; 6] = [
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/metrics",
    "/metrics/triton",
    "/gradmesh/status",
];

/// An entry of the key `gm-<name>`.
fn entry(name: &str, more: &str) -> String {
    let digest = blake3::hash(format!("gm-{name}").as_bytes());
    format!("[[keys]]\nname = \"{name}\"\nblake3 = \"{digest}\"\n{more}\n")
}

/// A service that callers may change, and the file of its keys.
struct Guarded {
    server: Server,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

fn guarded(entries: &[String]) -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    std::fs::write(&path, entries.concat()).unwrap();
    let keys = Keys::read(&path).unwrap();
    let server = Server::run(async move |registry, _| {
        actix_rt::spawn(keys.clone().follow());
        let actors = crate::support::registry_actors(&registry);
        let state = state(registry, ServiceLimits::default(), |_| {}).with_model_control(true);
        state.with_registry(actors, true).with_keys(keys)
    });
    Guarded { server, path, _folder: folder }
}

impl Guarded {
    /// Status and body of a request with this `Authorization`.
    fn send(
        &self,
        method: &str,
        path: &str,
        authorization: Option<&str>,
        body: &Value,
    ) -> (u16, Value) {
        let mut request = ureq::http::Request::builder().method(method);
        request = request.uri(self.server.url(path)).header("content-type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body.to_string()).unwrap();
        let mut answer = self.server.agent().run(request).unwrap();
        let status = answer.status().as_u16();
        if status == 401 {
            assert!(answer.headers().contains_key("www-authenticate"), "{path}");
        }
        (status, answer.body_mut().read_json().unwrap_or_default())
    }

    fn infer(&self, model: &str, key: &str) -> (u16, Value) {
        let path = format!("/v2/models/{model}/infer");
        self.send("POST", &path, Some(&format!("Bearer {key}")), &rows(&[0.5, 0.5]))
    }
}

#[test]
fn nothing_is_told_or_done_without_a_key_but_what_is_for_all() {
    let guarded = guarded(&[entry("all", "registry_writes = true\nmodel_control = true")]);
    let (_, document) = guarded.send("GET", "/gradmesh/openapi.json", None, &Value::Null);
    let mut refused = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let asked = path
                .replace("{model}", "sum")
                .replace("{version}", "1")
                .replace("{path}", "sum/1/model.safetensors");
            let answers = [None, Some("Bearer gm-none"), Some("Basic !")]
                .map(|authorization| guarded.send(&method, &asked, authorization, &json!({})).0);
            if FOR_ALL.contains(&path.as_str()) {
                assert_eq!(answers, [200; 3], "{method} {path}");
            } else {
                assert_eq!(answers, [401; 3], "{method} {path}");
                refused += 1;
            }
            let known = guarded.send(&method, &asked, Some("Bearer gm-all"), &json!({})).0;
            assert!(![401, 403].contains(&known), "{method} {path}: {known}");
        }
    }
    assert_eq!(refused, 42);
}

#[test]
fn each_protocol_says_in_its_own_form_that_a_key_is_missing() {
    let guarded = guarded(&[entry("shop", "")]);
    let none = Value::Null;
    let (_, body) = guarded.send("GET", "/v2/models", None, &none);
    assert!(sentence(&body).starts_with("this service needs a key"), "{body}");
    let (_, body) = guarded.send("GET", "/v1/models", Some("Bearer wrong"), &none);
    assert_eq!(body["error"]["code"], "invalid_api_key", "{body}");
    assert_eq!(body["error"]["type"], "authentication_error");
    let path = "/api/2.0/mlflow/registered-models/search";
    let (_, body) = guarded.send("GET", path, None, &none);
    assert_eq!(body["error_code"], "UNAUTHENTICATED", "{body}");
    // As MLflow's clients send a user and a password.
    assert_eq!(guarded.send("GET", path, Some("Basic c2hvcDpnbS1zaG9w"), &none).0, 200);
}

#[test]
fn a_key_asks_its_models_and_changes_nothing_unless_its_entry_says_so() {
    let guarded = guarded(&[entry("shop", "models = [\"pi*\"]"), entry("lab", "")]);
    assert_eq!(guarded.infer("pick", "gm-shop").0, 200);
    let (status, body) = guarded.infer("sum", "gm-shop");
    let text = "key \"shop\" may not ask sum; change its models in service.keys";
    assert_eq!((status, sentence(&body)), (403, text));
    assert_eq!(guarded.infer("sum", "gm-lab").0, 200);
    // Nor does it get another one's file.
    let files = "/api/2.0/mlflow-artifacts/artifacts";
    let shop = Some("Bearer gm-shop");
    for path in [format!("{files}?path=sum/1"), format!("{files}/sum/1/model.safetensors")] {
        let (status, body) = guarded.send("GET", &path, shop, &Value::Null);
        assert_eq!((status, &body["error_code"]), (403, &json!("PERMISSION_DENIED")), "{path}");
    }
    let own = format!("{files}?path=pick/1");
    assert_eq!(guarded.send("GET", &own, shop, &Value::Null).0, 200);
    let (status, body) =
        guarded.send("POST", "/v2/repository/models/sum/unload", Some("Bearer gm-lab"), &json!({}));
    assert_eq!(status, 403);
    assert!(sentence(&body).ends_with("set its model_control in service.keys"), "{body}");
    let (status, body) = guarded.send(
        "POST",
        "/api/2.0/mlflow/registered-models/create",
        Some("Bearer gm-lab"),
        &json!({ "name": "new" }),
    );
    assert_eq!((status, &body["error_code"]), (403, &json!("PERMISSION_DENIED")));
    assert_eq!(guarded.infer("sum", "gm-lab").0, 200);
}

#[test]
fn a_key_that_is_taken_out_of_the_file_is_refused_and_a_new_one_known_while_the_service_runs() {
    let guarded = guarded(&[entry("old", "")]);
    assert_eq!((guarded.infer("sum", "gm-old").0, guarded.infer("sum", "gm-new").0), (200, 401));
    let wait = async |what: &str, statuses: (u16, u16)| {
        let now = || (guarded.infer("sum", "gm-old").0, guarded.infer("sum", "gm-new").0);
        until(what, || now() == statuses).await;
    };
    actix_rt::System::new().block_on(async {
        std::fs::write(&guarded.path, entry("old", "") + &entry("new", "")).unwrap();
        wait("a new key", (200, 200)).await;
        std::fs::write(&guarded.path, entry("new", "")).unwrap();
        wait("no old key", (401, 200)).await;
    });
}

/// A service whose model `slow` never answers, of which so many requests may be under way.
fn slow(keys: &str, of_model: Option<usize>) -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    std::fs::write(&path, keys).unwrap();
    let keys = Keys::read(&path).unwrap();
    let server = Server::run(async move |_, _| {
        // Long enough for all that are sent at once to meet.
        let state = stub_state_within(Duration::from_secs(2)).with_keys(keys);
        match of_model {
            Some(limit) => state.with_model_requests(limit),
            None => state,
        }
    });
    Guarded { server, path, _folder: folder }
}

/// Statuses and sentences of `count` requests that are sent at once.
fn at_once(guarded: &Guarded, count: usize, model: &str, key: &str) -> Vec<(u16, String)> {
    let begin = std::sync::Barrier::new(count);
    std::thread::scope(|scope| {
        let ask = || {
            begin.wait();
            let (status, body) = guarded.infer(model, key);
            (status, sentence(&body).to_owned())
        };
        let asked: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn no_more_requests_of_a_key_are_under_way_than_its_entry_says() {
    let guarded = slow(&(entry("shop", "requests = 2") + &entry("lab", "")), None);
    let answers = at_once(&guarded, 8, "slow", "gm-shop");
    let refused = "2 requests of key \"shop\" are under way already; try again, or raise its requests in service.keys";
    let late = answers.iter().filter(|(status, _)| *status == 504).count();
    assert!((2..8).contains(&late), "{answers:?}");
    assert!(answers.iter().all(|(status, text)| *status == 504 || text == refused), "{answers:?}");
    assert!(answers.iter().all(|(status, _)| [429, 504].contains(status)), "{answers:?}");
    // Their places are free again, and others have their own.
    assert_eq!(guarded.infer("slow", "gm-shop").0, 504);
    assert!(at_once(&guarded, 8, "slow", "gm-lab").iter().all(|(status, _)| *status == 504));
}

#[test]
fn no_more_requests_for_a_model_are_under_way_than_is_set() {
    let guarded = slow(&entry("shop", ""), Some(2));
    let answers = at_once(&guarded, 8, "slow", "gm-shop");
    let refused =
        "2 requests for slow are under way already; try again, or raise service.model_requests";
    let late = answers.iter().filter(|(status, _)| *status == 504).count();
    assert!((2..8).contains(&late), "{answers:?}");
    assert!(answers.iter().all(|(status, text)| *status == 504 || text == refused), "{answers:?}");
    assert_eq!(guarded.infer("slow", "gm-shop").0, 504);
}

#[cfg(feature = "grpc")]
#[test]
fn a_call_over_grpc_needs_the_same_key_and_health_none() {
    use tonic::{Code, Request};

    use crate::grpc::{Client, bytes_of, channel, inference as proto, raw};

    fn with<T>(message: T, key: &str) -> Request<T> {
        let mut request = Request::new(message);
        let key = format!("Bearer {key}").parse().unwrap();
        request.metadata_mut().insert("authorization", key);
        request
    }

    let guarded = guarded(&[entry("shop", "models = [\"sum\"]")]);
    actix_rt::System::new().block_on(async {
        let mut client = Client::new(channel(&guarded.server).await);
        let ask = |model: &str| raw(model, "FP32", &[1, 2], &bytes_of(&[1.0, 2.0]));
        let code = client.model_infer(ask("sum")).await.unwrap_err().code();
        assert_eq!(code, Code::Unauthenticated);
        let code = client.model_infer(with(ask("sum"), "gm-none")).await.unwrap_err().code();
        assert_eq!(code, Code::Unauthenticated);
        assert!(client.model_infer(with(ask("sum"), "gm-shop")).await.is_ok());
        let code = client.model_infer(with(ask("pick"), "gm-shop")).await.unwrap_err().code();
        assert_eq!(code, Code::PermissionDenied);
        let stream = tokio_stream::once(ask("sum"));
        let code = client.model_stream_infer(stream).await.unwrap_err().code();
        assert_eq!(code, Code::Unauthenticated);
        // A stream ends when its key is taken back.
        let (messages, requests) = tokio::sync::mpsc::unbounded_channel();
        let requests = futures_util::stream::unfold(requests, |mut requests| async move {
            requests.recv().await.map(|one| (one, requests))
        });
        let calls = with(Box::pin(requests), "gm-shop");
        let mut answers = client.model_stream_infer(calls).await.unwrap().into_inner();
        messages.send(ask("sum")).unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().error_message, "");
        std::fs::write(&guarded.path, entry("lab", "")).unwrap();
        until("no key of the shop", || guarded.infer("sum", "gm-shop").0 == 401).await;
        messages.send(ask("sum")).unwrap();
        assert_eq!(answers.message().await.unwrap_err().code(), Code::Unauthenticated);
        std::fs::write(&guarded.path, entry("shop", "models = [\"sum\"]")).unwrap();
        until("the key of the shop", || guarded.infer("sum", "gm-shop").0 == 200).await;
        let metadata =
            proto::ModelMetadataRequest { name: "sum".to_owned(), version: String::new() };
        let code = client.model_metadata(metadata.clone()).await.unwrap_err().code();
        assert_eq!(code, Code::Unauthenticated);
        assert!(client.model_metadata(with(metadata, "gm-shop")).await.is_ok());
        let unload = proto::RepositoryModelUnloadRequest {
            model_name: "sum".to_owned(),
            ..Default::default()
        };
        let code =
            client.repository_model_unload(with(unload, "gm-shop")).await.unwrap_err().code();
        assert_eq!(code, Code::PermissionDenied);
        assert!(client.server_ready(proto::ServerReadyRequest {}).await.is_ok());
    });
}
