//! Starts what answers requests on this node.

use actix::{Actor, Addr, Recipient};
use gradmesh_actors::follower::{Follower, FollowerParts};
use gradmesh_actors::in_memory::{Followed, Models};
use gradmesh_actors::log_seen::LogFeed;
use gradmesh_actors::messages::FindModel;
use gradmesh_actors::offer::Offer;
use gradmesh_actors::peers::Peers;
use gradmesh_actors::predictor::{Predictor, PredictorParts};
use gradmesh_actors::runner::Runner;
use gradmesh_actors::runners::{RunnerLink, Runners};
use tokio::sync::watch;

use super::super::directory::{Directory, Plan};
use super::super::placement::{Placed, Supervision, Thread, Threads, place};
use super::super::registries::RegistryLinks;
use super::super::{NodeBuilder, NodeError, Serving, base, own_roles};
use super::Cast;
use crate::config::{Follow, Role};
use crate::metrics::Metrics;
use crate::service::PredictorFactory;
use crate::store::CheckpointStore;
use crate::wire::{self, Target};

/// Starts the predictor, and what it needs.
pub(super) async fn serving(
    builder: &NodeBuilder,
    cast: &Cast,
    threads: &mut Threads,
    metrics: Metrics,
    supervision: Supervision,
    log: Option<LogFeed>,
    peers: Peers,
) -> Result<Serving, NodeError> {
    let RegistryLinks { find, fetch, list, set_alias, remove_alias, delete, edit, records, .. } =
        cast.registry.clone();
    let config = &builder.config.service;
    // Outlive each predictor: what was unloaded stays unloaded when one fails.
    let (offers, offer) = watch::channel(Offer::default());
    let mut parts = PredictorParts::new(builder.kinds.clone(), offers, find.clone(), fetch.clone());
    parts.log = log;
    parts.peers = peers;
    parts.models = Models::new(config.memory());
    parts.batching = config.batching();
    parts.runners = runners(config.instances, threads, supervision).await?;
    parts.find_route = Some(cast.registry.find_route.clone());
    let serves = builder.serve
        && own_roles(&builder.config, builder.name.as_deref())?.contains(&Role::Service);
    if serves && config.follow == Follow::Job {
        let runners = parts.runners.clone();
        parts.followed = Some(follow(builder, &find, runners, &threads.own(), supervision).await?);
    }
    let followed = parts.followed.clone();
    metrics.watch_models(parts.models.clone(), parts.shadows.clone(), parts.peers.clone());
    let placed: Placed<Predictor> = place(&threads.own()).await?;
    let predictor = placed.address.clone();
    let own = parts.clone();
    placed.run("predictor".into(), supervision, move || Predictor::new(own.clone())).await?;
    Ok(Serving {
        predict: predictor.clone().recipient(),
        predictors: PredictorFactory::new(move || {
            Predictor::new(parts.clone()).start().recipient()
        }),
        lend: predictor.clone().recipient(),
        load: predictor.clone().recipient(),
        unload: predictor.recipient(),
        offer,
        find,
        fetch,
        list,
        set_alias,
        remove_alias,
        delete,
        edit,
        records,
        followed,
        status: if builder.train { cast.all_coordinators() } else { Vec::new() },
        cluster: builder.config.cluster.name.clone(),
        metrics,
    })
}

/// None where the node has no threads but its own.
async fn runners(
    count: usize,
    threads: &mut Threads,
    supervision: Supervision,
) -> Result<Runners, NodeError> {
    let mut runners = Vec::new();
    for index in 0..count {
        let thread @ Thread::Other(..) = threads.own() else { break };
        let placed: Placed<Runner> = place(&thread).await?;
        let (run, build) = (placed.address.clone().recipient(), placed.address.clone().recipient());
        runners.push(RunnerLink { run, build });
        placed.run(format!("runner {index}"), supervision, Runner::default).await?;
    }
    Ok(Runners::new(runners))
}

/// The predictors of the other nodes that serve, where this one does.
pub(super) fn peers(
    builder: &NodeBuilder,
    plan: &Plan,
    directory: &mut Directory,
) -> Result<Peers, NodeError> {
    let roles = own_roles(&builder.config, builder.name.as_deref())?;
    if !builder.serve || builder.name.is_none() || !roles.contains(&Role::Service) {
        return Ok(Peers::default());
    }
    let own = plan.own_index(Role::Service);
    let others = (0u32..).zip(plan.names(Role::Service)).filter(|(index, _)| Some(*index) != own);
    let others = others.filter_map(|(index, _)| {
        let target = Target::new(wire::Role::Predictor, index);
        directory.remote_at(Role::Service, index, target).map(Addr::recipient)
    });
    Ok(Peers::new(others.collect()))
}

/// Follows the training of this cluster, which may run here or not. It and its store have a thread of their
/// own: reading a large checkpoint takes a while.
async fn follow(
    builder: &NodeBuilder,
    find: &Recipient<FindModel>,
    runners: Runners,
    thread: &Thread,
    supervision: Supervision,
) -> Result<Followed, NodeError> {
    let config = &builder.config;
    let checkpoint = config.checkpoint.clone();
    let store = builder.context.open_store(&checkpoint.store, &base(config));
    let store = store.map_err(NodeError::store("checkpoint.store"))?;
    let placed: Placed<CheckpointStore> = place(thread).await?;
    let checkpoints = placed.address.clone();
    let new =
        move || CheckpointStore::new(store.clone(), checkpoint.store.clone(), checkpoint.keep);
    placed.run("followed checkpoints".into(), supervision, new).await?;
    // Outlives each follower, as the offer outlives each predictor.
    let (followed, feed) = watch::channel(None);
    let parts = FollowerParts {
        find_checkpoint: checkpoints.clone().recipient(),
        load_state: checkpoints.recipient(),
        find: find.clone(),
        model: config.job.model.name.clone(),
        job_digest: config.job.digest(),
        kinds: builder.kinds.clone(),
        runners,
        bytes_max: config.service.memory(),
        started: builder.context.unix_time(),
        followed,
    };
    let placed: Placed<Follower> = place(thread).await?;
    placed.run("follower".into(), supervision, move || Follower::new(parts.clone())).await?;
    Ok(feed)
}
