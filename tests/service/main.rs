//! The HTTP service seen by a client: real sockets, a real registry in a folder, small models.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]
#![allow(clippy::disallowed_methods, reason = "a server on a thread of its own")]

mod arbitrary;
mod binary;
mod events;
mod flood;
#[cfg(feature = "grpc")]
mod grpc;
mod keys;
mod mlflow;
mod openai;
mod read_only;
mod repository;
mod statistics;
mod status;
mod support;
mod swaps;
mod tensors;
mod turns;

use std::io::Write;

use gradmesh::service::{Service, ServiceError, ServiceLimits};
use serde_json::{Value, json};
use support::{Server, error, rows, sentence, stub_state, sum};

#[test]
fn the_server_describes_itself_and_says_that_it_lives() {
    let server = Server::start();
    let version = env!("CARGO_PKG_VERSION");
    let extensions = [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
    ];
    let about = json!({ "name": "gradmesh", "version": version, "extensions": extensions });
    assert_eq!(server.get("/v2"), (200, about));
    assert_eq!(server.get("/v2/health/live"), (200, json!({ "live": true })));
    assert_eq!(server.get("/v2/health/ready"), (200, json!({ "live": true, "ready": true })));
}

#[test]
fn the_root_names_what_can_be_asked() {
    let server = Server::start();
    let version = env!("CARGO_PKG_VERSION");
    let paths = [
        "/v2",
        "/v2/models",
        "/v1/models",
        "/metrics",
        "/metrics/triton",
        "/gradmesh/status",
        "/gradmesh/registry/events",
        "/gradmesh/openapi.json",
        "/gradmesh/try",
    ];
    let about = json!({ "name": "gradmesh", "version": version, "paths": paths });
    assert_eq!(server.get("/"), (200, about));
}

#[test]
fn models_are_listed_and_described() {
    let server = Server::start();
    assert_eq!(server.get("/v2/models"), (200, json!({ "models": ["pick", "sum"] })));
    let (status, sum) = server.get("/v2/models/sum");
    assert_eq!(status, 200);
    assert_eq!((&sum["name"], &sum["versions"]), (&json!("sum"), &json!(["1", "2"])));
    let input = json!([{ "name": "input", "datatype": "FP32", "shape": [-1, 2] }]);
    let output = json!([{ "name": "output", "datatype": "FP32", "shape": [-1, 1] }]);
    assert_eq!((&sum["inputs"], &sum["outputs"]), (&input, &output));
    assert_eq!(sum["properties"]["version"], "2");
    let class = json!({ "name": "class", "datatype": "INT64", "shape": [-1] });
    assert_eq!(server.get("/v2/models/pick").1["outputs"][1], class);
}

#[test]
fn a_version_is_reached_by_number_by_latest_and_by_alias() {
    let server = Server::start();
    for (path, version) in [("1", "1"), ("latest", "2"), ("2", "2"), ("production", "1")] {
        let (status, body) = server.get(&format!("/v2/models/sum/versions/{path}"));
        assert_eq!((status, &body["properties"]["version"]), (200, &json!(version)), "{path}");
        let ready = server.get(&format!("/v2/models/sum/versions/{path}/ready"));
        assert_eq!(ready, (200, json!({ "name": "sum", "ready": true })));
        let infer = format!("/v2/models/sum/versions/{path}/infer");
        assert_eq!(server.post(&infer, &rows(&[1.0, 2.0])).1["model_version"], version);
    }
    assert_eq!(server.get("/v2/models/sum/ready"), (200, json!({ "name": "sum", "ready": true })));
}

#[test]
fn an_answer_names_the_version_that_gave_it_and_leaves_out_what_is_absent() {
    let server = Server::start();
    let answer = json!({
        "model_name": "sum",
        "model_version": "2",
        "parameters": { "digest": "state of b" },
        "outputs": [{ "name": "output", "datatype": "FP32", "shape": [2, 1], "data": [6.0, 20.0] }],
    });
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0, 3.0, 7.0])), (200, answer));
    let mut with_id = rows(&[1.0, 2.0]);
    with_id["id"] = json!("seven");
    assert_eq!(server.infer("sum", &with_id).1["id"], "seven");
}

#[test]
fn a_classifier_answers_with_probabilities_and_classes_or_with_what_is_asked() {
    let server = Server::start();
    let mut request = rows(&[0.25, 0.75, 0.5, 0.5]);
    let outputs = json!([
        { "name": "output", "datatype": "FP32", "shape": [2, 2], "data": [0.25, 0.75, 0.5, 0.5] },
        { "name": "class", "datatype": "INT64", "shape": [2], "data": [1, 0] },
    ]);
    assert_eq!(server.infer("pick", &request).1["outputs"], outputs);
    request["outputs"] = json!([{ "name": "class" }]);
    assert_eq!(server.infer("pick", &request).1["outputs"], json!([outputs[1]]));
}

#[test]
fn tensors_may_be_nested_and_of_any_numeric_datatype() {
    let server = Server::start();
    for (datatype, data) in [
        ("FP32", json!([1, 2.5])),
        ("FP64", json!([[1.0, 2.5]])),
        ("INT32", json!([[1, 2]])),
        ("UINT8", json!([1, 2])),
        ("BOOL", json!([true, 0])),
    ] {
        let input = json!({ "name": "input", "datatype": datatype, "shape": [1, 2], "data": data });
        let (status, body) = server.infer("sum", &json!({ "inputs": [input] }));
        assert_eq!(status, 200, "{datatype}: {body}");
    }
}

#[test]
fn what_clients_add_to_a_request_is_ignored() {
    let server = Server::start();
    let request = json!({
        "parameters": { "triton_enable_empty_final_response": true, "priority": 3 },
        "inputs": [{
            "name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 2],
            "parameters": { "content_type": "np" },
        }],
        "outputs": [{ "name": "output", "parameters": { "timeout": 5, "headers": {} } }],
        "raw": null,
    });
    let (status, body) = server.infer("sum", &request);
    assert_eq!((status, &body["outputs"][0]["data"]), (200, &json!([6.0])));
}

#[test]
fn a_request_without_content_type_is_read() {
    let server = Server::start();
    let body = rows(&[1.0, 2.0]).to_string();
    let head = format!("POST /v2/models/sum/infer HTTP/1.1\r\nContent-Length: {}", body.len());
    let answer = server.raw(&format!("{head}\r\nHost: a\r\nConnection: close\r\n\r\n{body}"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_compressed_request_is_read_and_an_unknown_encoding_is_refused() {
    let server = Server::start();
    let body = rows(&[1.0, 2.0]).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(body.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    for (encoding, bytes, status) in [
        ("gzip", &gzip[..], 200),
        ("deflate", &zlib, 200),
        ("br", &gzip, 415),
        ("gzip", b"{}", 400),
    ] {
        let sent = server.agent().post(server.url("/v2/models/sum/infer"));
        let sent = sent.header("content-encoding", encoding).send(bytes).unwrap();
        assert_eq!(sent.status().as_u16(), status, "{encoding}");
    }
}

#[test]
fn what_does_not_exist_is_404_with_what_does() {
    let server = Server::start();
    let body = rows(&[1.0, 2.0]);
    let no_model = "no model \"none\"; known models: pick, sum";
    assert_eq!(server.get("/v2/models/none"), (404, error(no_model)));
    assert_eq!(server.get("/v2/models/none/ready"), (404, error(no_model)));
    assert_eq!(server.infer("none", &body), (404, error(no_model)));
    let infer = server.post("/v2/models/sum/versions/9/infer", &body);
    assert_eq!(infer, (404, error("sum has no version 9; known versions: 2, 1")));
    let infer = server.post("/v2/models/sum/versions/canary/infer", &body);
    assert_eq!(infer, (404, error("sum has no alias \"canary\"; known aliases: production")));
    for path in ["/nothing", "/v2/", "/v2/nothing", "/v3", "/v2/models/sum/infer/x"] {
        let text = format!("no path {path:?} on this server");
        assert_eq!(server.get(path), (404, error(&text)));
    }
    server.still_answers();
}

#[test]
fn a_wrong_method_is_405_and_names_the_right_ones() {
    let server = Server::start();
    for (path, method, allow) in [
        ("/v2/models/sum/infer", "GET", "POST"),
        ("/v2/models/sum", "POST", "GET, HEAD"),
        ("/v2", "DELETE", "GET, HEAD"),
        ("/metrics", "POST", "GET, HEAD"),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close");
        let answer = server.raw(&format!("{head}\r\nContent-Length: 0\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert!(answer.contains(&format!("\r\nallow: {allow}\r\n")), "{answer}");
        let text = format!("{method} is not allowed here; use {allow}");
        assert!(answer.ends_with(&error(&text).to_string()), "{answer}");
    }
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let server = Server::start();
    let answer =
        server.raw("HEAD /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_malformed_request_is_400_and_says_why() {
    let server = Server::start();
    let input = |name: &str, datatype: &str, shape: Value, data: Value| {
        let input = json!({ "name": name, "datatype": datatype, "shape": shape, "data": data });
        json!({ "inputs": [input] }).to_string()
    };
    let good = || json!({ "name": "input", "datatype": "FP32", "shape": [1, 2], "data": [1, 2] });
    let no_data = json!({ "inputs": [{ "name": "input", "datatype": "FP32", "shape": [1, 2] }] });
    let unknown = json!({ "inputs": [good()], "outputs": [{ "name": "logits" }] });
    let class = json!({ "inputs": [good()], "outputs": [{ "name": "class" }] });
    let twice =
        json!({ "inputs": [good()], "outputs": [{ "name": "output" }, { "name": "output" }] });
    let number = json!({ "inputs": [good()], "parameters": 3 });
    for (body, text) in [
        (String::new(), "the body is not a JSON object"),
        ("{".into(), "the body is not an inference request: EOF"),
        ("[]".into(), "the body is not a JSON object"),
        ("{}".into(), "missing field `inputs`"),
        (json!({ "inputs": [] }).to_string(), "expected one input, named \"input\", got 0"),
        (json!({ "inputs": [good(), good()] }).to_string(), "got 2"),
        (number.to_string(), "invalid type: integer `3`"),
        (no_data.to_string(), "input \"input\": it has no data"),
        (input("x", "FP32", json!([1, 2]), json!([1, 2])), "no input \"x\"; send \"input\""),
        (input("input", "FP32", json!([2]), json!([1, 2])), "shape [2] is not [rows, features]"),
        (input("input", "FP32", json!([2, 2]), json!([1, 2])), "shape [2, 2] can't have 2 values"),
        (input("input", "FP32", json!([-1, 2]), json!([1, 2])), "invalid value: integer `-1`"),
        (input("input", "FP32", json!([1, 2]), json!([[1], [2]])), "nested as [2, 1]"),
        (input("input", "FP32", json!([1, 2]), json!([[1], 2])), "data is ragged"),
        (input("input", "FP32", json!([1, 2]), json!(["1", 2])), "expected numbers"),
        (input("input", "FP32", json!([1, 2]), json!([1, 1e39])), "beyond the range of FP32"),
        (input("input", "INT8", json!([1, 2]), json!([1, 300])), "value 1 is 300, which INT8"),
        (input("input", "BYTES", json!([1, 2]), json!([1, 2])), "expected strings"),
        (input("input", "BYTES", json!([1, 2]), json!(["1", "2"])), "is not numeric"),
        (input("input", "FP31", json!([1, 2]), json!([1, 2])), "\"FP31\" is none of BOOL, "),
        (input("input", "BF16", json!([1, 2]), json!([1, 2])), "BF16 has no JSON form"),
        (input("input", "FP32", json!([1, 3]), json!([1, 2, 3])), "a row of sum has 2 features"),
        (input("input", "FP32", json!([0, 2]), json!([])), "send at least one row"),
        (unknown.to_string(), "sum has no output \"logits\"; it has output"),
        (class.to_string(), "sum has no output \"class\""),
        (twice.to_string(), "output \"output\" is requested twice"),
    ] {
        let (status, answer) = server.post_text("/v2/models/sum/infer", &body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(sentence(&answer).contains(text), "{body}: {answer}");
    }
    for version in ["Prod", "99999999999999999999999"] {
        assert_eq!(server.get(&format!("/v2/models/sum/versions/{version}")).0, 400);
    }
    server.still_answers();
}

#[test]
fn a_body_beyond_the_limit_is_413_however_large_it_is() {
    let limits = ServiceLimits { body_bytes_max: 1000, ..ServiceLimits::default() };
    let server = Server::start_with(limits);
    for len in [1001, 100_000, 20_000_000] {
        let (status, body) = server.post_text("/v2/models/sum/infer", &" ".repeat(len));
        assert_eq!(status, 413);
        assert!(sentence(&body).contains("larger than 1000 bytes"), "{body}");
    }
    server.still_answers();
}

#[test]
fn a_small_body_that_unpacks_beyond_the_limit_is_413() {
    let limits = ServiceLimits { body_bytes_max: 1000, ..ServiceLimits::default() };
    let server = Server::start_with(limits);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&[b' '; 100_000]).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(gzip.len() < 1000);
    let sent = server.agent().post(server.url("/v2/models/sum/infer"));
    let answer = sent.header("content-encoding", "gzip").send(&gzip[..]).unwrap();
    assert_eq!(answer.status().as_u16(), 413);
}

#[test]
fn a_model_that_panics_is_500_and_the_service_goes_on() {
    let server = Server::start();
    for _ in 0..3 {
        let failed = server.infer("sum", &rows(&[13.0, 1.0]));
        assert_eq!(failed, (500, error("version 2 of sum failed: it panicked: thirteen")));
        server.still_answers();
    }
}

#[test]
fn an_artifact_that_was_damaged_is_500_and_names_the_file() {
    let server = Server::start();
    let file = server.folder.path().join("models/sum/2/model.safetensors");
    std::fs::write(&file, "").unwrap();
    let (status, body) = server.infer("sum", &rows(&[1.0, 2.0]));
    assert_eq!(status, 500);
    assert!(sentence(&body).contains("models/sum/2/model.safetensors is not what"), "{body}");
    assert_eq!(server.post("/v2/models/sum/versions/1/infer", &rows(&[1.0, 2.0])).0, 200);
}

#[test]
fn a_version_published_meanwhile_answers_the_next_request() {
    let server = Server::start();
    assert_eq!(server.infer("sum", &rows(&[1.0, 2.0])).1["model_version"], "2");
    let registry = server.registry.clone();
    let publish = sum("c", 3.0);
    actix_rt::System::new().block_on(async { registry.send(publish).await.unwrap().unwrap() });
    let answer = server.infer("sum", &rows(&[1.0, 2.0])).1;
    assert_eq!(
        (&answer["model_version"], &answer["outputs"][0]["data"]),
        (&json!("3"), &json!([9.0]))
    );
}

#[test]
fn bodies_beyond_what_all_requests_may_take_are_429() {
    let limits = ServiceLimits { bodies_bytes_max: 2048, ..ServiceLimits::default() };
    let server = Server::start_with(limits);
    server.still_answers();
    let (status, body) = server.post_text("/v2/models/sum/infer", &" ".repeat(2049));
    assert_eq!(status, 429);
    assert!(sentence(&body).ends_with("try again in a second"), "{body}");
    server.still_answers();
}

#[test]
fn a_prediction_beyond_the_deadline_is_504() {
    let server = Server::start_stub();
    let late = server.infer("slow", &rows(&[1.0, 2.0]));
    assert_eq!(late, (504, error("no answer within 50 ms")));
}

#[test]
fn a_registry_that_does_not_answer_is_503_and_the_server_is_not_ready() {
    let server = Server::start_stub();
    let gone = "the store of the registry is gone";
    assert_eq!(server.infer("away", &rows(&[1.0, 2.0])), (503, error(gone)));
    assert_eq!(server.get("/v2/models/any"), (503, error(gone)));
    assert_eq!(server.get("/v2/models/any/ready"), (503, error(gone)));
    let ready = server.get("/v2/health/ready");
    assert_eq!(ready, (503, error(&format!("the registry is not ready: {gone}"))));
    assert_eq!(server.get("/v2/health/live").0, 200);
}

#[test]
fn each_path_that_can_be_read_is_in_the_document_and_answers() {
    let server = Server::start();
    let (status, document) = server.get("/gradmesh/openapi.json");
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let path = path.replace("{model}", "sum").replace("{version}", "production");
        let path = path.replace("{path}", "sum/1/model.safetensors");
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let queries = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query" && parameter["required"] == true);
        let queries = queries.map(|parameter| match parameter["name"].as_str().unwrap() {
            "version" => "version=1",
            "alias" => "alias=production",
            "path" => "path=sum/1",
            _ => "name=sum",
        });
        let path = format!("{path}?{}", queries.collect::<Vec<_>>().join("&"));
        let answer = server.agent().get(server.url(&path)).call().unwrap();
        // Nobody coordinates a run here, which is told as such.
        assert_eq!(answer.status(), 200, "{path}");
        let content = answer.headers()["content-type"].to_str().unwrap();
        let content = content.split(';').next().unwrap();
        assert!(item["get"]["responses"]["200"]["content"].get(content).is_some(), "{path}");
        asked += 1;
    }
    assert_eq!(asked, 27);
}

#[test]
fn the_page_to_try_a_model_is_whole_in_itself() {
    let server = Server::start();
    let mut answer = server.agent().get(server.url("/gradmesh/try")).call().unwrap();
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
    let page = answer.body_mut().read_to_string().unwrap();
    assert!(!page.contains("https://") && !page.contains("http://"));
}

#[test]
fn metrics_count_requests_by_models_that_exist() {
    let server = Server::start();
    server.infer("sum", &rows(&[1.0, 2.0, 3.0, 4.0]));
    server.infer("sum", &rows(&[13.0, 1.0]));
    server.infer("secret-name", &rows(&[1.0, 2.0]));
    let mut page = server.agent().get(server.url("/metrics")).call().unwrap();
    let page = page.body_mut().read_to_string().unwrap();
    for line in [
        "gradmesh_inference_requests_total{model=\"sum\",code=\"200\"} 1\n",
        "gradmesh_inference_requests_total{model=\"sum\",code=\"500\"} 1\n",
        "gradmesh_inference_requests_total{model=\"\",code=\"404\"} 1\n",
        "gradmesh_predicted_rows_total{model=\"sum\"} 2\n",
        "gradmesh_inference_duration_seconds_count{model=\"sum\"} 2\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(page.contains("# TYPE gradmesh_predicted_rows_total counter\n"), "{page}");
    let open = server.agent().get(server.url("/metrics"));
    let open = open.header("accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    let mut open = open.call().unwrap();
    let content = open.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(content.starts_with("application/openmetrics-text"), "{content}");
    let open = open.body_mut().read_to_string().unwrap();
    assert!(open.contains("# TYPE gradmesh_predicted_rows counter\n"), "{open}");
    assert!(open.ends_with("# EOF\n"));
    assert!(!page.contains("secret-name"), "{page}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_the_key() {
    let server = Server::start();
    let system = actix_rt::System::new();
    let second = system.block_on(async { Service::start(server.address, stub_state(), 1) });
    let text = second.unwrap_err().to_string();
    let expected = ServiceError::InUse { listen: server.address }.to_string();
    assert_eq!(text, expected);
    assert!(text.ends_with("change service.listen or the listen of its node"));
}
