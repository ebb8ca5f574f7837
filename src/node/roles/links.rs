//! Whom servers and workers speak to, and from which thread.

use actix::{Addr, Recipient};
use gradmesh_actors::ids::{ShardCopy, ShardId};
use gradmesh_actors::messages::{self, WireMessage};
use gradmesh_actors::parameter_server::{ParameterServer, ServerLinks};
use gradmesh_actors::worker::WorkerLinks;
use tokio::task::spawn_local;

use super::{Cast, Servers, copy_target};
use crate::config::Role;
use crate::node::directory::{Directory, Place, Plan};
use crate::node::placement::Thread;
use crate::node::{NodeBuilder, NodeError};
use crate::router::Router;
use crate::wire::Target;

pub(super) fn server_links(cast: &Cast, near: &Servers, copy: ShardCopy) -> ServerLinks {
    ServerLinks {
        report_shard: cast.all_coordinators(),
        report_part: cast.all_coordinators(),
        report_fenced: cast.all_coordinators(),
        save: cast.checkpoints.clone().recipient(),
        load: cast.checkpoints.clone().recipient(),
        find: cast.registry.find.clone(),
        fetch: cast.registry.fetch.clone(),
        norm: copies(near, ShardId(0)),
        replicate: copies(near, copy.shard),
        fill: copies(near, copy.shard),
    }
}

pub(super) fn worker_links(cast: &Cast, near: &Servers) -> WorkerLinks {
    WorkerLinks {
        push: all_copies(near),
        pull: all_copies(near),
        report_part: cast.all_coordinators(),
        report_failure: cast.all_coordinators(),
        report_speed: cast.all_coordinators(),
        save: cast.checkpoints.clone().recipient(),
        load_residuals: cast.checkpoints.clone().recipient(),
    }
}

/// Every server's copy of a shard.
fn copies<M>(servers: &Servers, shard: ShardId) -> Vec<Recipient<M>>
where
    M: WireMessage + Send + 'static,
    M::Result: Send,
    ParameterServer: actix::Handler<M>,
{
    let of_shard = |copies: &Vec<Place<_>>| copies.get(shard.0 as usize).map(Place::recipient);
    servers.iter().filter_map(of_shard).collect()
}

pub(super) fn all_copies<M>(servers: &Servers) -> Vec<Vec<Recipient<M>>>
where
    M: WireMessage + Send + 'static,
    M::Result: Send,
    ParameterServer: actix::Handler<M>,
{
    let of_server = |copies: &Vec<Place<_>>| copies.iter().map(Place::recipient).collect();
    servers.iter().map(of_server).collect()
}

/// The servers as an actor on its own thread reaches those of other nodes: by connections of its
/// own, so that no other thread has to wake for a step.
pub(super) async fn near(
    builder: &NodeBuilder,
    plan: &Plan,
    cast: &Cast,
    thread: &Thread,
) -> Result<Servers, NodeError> {
    let (plan, own) = (plan.clone(), builder.hello());
    let servers = cast.servers.clone();
    let made = thread.call(move |transport| {
        let mut directory = Directory::direct(plan, own, transport);
        let mut nearer = |server: u32, shard: u32, place: Place<_>| match place {
            Place::There(far) => {
                let target = copy_target(ShardId(shard));
                Place::There(directory.remote_at(Role::Server, server, target).unwrap_or(far))
            }
            here @ Place::Here(_) => here,
        };
        let mut servers = servers;
        for (server, copies) in (0u32..).zip(&mut servers) {
            for (shard, place) in (0u32..).zip(copies) {
                *place = nearer(server, shard, place.clone());
            }
        }
        servers
    });
    Ok(made.await?.unwrap_or_else(|| cast.servers.clone()))
}

/// Lets a copy's thread answer those who call for it alone.
pub(super) async fn take_callers(
    router: &Router,
    cast: &Cast,
    thread: &Thread,
    copy: ShardCopy,
) -> Result<(), NodeError> {
    let (server, shard) = (copy.server.0 as usize, copy.shard.0 as usize);
    let place = cast.servers.get(server).and_then(|copies| copies.get(shard));
    let (Some(Place::Here(address)), Thread::Other(..)) = (place, thread) else { return Ok(()) };
    let (target, address) = (copy_target(copy.shard), address.clone());
    let callers = router.hand_over(target);
    let serves = thread.call(move |_| {
        let router = Router::new();
        route_copy(&router, target, &address);
        spawn_local(router.serve_moved(callers));
    });
    serves.await.map(|_| ())
}

pub(super) fn route_copy(router: &Router, target: Target, copy: &Addr<ParameterServer>) {
    router.route(target, copy.clone().recipient::<messages::PushGradient>());
    router.route(target, copy.clone().recipient::<messages::PullParameters>());
    router.route(target, copy.clone().recipient::<messages::CombineNorm>());
    router.route(target, copy.clone().recipient::<messages::RestoreShard>());
    router.route(target, copy.clone().recipient::<messages::AdoptView>());
    router.route(target, copy.clone().recipient::<messages::Replicate>());
    router.route(target, copy.clone().recipient::<messages::FillShard>());
}
