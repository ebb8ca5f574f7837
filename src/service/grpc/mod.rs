//! The protocol over gRPC: the same answers as over HTTP, and tensors that are always raw.

mod calls;
mod codec;
mod connections;
mod convert;
mod health;
mod infer;
mod metered;
mod status;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_rt::Arbiter;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tracing::{error, info};

use super::ServiceState;
use calls::Calls;
use connections::Connections;
use health::Readiness;
use inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use metered::{Answered, Meter, Metered};
use proto_health::health_server::HealthServer;

/// What `proto/inference.proto` says.
mod inference {
    #![allow(clippy::all, unreachable_pub, missing_debug_implementations, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/server/inference.rs"));
}

/// What `proto/health.proto` says.
mod proto_health {
    #![allow(clippy::all, unreachable_pub, missing_debug_implementations, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/server/grpc.health.v1.rs"));
}

/// Calls of one connection at a time: with the largest number of connections far more than the
/// predictor takes, so that refusals come from there.
const STREAMS_MAX: u32 = 256;

/// A connection that does not answer a ping for so long is closed; one is sent after as much
/// silence.
const PING: Duration = Duration::from_secs(20);

/// Resets that a client may cause before its connection is closed: more are an attack.
const RESETS_MAX: usize = 64;

/// How long calls under way are waited for when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Calls that need no key.
const FOR_ALL: [&str; 3] = ["/ServerLive", "/ServerReady", "/ServerMetadata"];

/// A call that is one of them.
#[derive(Clone, Copy, Debug)]
struct ForAll;

/// The gRPC service could not start.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    #[error(
        "{listen} is in use by another program; change service.grpc_listen or the grpc_listen of its node"
    )]
    InUse { listen: SocketAddr },
    #[error(
        "can't listen on {listen}: {source}; change service.grpc_listen or the grpc_listen of its node"
    )]
    Listen { listen: SocketAddr, source: io::Error },
    #[error("the thread of the gRPC service ended while it was starting")]
    Arbiter,
}

/// A running gRPC server, on a thread of its own.
#[derive(Debug)]
pub struct GrpcService {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    stopped: oneshot::Receiver<()>,
    arbiter: Arbiter,
}

impl GrpcService {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub fn start(listen: SocketAddr, state: ServiceState) -> Result<Self, GrpcError> {
        let bound = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => GrpcError::InUse { listen },
            _ => GrpcError::Listen { listen, source },
        };
        let listener = std::net::TcpListener::bind(listen).map_err(bound)?;
        listener.set_nonblocking(true).map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        let arbiter = Arbiter::new();
        let (stop, stops) = oneshot::channel();
        let (end, stopped) = oneshot::channel();
        let serving = async move {
            let served = match Connections::new(listener) {
                Ok(connections) => serve(connections, state, stops).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = served {
                error!(%error, "the gRPC server failed");
            }
            // Nobody waits for it only where the node was dropped.
            let _ = end.send(());
        };
        if !arbiter.spawn(serving) {
            return Err(GrpcError::Arbiter);
        }
        info!(%address, "gRPC service listens");
        Ok(Self { address, stop, stopped, arbiter })
    }

    /// Where it listens: the port that was given, or the one that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new calls and waits for those under way.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(STOP_LIMIT, self.stopped).await;
        self.arbiter.stop();
    }
}

async fn serve(
    connections: Connections,
    state: ServiceState,
    stops: oneshot::Receiver<()>,
) -> Result<(), Box<dyn Error>> {
    let state = state.on_this_thread();
    let largest = state.limits.body_bytes_max;
    let requests = state.requests.clone();
    let meter = Meter { places: state.places.clone(), largest, requests };
    let calls = GrpcInferenceServiceServer::new(Calls { state: state.clone() })
        .max_decoding_message_size(largest)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
        .accept_compressed(tonic::codec::CompressionEncoding::Deflate);
    let known = state.clone();
    // Before any byte of its body takes the room of others.
    let calls = InterceptedService::new(calls, move |call: tonic::Request<()>| {
        if call.extensions().get::<ForAll>().is_none() {
            known.caller(calls::authorization(&call))?;
        }
        Ok(call)
    });
    let stops = async move {
        // An error is the end of whoever could stop it.
        let _ = stops.await;
    };
    Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .layer(MapResponseLayer::new(status::as_protocol))
        .layer(MapRequestLayer::new(move |request: http::Request<tonic::body::Body>| {
            let (mut parts, body) = request.into_parts();
            let path = parts.uri.path();
            if FOR_ALL.iter().any(|call| path.ends_with(call)) {
                parts.extensions.insert(ForAll);
            }
            let answered = metered::is_stream(path).then(Answered::default);
            if let Some(answered) = &answered {
                parts.extensions.insert(answered.clone());
            }
            let body = Metered::new(body, answered, meter.clone());
            http::Request::from_parts(parts, tonic::body::Body::new(body))
        }))
        .add_service(calls)
        .add_service(HealthServer::new(Readiness { state }))
        .serve_with_incoming_shutdown(connections.stream(), stops)
        .await?;
    Ok(())
}
