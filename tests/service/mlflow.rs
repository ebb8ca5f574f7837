//! The registry as MLflow's clients speak to one. What the client itself does with it:
//! `tests/clients/run`.

use gradmesh::service::ServiceLimits;
use serde_json::{Value, json};

use crate::support::Server;

const BASE: &str = "/api/2.0/mlflow";

/// `METHOD path`, with a body or without.
fn call(server: &Server, request: &str, body: &Value) -> (u16, Value) {
    let (method, path) = request.split_once(' ').unwrap();
    let url = server.url(&format!("{BASE}/{path}"));
    let agent = server.agent();
    let body = body.to_string();
    let answer = match method {
        "GET" => agent.get(url).call(),
        "POST" => agent.post(url).send(&body),
        "PATCH" => agent.patch(url).send(&body),
        "DELETE" => agent.delete(url).force_send_body().send(&body),
        other => panic!("no method {other}"),
    };
    let mut answer = answer.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json", "{request}");
    (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
}

fn get(server: &Server, path: &str) -> Value {
    let (status, body) = call(server, &format!("GET {path}"), &Value::Null);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

fn done(server: &Server, request: &str, body: &Value) -> Value {
    let (status, answer) = call(server, request, body);
    assert_eq!(status, 200, "{request}: {answer}");
    answer
}

/// Status and MLflow's name of a refusal, whose text is not empty.
fn refused(server: &Server, request: &str, body: &Value) -> (u16, String) {
    let (status, answer) = call(server, request, body);
    assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
    assert!(!answer["message"].as_str().unwrap().is_empty());
    (status, answer["error_code"].as_str().unwrap().to_owned())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn what_training_published_is_there_with_its_lineage() {
    let server = Server::start();
    let model = &get(&server, "registered-models/get?name=sum")["registered_model"];
    assert_eq!(model["aliases"], json!([{ "alias": "production", "version": "1" }]));
    assert_eq!(model["latest_versions"][0]["version"], "2");
    let by_alias = get(&server, "registered-models/alias?name=sum&alias=production");
    let version = &by_alias["model_version"];
    assert_eq!(
        (&version["version"], &version["current_stage"]),
        (&json!("1"), &json!("Production"))
    );
    assert_eq!((&version["run_id"], &version["status"]), (&json!("a"), &json!("READY")));
    let tags = version["tags"].as_array().unwrap();
    let keys: Vec<_> = tags.iter().map(|tag| tag["key"].as_str().unwrap()).collect();
    for key in ["gradmesh.digest", "gradmesh.data_digest", "gradmesh.artifact_blake3"] {
        assert!(keys.contains(&key), "{keys:?}");
    }
    let uri = get(&server, "model-versions/get-download-uri?name=sum&version=1");
    assert_eq!(uri, json!({ "artifact_uri": "mlflow-artifacts:/sum/1" }));
}

#[test]
fn a_model_is_registered_described_tagged_and_deleted() {
    let server = Server::start();
    let tags = json!([{ "key": "team", "value": "vision" }]);
    let create = json!({ "name": "new", "tags": tags, "description": "first" });
    let made = done(&server, "POST registered-models/create", &create);
    assert_eq!(made["registered_model"]["tags"], tags);
    let again = refused(&server, "POST registered-models/create", &create);
    assert_eq!(again, no(400, "RESOURCE_ALREADY_EXISTS"));
    let update = json!({ "name": "new", "description": "second" });
    let updated = done(&server, "PATCH registered-models/update", &update);
    assert_eq!(updated["registered_model"]["description"], "second");
    let source = json!({ "name": "new", "source": "s3://b/m", "run_id": "r1", "tags": tags });
    let version = done(&server, "POST model-versions/create", &source);
    assert_eq!(version["model_version"]["version"], "1");
    assert_eq!(version["model_version"]["source"], "s3://b/m");
    let named = json!({ "name": "new", "alias": "best", "version": "1" });
    done(&server, "POST registered-models/alias", &named);
    let found = get(&server, "registered-models/alias?name=new&alias=best");
    assert_eq!(found["model_version"]["aliases"], json!(["best"]));
    let one = json!({ "name": "new", "version": "1" });
    assert_eq!(refused(&server, "DELETE model-versions/delete", &one).0, 400, "an alias names it");
    done(&server, "DELETE registered-models/alias", &json!({ "name": "new", "alias": "best" }));
    done(&server, "DELETE model-versions/delete", &one);
    let gone = refused(&server, "DELETE model-versions/delete", &one);
    assert_eq!(gone, no(404, "RESOURCE_DOES_NOT_EXIST"));
    let next = done(&server, "POST model-versions/create", &source);
    assert_eq!(next["model_version"]["version"], "2", "numbers are not given again");
    done(&server, "DELETE registered-models/delete", &json!({ "name": "new" }));
    let gone = refused(&server, "GET registered-models/get?name=new", &Value::Null);
    assert_eq!(gone, no(404, "RESOURCE_DOES_NOT_EXIST"));
}

#[test]
fn a_version_that_lies_elsewhere_is_not_served_and_latest_stays_what_it_was() {
    let server = Server::start();
    let link = json!({ "name": "sum", "source": "s3://b/m" });
    let linked = done(&server, "POST model-versions/create", &link);
    assert_eq!(linked["model_version"]["version"], "3");
    let rows = crate::support::rows(&[1.0, 2.0]);
    assert_eq!(server.infer("sum", &rows).1["model_version"], "2");
    let (status, answer) = server.post("/v2/models/sum/versions/3/infer", &rows);
    assert_eq!(status, 400, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("s3://b/m"), "{answer}");
}

#[test]
fn an_alias_that_a_client_moves_is_what_the_next_request_is_answered_with() {
    let server = Server::start();
    let rows = crate::support::rows(&[1.0, 2.0]);
    let served = || {
        let (status, answer) = server.post("/v2/models/sum/versions/production/infer", &rows);
        assert_eq!(status, 200, "{answer}");
        answer["model_version"].as_str().unwrap().to_owned()
    };
    assert_eq!(served(), "1");
    let two = json!({ "name": "sum", "version": "2", "stage": "production" });
    let moved = done(&server, "POST model-versions/transition-stage", &two);
    assert_eq!(moved["model_version"]["current_stage"], "Production");
    assert_eq!(served(), "2");
    let back = json!({ "name": "sum", "alias": "production", "version": "1" });
    done(&server, "POST registered-models/alias", &back);
    assert_eq!(served(), "1");
    let latest = json!({ "name": "sum", "stages": [] });
    let latest = done(&server, "POST registered-models/get-latest-versions", &latest);
    let versions = latest["model_versions"].as_array().unwrap();
    assert_eq!(versions.iter().map(|v| &v["version"]).collect::<Vec<_>>(), ["1", "2"]);
    let archived = json!({ "name": "sum", "version": "1", "stage": "Archived" });
    done(&server, "POST model-versions/transition-stage", &archived);
    assert_eq!(server.post("/v2/models/sum/versions/production/infer", &rows).0, 404);
}

#[test]
fn searches_have_filters_orders_and_pages() {
    let server = Server::start();
    let path = "registered-models/search?filter=tag.%60mlflow.prompt.is_prompt%60+!%3D+'true'&max_results=1";
    let page = get(&server, path);
    assert_eq!(page["registered_models"][0]["name"], "pick");
    let token = page["next_page_token"].as_str().unwrap();
    let rest = get(&server, &format!("{path}&page_token={token}"));
    assert_eq!(rest["registered_models"][0]["name"], "sum");
    assert!(rest.get("next_page_token").is_none());
    let tag = json!({ "name": "sum", "version": "2", "key": "kind", "value": "even" });
    done(&server, "POST model-versions/set-tag", &tag);
    let found = |filter: &str| {
        let path = format!(
            "model-versions/search?filter={filter}&order_by=name+ASC&order_by=version_number+DESC"
        );
        let page = get(&server, &path);
        let found = page["model_versions"].as_array().unwrap().iter();
        found.map(|v| format!("{}/{}", v["name"], v["version"])).collect::<Vec<_>>()
    };
    assert_eq!(found("name='sum'"), ["\"sum\"/\"2\"", "\"sum\"/\"1\""]);
    assert_eq!(found("tags.kind%3D'even'"), ["\"sum\"/\"2\""]);
    for wrong in ["colour='red'", "name", "name='a'+OR+name='b'"] {
        let path = format!("GET model-versions/search?filter={wrong}");
        assert_eq!(refused(&server, &path, &Value::Null), no(400, "INVALID_PARAMETER_VALUE"));
    }
    for wrong in ["max_results=0", "max_results=-1", "page_token=x", "order_by=colour"] {
        let path = format!("GET registered-models/search?{wrong}");
        assert_eq!(refused(&server, &path, &Value::Null), no(400, "INVALID_PARAMETER_VALUE"));
    }
}

#[test]
fn callers_read_and_do_not_write_where_it_is_not_configured() {
    let server = Server::start_as(ServiceLimits::default(), false);
    assert_eq!(get(&server, "registered-models/get?name=sum")["registered_model"]["name"], "sum");
    let latest =
        done(&server, "POST registered-models/get-latest-versions", &json!({ "name": "sum" }));
    assert_eq!(latest["model_versions"].as_array().unwrap().len(), 2);
    for request in [
        "POST registered-models/create",
        "PATCH registered-models/update",
        "DELETE registered-models/delete",
        "POST registered-models/alias",
        "DELETE registered-models/alias",
        "POST model-versions/create",
        "DELETE model-versions/delete",
        "POST model-versions/transition-stage",
    ] {
        let (status, answer) = call(&server, request, &json!({ "name": "sum" }));
        assert_eq!(
            (status, &answer["error_code"]),
            (403, &json!("PERMISSION_DENIED")),
            "{request}"
        );
        let text = answer["message"].as_str().unwrap();
        assert!(text.ends_with("set service.registry_writes = true"), "{text}");
    }
}

#[test]
fn wrong_requests_are_refused_in_mlflows_words() {
    let server = Server::start();
    let invalid = no(400, "INVALID_PARAMETER_VALUE");
    for (request, body) in [
        ("GET registered-models/get", Value::Null),
        ("GET model-versions/get?name=sum&version=latest", Value::Null),
        ("GET registered-models/alias?name=sum&alias=none", Value::Null),
        ("POST registered-models/create", json!({})),
        ("POST registered-models/create", json!([])),
        ("POST registered-models/create", json!({ "name": "../etc" })),
        ("POST registered-models/rename", json!({ "name": "sum", "new_name": "other" })),
        (
            "POST registered-models/alias",
            json!({ "name": "sum", "alias": "latest", "version": "1" }),
        ),
        (
            "POST model-versions/set-tag",
            json!({ "name": "sum", "version": "1", "key": "gradmesh.digest", "value": "x" }),
        ),
        (
            "POST model-versions/transition-stage",
            json!({ "name": "sum", "version": "1", "stage": "Live" }),
        ),
    ] {
        assert_eq!(refused(&server, request, &body), invalid, "{request} {body}");
    }
    let missing = no(404, "RESOURCE_DOES_NOT_EXIST");
    for (request, body) in [
        ("GET registered-models/get?name=none", Value::Null),
        ("GET model-versions/get?name=sum&version=9", Value::Null),
        (
            "PATCH model-versions/update",
            json!({ "name": "sum", "version": "9", "description": "" }),
        ),
        ("DELETE registered-models/delete", json!({ "name": "none" })),
    ] {
        assert_eq!(refused(&server, request, &body), missing, "{request} {body}");
    }
    let nowhere = no(404, "ENDPOINT_NOT_FOUND");
    for request in
        ["GET experiments/search", "POST registered-models/get", "GET registered-models/create"]
    {
        assert_eq!(refused(&server, request, &json!({})), nowhere, "{request}");
    }
    server.still_answers();
}

#[test]
fn the_files_of_a_version_are_listed_and_loaded_byte_for_byte() {
    let server = Server::start();
    let artifacts = "/api/2.0/mlflow-artifacts/artifacts";
    let (status, list) = server.get(&format!("{artifacts}?path=sum/2"));
    let files = list["files"].as_array().unwrap();
    assert_eq!((status, files.len()), (200, 2), "{list}");
    for file in files {
        let name = file["path"].as_str().unwrap();
        let url = server.url(&format!("{artifacts}/sum/2/{name}"));
        let mut answer = server.agent().get(url).call().unwrap();
        // As the OpenAPI document says of each of them.
        assert_eq!(answer.headers()["content-type"], "application/octet-stream", "{name}");
        let bytes = answer.body_mut().read_to_vec().unwrap();
        let stored = std::fs::read(server.folder.path().join("models/sum/2").join(name)).unwrap();
        assert_eq!((bytes.len() as u64, &bytes), (file["file_size"].as_u64().unwrap(), &stored));
    }
    assert_eq!(
        server.get(&format!("{artifacts}?path=sum/2/description.json")).1["files"],
        json!([])
    );
    for path in [
        "/sum/2",
        "/sum/2/other",
        "/sum/9/description.json",
        "/sum/latest/description.json",
        "/..%2F..%2Fetc/1/passwd",
        "/sum/2/..%2F1%2Fmodel.safetensors",
    ] {
        let (status, body) = server.get(&format!("{artifacts}{path}"));
        assert_eq!(
            (status, &body["error_code"]),
            (404, &json!("RESOURCE_DOES_NOT_EXIST")),
            "{path}"
        );
    }
    // Nobody changes them.
    for method in ["PUT", "DELETE"] {
        let request = ureq::http::Request::builder().method(method);
        let url = server.url(&format!("{artifacts}/sum/2/description.json"));
        let answer = server.agent().run(request.uri(url).body(()).unwrap()).unwrap();
        assert_eq!(answer.status(), 404);
    }
}
