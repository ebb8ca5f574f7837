//! The model repository extension: models that this process serves, or doesn't.

use gradmesh::service::ServiceLimits;
use serde_json::json;

use crate::support::{Server, error, rows};

const UNLOADED: &str = "sum was unloaded and is not served until it is loaded again";

#[test]
fn the_index_has_every_version_whatever_the_body_is() {
    let server = Server::start();
    let entry = |name: &str, version: &str| json!({ "name": name, "version": version, "state": "READY", "reason": "" });
    let index = json!([entry("pick", "1"), entry("sum", "1"), entry("sum", "2")]);
    for body in ["", "{}", " {\"ready\": true}", "{\"repository_name\": \"\"}"] {
        assert_eq!(server.post_text("/v2/repository/index", body), (200, index.clone()), "{body}");
    }
    for body in ["[]", "{", "{\"ready\": 3}"] {
        assert_eq!(server.post_text("/v2/repository/index", body).0, 400, "{body}");
    }
}

#[test]
fn an_unloaded_model_is_not_served_until_it_is_loaded() {
    let server = Server::start();
    let infer = || server.infer("sum", &rows(&[1.0, 2.0]));
    assert_eq!(infer().0, 200);
    let unload = "/v2/repository/models/sum/unload";
    for body in ["", "{\"parameters\": {\"unload_dependents\": false}}"] {
        assert_eq!(server.post_text(unload, body), (200, json!({})));
    }
    assert_eq!(infer(), (503, error(UNLOADED)));
    let by_number = server.post("/v2/models/sum/versions/1/infer", &rows(&[1.0, 2.0]));
    assert_eq!(by_number, (503, error(UNLOADED)));
    assert_eq!(server.get("/v2/models/sum/ready"), (503, error(UNLOADED)));
    server.still_answers();
    let (_, index) = server.post_text("/v2/repository/index", "");
    let gone =
        json!({ "name": "sum", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded" });
    assert_eq!(index[2], gone);
    let (_, ready) = server.post("/v2/repository/index", &json!({ "ready": true }));
    assert_eq!(ready.as_array().unwrap().len(), 1);
    assert_eq!(server.post_text("/v2/repository/models/sum/load", ""), (200, json!({})));
    assert_eq!(infer().1["outputs"][0]["data"], json!([6.0]));
    assert_eq!(server.get("/v2/models/sum/ready").0, 200);
}

#[test]
fn an_unloaded_model_stays_unloaded_when_a_version_of_it_is_published() {
    let server = Server::start();
    server.post_text("/v2/repository/models/sum/unload", "");
    let (registry, publish) = (server.registry.clone(), crate::support::sum("c", 3.0));
    actix_rt::System::new().block_on(async { registry.send(publish).await.unwrap().unwrap() });
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 503);
    server.post_text("/v2/repository/models/sum/load", "");
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).1["model_version"], "3");
}

#[test]
fn a_model_that_does_not_exist_is_404_also_to_unload() {
    let server = Server::start();
    let no_model = (404, error("no model \"none\"; known models: pick, sum"));
    for verb in ["load", "unload"] {
        let path = format!("/v2/repository/models/none/{verb}");
        assert_eq!(server.post_text(&path, ""), no_model);
        assert_eq!(server.get(&path), (405, error("GET is not allowed here; use POST")));
    }
}

#[test]
fn nobody_loads_or_unloads_where_it_is_not_configured() {
    let server = Server::start_as(ServiceLimits::default(), false);
    let text =
        "models are not loaded or unloaded by callers here; set service.model_control = true";
    for verb in ["load", "unload"] {
        let path = format!("/v2/repository/models/sum/{verb}");
        assert_eq!(server.post_text(&path, ""), (403, error(text)));
    }
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).0, 200);
    assert_eq!(server.post_text("/v2/repository/index", "").0, 200);
}

#[test]
fn a_model_that_comes_with_the_request_is_refused() {
    let server = Server::start();
    for name in ["config", "file:1/model.onnx"] {
        let body = json!({ "parameters": { name: "e30=" } });
        let text = format!("a model is changed by publishing a version, not by parameter {name:?}");
        let answer = server.post("/v2/repository/models/sum/load", &body);
        assert_eq!(answer, (501, error(&text)));
    }
}

#[test]
fn a_version_that_can_not_be_loaded_leaves_its_model_as_it_was() {
    let server = Server::start();
    let file = server.folder.path().join("models/sum/2/model.safetensors");
    std::fs::write(&file, "").unwrap();
    server.post_text("/v2/repository/models/sum/unload", "");
    assert_eq!(server.post_text("/v2/repository/models/sum/load", "").0, 500);
    assert_eq!(server.get("/v2/models/sum/ready"), (503, error(UNLOADED)));
}

#[test]
fn a_repository_whose_registry_is_away_is_503() {
    let server = Server::start_stub();
    let gone = (503, error("the store of the registry is gone"));
    for path in ["index", "models/any/load", "models/any/unload"] {
        assert_eq!(server.post_text(&format!("/v2/repository/{path}"), ""), gone, "{path}");
    }
}
