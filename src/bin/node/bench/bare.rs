//! What a service costs at least: an actix-web handler that reads a row, asks the model on its own
//! thread, and writes the answer. No registry, no versions, no checks, no counters.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use anyhow::Context;
use gradmesh_actors::model::Model;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::requests::{JSON_LENGTH, PATH};

/// As many as the service has.
const THREADS: usize = 2;

#[derive(Debug)]
struct Bare {
    model: Arc<dyn Model>,
    parameters: Vec<f32>,
}

#[derive(Deserialize)]
struct Request {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    shape: [usize; 2],
    #[serde(default)]
    data: Vec<f32>,
}

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    outputs: [Output<'a>; 1],
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a [f32]>,
}

/// Starts it; it ends with the handle.
pub(super) fn start(
    model: Arc<dyn Model>,
    parameters: Vec<f32>,
) -> anyhow::Result<(SocketAddr, ServerHandle)> {
    let bare = web::Data::new(Bare { model, parameters });
    let app = move || App::new().app_data(bare.clone()).route(PATH, web::post().to(infer));
    let server = HttpServer::new(app).workers(THREADS).disable_signals().bind(("127.0.0.1", 0))?;
    let address = *server.addrs().first().context("loopback")?;
    let server = server.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok((address, handle))
}

async fn infer(bare: web::Data<Bare>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let raw = request.headers().get(JSON_LENGTH);
    let length = raw.and_then(|length| length.to_str().ok()?.parse().ok());
    match answer(&bare, &body, length) {
        Ok((body, None)) => HttpResponse::Ok().content_type("application/json").body(body),
        Ok((body, Some(length))) => HttpResponse::Ok()
            .content_type("application/octet-stream")
            .insert_header((JSON_LENGTH, length))
            .body(body),
        Err(error) => HttpResponse::BadRequest().body(error.to_string()),
    }
}

/// The answer, and how much of it is JSON where a raw tensor follows.
fn answer(
    bare: &Bare,
    body: &[u8],
    json_length: Option<usize>,
) -> anyhow::Result<(Vec<u8>, Option<usize>)> {
    let (json, raw) =
        body.split_at_checked(json_length.unwrap_or(body.len())).context("too short")?;
    let Request { inputs } = serde_json::from_slice(json)?;
    let [Input { shape, data }] = &inputs[..] else { anyhow::bail!("not one input") };
    let raw: Vec<f32> = raw.as_chunks().0.iter().copied().map(f32::from_le_bytes).collect();
    let values = if json_length.is_some() { &raw } else { data };
    let rows = ArrayView2::from_shape(*shape, values)?;
    let answer: Array2<f32> = bare.model.predict(&bare.parameters, rows);
    let values = answer.as_slice().context("not row-major")?;
    let data = json_length.is_none().then_some(values);
    let shape = [answer.nrows(), answer.ncols()];
    let output = Output { name: "output", datatype: "FP32", shape, data };
    let mut body = serde_json::to_vec(&Answer { model_name: "mlp", outputs: [output] })?;
    let length = body.len();
    if json_length.is_some() {
        body.extend_from_slice(bytemuck::cast_slice(values));
    }
    Ok((body, json_length.map(|_| length)))
}
