//! The request of the load: one row, in each of its two forms.

use bytes::Bytes;
use serde_json::json;

pub(super) const MODEL: &str = "bench";
pub(super) const PATH: &str = "/v2/models/bench/infer";
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// A row as numbers in JSON, its fields in the order in which tritonclient and kserve's client write
/// them. (`json!` sorts them.)
pub(super) fn json(row: &[f32]) -> Bytes {
    let (len, data) = (row.len(), json!(row));
    let body = format!(
        r#"{{"inputs":[{{"name":"input","shape":[1,{len}],"datatype":"FP32","data":{data}}}]}}"#
    );
    post("", body.as_bytes())
}

/// A row as bytes behind JSON; the answer's tensor is to be raw too.
pub(super) fn binary(row: &[f32]) -> Bytes {
    let raw: &[u8] = bytemuck::cast_slice(row);
    let body = json!({
        "inputs": [{
            "name": "input", "shape": [1, row.len()], "datatype": "FP32",
            "parameters": { "binary_data_size": raw.len() },
        }],
        "outputs": [{ "name": "output", "parameters": { "binary_data": true } }],
    });
    let json = body.to_string();
    post(&format!("{JSON_LENGTH}: {}\r\n", json.len()), &[json.as_bytes(), raw].concat())
}

fn post(header: &str, body: &[u8]) -> Bytes {
    let length = body.len();
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n{header}\r\n");
    [head.as_bytes(), body].concat().into()
}
