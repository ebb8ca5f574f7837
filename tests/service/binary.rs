//! The binary tensor extension: raw tensors behind the JSON of requests and answers.

use std::io::Write;

use serde_json::{Value, json};

use crate::support::{Binary, Server, error, rows, sentence};

const SUM: &str = "/v2/models/sum/infer";
const PICK: &str = "/v2/models/pick/infer";

/// A request for one raw input, and the tensor behind it.
fn request(datatype: &str, shape: Value, tensor: &[u8], rest: Value) -> (String, Vec<u8>) {
    let parameters = json!({ "binary_data_size": tensor.len() });
    let input =
        json!({ "name": "input", "datatype": datatype, "shape": shape, "parameters": parameters });
    let mut json = json!({ "inputs": [input] });
    json.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let json = json.to_string();
    (json.len().to_string(), [json.as_bytes(), tensor].concat())
}

fn send(server: &Server, path: &str, datatype: &str, tensor: &[u8], rest: Value) -> Binary {
    let (length, body) = request(datatype, json!([1, 2]), tensor, rest);
    server.binary(path, &length, &body)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Byte for byte what a client sends and gets.
#[test]
fn a_raw_request_is_answered_with_these_bytes() {
    let server = Server::start();
    let json = br#"{"inputs":[{"name":"input","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}}],"outputs":[{"name":"output","parameters":{"binary_data":true}}]}"#;
    let tensor = b"\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\xe0\x40";
    let head = format!(
        "POST {SUM} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nInference-Header-Content-Length: {}\r\nContent-Length: {}\r\n\r\n",
        json.len(),
        json.len() + tensor.len(),
    );
    let answer = server.raw_bytes(&[head.as_bytes(), json, tensor].concat());
    let body = br#"{"model_name":"sum","model_version":"2","parameters":{"digest":"state of b"},"outputs":[{"name":"output","datatype":"FP32","shape":[2,1],"parameters":{"binary_data_size":8}}]}"#;
    let (head, got) =
        answer.split_at(answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4);
    assert_eq!(got, [&body[..], b"\0\0\xc0\x40\0\0\xa0\x41"].concat());
    let head = String::from_utf8(head.to_vec()).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/octet-stream\r\n"), "{head}");
    let length = format!("\r\ninference-header-content-length: {}\r\n", body.len());
    assert!(head.contains(&length), "{head}");
}

#[test]
fn every_numeric_datatype_is_read() {
    let server = Server::start();
    for (datatype, tensor, sum) in [
        ("BOOL", &[1, 1][..], 4.0),
        ("UINT8", &[200, 100], 600.0),
        ("INT8", &[0xff, 3], 4.0),
        ("UINT16", &[0, 1, 1, 0], 514.0),
        ("INT16", &[0xff, 0xff, 3, 0], 4.0),
        ("UINT32", &[1, 0, 0, 0, 2, 0, 0, 0], 6.0),
        ("INT32", &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], 4.0),
        ("UINT64", &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], 6.0),
        ("INT64", &[0xff, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0, 0, 0, 0, 0, 0], 4.0),
        ("FP16", &[0x00, 0x3e, 0x00, 0x40], 7.0),
        ("BF16", &[0xc0, 0x3f, 0x00, 0x40], 7.0),
        ("FP32", &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0x40], 7.0),
        ("FP64", &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x40], 7.0),
    ] {
        let answer = send(&server, SUM, datatype, tensor, json!({}));
        assert_eq!(answer.status, 200, "{datatype}: {}", answer.json);
        assert_eq!(answer.json["outputs"][0]["data"], json!([sum]), "{datatype}");
    }
}

#[test]
fn text_for_a_model_that_takes_numbers_is_read_and_refused() {
    let server = Server::start();
    let text = send(&server, SUM, "BYTES", b"\x01\0\0\0a\0\0\0\0", json!({}));
    let expected = error("input \"input\": datatype BYTES is not numeric; send FP32");
    assert_eq!((text.status, text.json), (400, expected));
    let cut = send(&server, SUM, "BYTES", b"\x01\0\0\0a\x02\0\0\0b", json!({}));
    let expected = error("input \"input\": element 1 of BYTES should have 6 bytes, 5 are left");
    assert_eq!((cut.status, cut.json), (400, expected));
}

#[test]
fn outputs_are_raw_where_they_are_asked_for_as_raw() {
    let server = Server::start();
    let tensor = bytes_of(&[0.25, 0.75]);
    let class = 1i64.to_le_bytes();
    let output = |name: &str, raw: Value| json!({ "name": name, "parameters": raw });
    let all = json!({ "binary_data_output": true });
    for (rest, raw) in [
        (json!({ "parameters": all }), [&tensor[..], &class].concat()),
        (json!({}), vec![]),
        (json!({ "parameters": { "binary_data_output": false } }), vec![]),
        (
            json!({ "outputs": [output("class", json!({ "binary_data": true })), output("output", json!({}))] }),
            class.to_vec(),
        ),
        // What an output says itself counts.
        (
            json!({ "parameters": all, "outputs": [output("output", json!({ "binary_data": false })), output("class", json!({}))] }),
            class.to_vec(),
        ),
        (
            json!({ "outputs": [output("class", json!({ "binary_data": true })), output("output", json!({ "binary_data": true }))] }),
            [&class[..], &tensor].concat(),
        ),
    ] {
        let answer = send(&server, PICK, "FP32", &tensor, rest.clone());
        assert_eq!(answer.status, 200, "{rest}: {}", answer.json);
        assert_eq!(answer.tensors, raw, "{rest}");
        let kind = if raw.is_empty() { "json" } else { "octet-stream" };
        assert_eq!(answer.content_type, format!("application/{kind}"), "{rest}");
        for output in answer.json["outputs"].as_array().unwrap() {
            let is_raw = output["parameters"]["binary_data_size"].is_u64();
            assert_eq!(is_raw, output.get("data").is_none(), "{rest}: {output}");
        }
    }
}

#[test]
fn json_requests_may_ask_for_raw_answers() {
    let server = Server::start();
    let mut request = rows(&[1.0, 2.0]);
    request["parameters"] = json!({ "binary_data_output": true });
    let body = request.to_string();
    let mut answer = server.agent().post(server.url(SUM)).send(&body).unwrap();
    let length: usize =
        answer.headers()["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    let bytes = answer.body_mut().read_to_vec().unwrap();
    assert_eq!(bytes[length..], bytes_of(&[6.0]));
}

#[test]
fn a_header_length_of_zero_means_that_the_body_is_one_row() {
    let server = Server::start();
    let answer = server.binary(PICK, "0", &bytes_of(&[0.25, 0.75]));
    assert_eq!(answer.status, 200, "{}", answer.json);
    let outputs = json!([
        { "name": "output", "datatype": "FP32", "shape": [1, 2], "parameters": { "binary_data_size": 8 } },
        { "name": "class", "datatype": "INT64", "shape": [1], "parameters": { "binary_data_size": 8 } },
    ]);
    assert_eq!(answer.json["outputs"], outputs);
    let raw = [&bytes_of(&[0.25, 0.75])[..], &1i64.to_le_bytes()].concat();
    assert_eq!(answer.tensors, raw);
    for (body, text) in [
        (&[0u8; 6][..], "shape [1, 1] of FP32 has 4 bytes, got 6"),
        (&[0u8; 4], "a row of pick has 2 features, the request has 1"),
        (b"", "a row of pick has 2 features, the request has 0"),
    ] {
        let refused = server.binary(PICK, "0", body);
        assert_eq!((refused.status, refused.json), (400, error(text)));
    }
}

#[test]
fn a_compressed_binary_request_counts_its_json_unpacked() {
    let server = Server::start();
    let (length, body) = request("FP32", json!([1, 2]), &bytes_of(&[1.0, 2.0]), json!({}));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&body).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&body).unwrap();
    for (encoding, packed) in [("gzip", gzip.finish()), ("deflate", zlib.finish())] {
        let sent = server.agent().post(server.url(SUM)).header("content-encoding", encoding);
        let sent = sent.header("inference-header-content-length", &length);
        let mut answer = sent.send(&packed.unwrap()).unwrap();
        let body: Value = answer.body_mut().read_json().unwrap();
        assert_eq!(body["outputs"][0]["data"], json!([6.0]), "{encoding}: {body}");
    }
}

#[test]
fn a_binary_request_whose_lengths_disagree_is_400_and_says_how() {
    let server = Server::start();
    let tensor = bytes_of(&[1.0, 2.0]);
    let (length, body) = request("FP32", json!([1, 2]), &tensor, json!({}));
    let refused = |length: &str, body: &[u8], text: &str| {
        let refused = server.binary(SUM, length, body);
        assert_eq!(refused.status, 400, "{}", refused.json);
        assert!(sentence(&refused.json).contains(text), "{}", refused.json);
    };
    let body = &body[..];
    let more = (body.len() + 1).to_string();
    refused(&more, body, "bytes of JSON, the body has");
    refused("-1", body, "not a whole number");
    refused("99999999999999999999999", body, "not a whole number");
    refused(&length, &[body, b"x"].concat(), "1 bytes of the body are behind the last input");
    refused(&length, &body[..body.len() - 1], "binary_data_size is 8, the body has 7 bytes left");
    let (length, body) = request("FP32", json!([2, 2]), &tensor, json!({}));
    refused(&length, &body, "shape [2, 2] of FP32 has 16 bytes, got 8");
    let (length, body) = request("FP32", json!([u64::MAX, 2]), &tensor, json!({}));
    refused(&length, &body, "is larger than any memory");
    let (length, body) = request(
        "FP32",
        json!([1, 2]),
        &tensor,
        json!({ "outputs": [{ "name": "output", "parameters": { "binary_data": 1 } }] }),
    );
    refused(&length, &body, "parameter \"binary_data\" is 1, not true or false");
    let (length, body) = request("BOOL", json!([1, 2]), &[1, 7], json!({}));
    refused(&length, &body, "byte 1 is 7, BOOL is 0 or 1");
    let (_, body) = request("FP32", json!([1, 2]), b"", json!({}));
    let (status, answer) = server.post_text(SUM, std::str::from_utf8(&body).unwrap());
    assert_eq!(status, 400);
    assert!(sentence(&answer).contains("it has binary_data_size, the request no inference-header"));
    let mut both = rows(&[1.0, 2.0]);
    both["inputs"][0]["parameters"] = json!({ "binary_data_size": 8 });
    let both = both.to_string();
    refused(&both.len().to_string(), both.as_bytes(), "both data and binary_data_size");
    server.still_answers();
}

#[test]
fn json_and_raw_inputs_may_stand_beside_each_other() {
    let server = Server::start();
    // This model takes one input: that both were read shows in what is said of their number.
    let json_input = rows(&[1.0, 2.0])["inputs"][0].clone();
    let raw = json!({ "name": "input", "datatype": "FP32", "shape": [1, 2], "parameters": { "binary_data_size": 8 } });
    let json = json!({ "inputs": [json_input, raw] }).to_string();
    let body = [json.as_bytes(), &bytes_of(&[3.0, 4.0])].concat();
    let refused = server.binary(SUM, &json.len().to_string(), &body);
    assert_eq!(sentence(&refused.json), "expected one input, named \"input\", got 2");
    // A length that covers the whole body is a JSON request.
    let json = rows(&[1.0, 2.0]).to_string();
    let answer = server.binary(SUM, &json.len().to_string(), json.as_bytes());
    assert_eq!((answer.status, &answer.json["outputs"][0]["data"]), (200, &json!([6.0])));
}

#[test]
fn classification_answers_with_the_largest_values_as_text() {
    let server = Server::start();
    let mut request = rows(&[0.25, 0.75, 0.5, 0.5]);
    let ask =
        |largest: Value| json!([{ "name": "output", "parameters": { "classification": largest } }]);
    request["outputs"] = ask(json!(1));
    let output = json!({ "name": "output", "datatype": "BYTES", "shape": [2, 1], "data": ["0.75:1", "0.5:0"] });
    assert_eq!(server.infer("pick", &request).1["outputs"], json!([output]));
    request["outputs"] = ask(json!(5));
    let data = json!(["0.75:1", "0.25:0", "0.5:0", "0.5:1"]);
    assert_eq!(server.infer("pick", &request).1["outputs"][0]["data"], data);
    request["outputs"][0]["parameters"]["binary_data"] = json!(true);
    request["outputs"][0]["parameters"]["classification"] = json!(1);
    let json = request.to_string();
    let raw = server.binary(PICK, &json.len().to_string(), json.as_bytes());
    assert_eq!(raw.tensors, b"\x06\0\0\x000.75:1\x05\0\0\x000.5:0");
    for (outputs, text) in [
        (ask(json!(0)), "classification is 0; ask for at least one"),
        (ask(json!(-1)), "parameter \"classification\" is -1, not a whole number"),
        (json!([{ "name": "class", "parameters": { "classification": 1 } }]), "ask for that of"),
    ] {
        request["outputs"] = outputs;
        let (status, answer) = server.infer("pick", &request);
        assert_eq!(status, 400, "{answer}");
        assert!(sentence(&answer).contains(text), "{answer}");
    }
}
