//! What a node with the role of a service listens with.

use std::net::SocketAddr;

use super::{NodeBuilder, NodeError, Serving};
#[cfg(feature = "grpc")]
use crate::service::GrpcService;
use crate::service::{Keys, Service, ServiceLimits};
use tokio::task::spawn_local;

/// Threads that answer HTTP, where the machine has so many cores: reading is the larger part of a
/// small model's request, and many more would only wait for memory.
const HTTP_THREADS_MAX: usize = 32;

/// One service, in each of its protocols.
#[derive(Debug)]
pub(super) struct Services {
    pub(super) http: Service,
    #[cfg(feature = "grpc")]
    grpc: Option<GrpcService>,
}

impl Services {
    pub(super) async fn start(builder: &NodeBuilder, serving: &Serving) -> Result<Self, NodeError> {
        let config = &builder.config;
        let own = config.nodes.iter().find(|node| builder.name.as_ref() == Some(&node.name));
        let state = serving.state(ServiceLimits::default());
        let state = state.with_model_control(config.service.model_control);
        let state = state.with_registry(serving.registry(), config.service.registry_writes);
        let state = match config.service.model_requests {
            0 => state,
            limit => state.with_model_requests(limit),
        };
        let state = match &config.service.keys {
            Some(path) => {
                let keys = Keys::read(&config.path(path))?;
                spawn_local(keys.clone().follow());
                state.with_keys(keys)
            }
            None => state,
        };
        let listen = config.service.listen;
        let listen = own.map_or(listen, |node| node.listens_on(listen));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let http = Service::start(listen, state.clone(), threads.clamp(2, HTTP_THREADS_MAX))?;
        #[cfg(feature = "grpc")]
        {
            let listen = config.service.grpc_listen;
            let grpc = match own.map_or(listen, |node| node.grpc_listens_on(listen)) {
                Some(listen) => Some(GrpcService::start(listen, state)?),
                None => None,
            };
            Ok(Self { http, grpc })
        }
        #[cfg(not(feature = "grpc"))]
        Ok(Self { http })
    }

    pub(super) fn grpc_address(&self) -> Option<SocketAddr> {
        #[cfg(feature = "grpc")]
        return self.grpc.as_ref().map(GrpcService::address);
        #[cfg(not(feature = "grpc"))]
        return None;
    }

    pub(super) async fn stop(self) {
        self.http.stop().await;
        #[cfg(feature = "grpc")]
        if let Some(grpc) = self.grpc {
            grpc.stop().await;
        }
    }
}
