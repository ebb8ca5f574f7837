//! The statistics and model configuration extensions.

use serde_json::{Value, json};

use crate::support::{Server, rows};

fn of(server: &Server, path: &str) -> Vec<Value> {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{body}");
    assert_eq!(body.as_object().unwrap().len(), 1);
    body["model_stats"].as_array().unwrap().clone()
}

#[test]
fn requests_rows_and_times_are_counted_by_version() {
    let server = Server::start();
    server.infer("sum", &rows(&[1.0, 2.0, 3.0, 4.0]));
    server.infer("sum", &rows(&[1.0, 2.0]));
    server.infer("sum", &rows(&[13.0, 2.0]));
    server.infer("sum", &json!({ "inputs": [] }));
    server.post("/v2/models/sum/versions/1/infer", &rows(&[1.0, 2.0]));
    let [first, second] = &of(&server, "/v2/models/sum/stats")[..] else { panic!("two versions") };
    assert_eq!((&first["version"], &first["inference_count"]), (&json!("1"), &json!(1)));
    assert_eq!((&second["name"], &second["version"]), (&json!("sum"), &json!("2")));
    assert_eq!(second["inference_count"], 3);
    assert_eq!(second["execution_count"], 2);
    assert!(second["last_inference"].as_u64().unwrap() > 1_600_000_000_000);
    let stats = &second["inference_stats"];
    for part in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
        assert_eq!(stats[part]["count"], 2, "{part}");
        assert!(stats[part]["ns"].as_u64().unwrap() > 0, "{part}: {stats}");
    }
    let ns = |part: &str| stats[part]["ns"].as_u64().unwrap();
    let parts = ns("queue") + ns("compute_input") + ns("compute_infer") + ns("compute_output");
    assert!(parts <= ns("success"), "{stats}");
    assert_eq!(stats["fail"]["count"], 1);
    assert_eq!(stats["cache_hit"], json!({ "count": 0, "ns": 0 }));
    let sizes: Vec<_> =
        second["batch_stats"].as_array().unwrap().iter().map(|b| &b["batch_size"]).collect();
    assert_eq!(sizes, [1, 2]);
}

#[test]
fn the_same_is_said_under_the_names_that_triton_has() {
    let server = Server::start();
    server.infer("sum", &rows(&[1.0, 2.0, 3.0, 4.0]));
    server.infer("sum", &rows(&[13.0, 2.0]));
    let mut page = server.agent().get(server.url("/metrics/triton")).call().unwrap();
    let page = page.body_mut().read_to_string().unwrap();
    for line in [
        "nv_inference_request_success{model=\"sum\",version=\"2\"} 1\n",
        "nv_inference_request_failure{model=\"sum\",version=\"2\"} 1\n",
        "nv_inference_count{model=\"sum\",version=\"2\"} 2\n",
        "nv_inference_exec_count{model=\"sum\",version=\"2\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[test]
fn statistics_are_of_all_models_of_one_or_of_a_version() {
    let server = Server::start();
    assert_eq!(of(&server, "/v2/models/stats"), Vec::<Value>::new());
    let [unasked] = &of(&server, "/v2/models/pick/stats")[..] else { panic!("one version") };
    assert_eq!((&unasked["version"], &unasked["execution_count"]), (&json!("1"), &json!(0)));
    server.infer("sum", &rows(&[1.0, 2.0]));
    server.still_answers();
    assert_eq!(of(&server, "/v2/models/stats").len(), 2);
    for (version, count) in [("latest", 1), ("2", 1), ("production", 0), ("1", 0)] {
        let path = format!("/v2/models/sum/versions/{version}/stats");
        let [one] = &of(&server, &path)[..] else { panic!("one version") };
        assert_eq!(one["execution_count"], count, "{version}");
    }
    assert_eq!(server.get("/v2/models/none/stats").0, 404);
    assert_eq!(server.get("/v2/models/sum/versions/7/stats").0, 404);
}

#[test]
fn the_configuration_says_what_a_row_is() {
    let server = Server::start();
    let (status, pick) = server.get("/v2/models/pick/config");
    assert_eq!(status, 200);
    let expected = json!({
        "name": "pick",
        "platform": "gradmesh",
        "backend": "gradmesh",
        "version_policy": { "all": {} },
        "max_batch_size": (16 << 20) / 8,
        "input": [{ "name": "input", "data_type": "TYPE_FP32", "dims": [2] }],
        "output": [
            { "name": "output", "data_type": "TYPE_FP32", "dims": [2] },
            { "name": "class", "data_type": "TYPE_INT64", "dims": [1], "reshape": { "shape": [] } },
        ],
    });
    assert_eq!(pick, expected);
    assert_eq!(server.get("/v2/models/sum/versions/production/config").0, 200);
    assert_eq!(server.get("/v2/models/none/config").0, 404);
}
