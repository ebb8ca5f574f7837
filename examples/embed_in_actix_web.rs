//! gradmesh inside an actix-web application of one's own.
//!
//! What it shows: one process whose web application has its own routes, mounts gradmesh's
//! (`/v2`, `/metrics`), and trains in the background. While a run is under way, the version before
//! it is served; when it is published, requests get the new one.
//!
//! ```sh
//! cargo run --example embed_in_actix_web            # http://127.0.0.1:8080 until Ctrl-C
//! cargo run --example embed_in_actix_web -- --once  # asks itself, then exits
//! ```
//!
//! With `--once` it prints:
//!
//! ```text
//! GET /                        -> 200 {"digits":"step 0"}
//! GET /                        -> 200 {"digits":"version 1, after 230 steps"}
//! POST /classify               -> 200 {"digit":1,"probability":0.9948167204856873,"version":"1"}
//! POST /classify               -> 400 {"error":"a row of digits has 64 features, the request has 3"}
//! GET /v2/models/digits/ready  -> 200 {"name":"digits","ready":true}
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, Responder, get, post, web};
use gradmesh::actors::messages::{Predict, PredictError, ask};
use gradmesh::actors::training::{Progress, TrainingStatus};
use gradmesh::actors::version::VersionRef;
use gradmesh::config::{Config, environment};
use gradmesh::node::{Node, NodeBuilder};
use gradmesh::service::{ServiceLimits, configure};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the routes of this application know of gradmesh.
#[derive(Clone)]
struct Digits {
    predict: Recipient<Predict>,
    training: watch::Receiver<TrainingStatus>,
}

/// How far the run is.
#[get("/")]
async fn home(digits: web::Data<Digits>) -> impl Responder {
    let training = digits.training.borrow();
    let step = training.version.0;
    let says = match &training.progress {
        Progress::Done(published) => format!("version {}, after {step} steps", published.version),
        Progress::Failed { cause } => format!("failed: {cause}"),
        _ => format!("step {step}"),
    };
    web::Json(json!({ "digits": says }))
}

/// Which digit the 64 pixels show, each from 0 to 16.
#[post("/classify")]
async fn classify(digits: web::Data<Digits>, pixels: web::Json<Vec<f32>>) -> impl Responder {
    let pixels = pixels.into_inner();
    let features = pixels.len();
    let pixels = Arc::new(pixels);
    let Ok(request) = Predict::of_rows("digits", VersionRef::Latest, 1, features, pixels) else {
        return HttpResponse::BadRequest().finish();
    };
    match ask(&digits.predict, request, Duration::from_secs(5)).await {
        Ok(answer) => {
            let (values, _) = answer.values();
            let best = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
            let (digit, probability) = best.map_or((0, 0.0), |(digit, part)| (digit, *part));
            let version = answer.version.to_string();
            HttpResponse::Ok()
                .json(json!({ "digit": digit, "probability": probability, "version": version }))
        }
        Err(error) => {
            let status = match error {
                PredictError::Features { .. } | PredictError::NotFinite { .. } => {
                    StatusCode::BAD_REQUEST
                }
                // Nothing is published yet, or too much is asked at once.
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            HttpResponse::build(status).json(json!({ "error": error.to_string() }))
        }
    }
}

/// The application: its own routes, and gradmesh's. Listens at once, whatever is published.
fn serve(node: &Node, listen: &str) -> anyhow::Result<SocketAddr> {
    let serving = node.serving();
    // This process runs all roles, so it has the coordinator.
    let training = node.status().ok_or_else(|| anyhow::anyhow!("no coordinator"))?;
    let digits = web::Data::new(Digits { predict: serving.predict.clone(), training });
    let state = serving.state(ServiceLimits::default());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(digits.clone())
            .service(home)
            .service(classify)
            .configure(|cfg| configure(cfg, state.clone()))
    })
    .workers(2)
    .bind(listen)?;
    let address = server.addrs()[0];
    actix_rt::spawn(server.run());
    Ok(address)
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let once = std::env::args().any(|argument| argument == "--once");
    let stores = tempfile::tempdir()?;
    let mut sets = Vec::new();
    if once {
        // A run of its own: nothing of an earlier one, nothing left behind.
        sets.push(format!("checkpoint.store={}", stores.path().join("checkpoints").display()));
        sets.push(format!("registry.store={}", stores.path().join("registry").display()));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits.toml");
    let config = Config::load(&file, &sets, environment())?;

    // Returns when the actors run, not when they have trained.
    let node = NodeBuilder::new(config).start().await?;
    if once {
        let address = serve(&node, "127.0.0.1:0")?;
        ask_itself(&node, address).await?;
    } else {
        let address = serve(&node, "127.0.0.1:8080")?;
        println!("http://{address}/ says how far the run is; Ctrl-C ends");
        tokio::signal::ctrl_c().await?;
    }
    node.stop().await;
    Ok(())
}

/// A client of the application, over HTTP.
async fn ask_itself(node: &Node, address: SocketAddr) -> anyhow::Result<()> {
    // The second row of the data set.
    const ONE: [f32; 64] = [
        0.0, 0.0, 0.0, 12.0, 13.0, 5.0, 0.0, 0.0, //
        0.0, 0.0, 0.0, 11.0, 16.0, 9.0, 0.0, 0.0, //
        0.0, 0.0, 3.0, 15.0, 16.0, 6.0, 0.0, 0.0, //
        0.0, 7.0, 15.0, 16.0, 16.0, 2.0, 0.0, 0.0, //
        0.0, 0.0, 1.0, 16.0, 16.0, 3.0, 0.0, 0.0, //
        0.0, 0.0, 1.0, 16.0, 16.0, 6.0, 0.0, 0.0, //
        0.0, 0.0, 1.0, 16.0, 16.0, 6.0, 0.0, 0.0, //
        0.0, 0.0, 0.0, 11.0, 16.0, 10.0, 0.0, 0.0,
    ];
    show(address, "GET /", None).await?;
    node.trained().await?;
    show(address, "GET /", None).await?;
    show(address, "POST /classify", Some(json!(ONE.as_slice()))).await?;
    show(address, "POST /classify", Some(json!([0, 1, 2]))).await?;
    show(address, "GET /v2/models/digits/ready", None).await
}

/// Prints the answer to a request.
async fn show(address: SocketAddr, request: &str, body: Option<Value>) -> anyhow::Result<()> {
    let path = request.split(' ').next_back().unwrap_or_default();
    let url = format!("http://{address}{path}");
    // The client blocks, and this thread has actors to run.
    let (status, text) = web::block(move || -> anyhow::Result<_> {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)));
        let client = config.build().new_agent();
        let mut answer = match body {
            Some(body) => client.post(&url).send_json(body)?,
            None => client.get(&url).call()?,
        };
        Ok((answer.status().as_u16(), answer.body_mut().read_to_string()?))
    })
    .await??;
    println!("{request:<28} -> {status} {text}");
    Ok(())
}
