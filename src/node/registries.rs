//! The registries of a cluster, as whoever asks them sees them: one.

use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Recipient};
use gradmesh_actors::messages::{
    DeleteVersion, EditRegistry, FetchModel, FindModel, FindRoute, ListModels, PublishModel,
    ReadRecords, RemoveAlias, SetAlias, SetRoute, TryAnother, WireMessage,
};

use super::directory::{Directory, Plan};
use super::hello;
use crate::config::{Config, Role};
use crate::peer::{AnyOf, Standing};
use crate::router::Router;
use crate::transport::Transport;
use crate::wire::{self, Target};

/// The longest wait for one registry to answer from memory, where there are others: a predictor
/// waits a second in all, so it hears of two that are silent and one that is not.
const FIND_LIMIT: Duration = Duration::from_millis(300);
/// The same for a change without tensors, which is two small writes of a disk. A node that is gone
/// or stopped is noticed by its link long before.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// The same for a model that is published: half of what a coordinator waits, so that another one is
/// asked in time.
const PUBLISH_LIMIT: Duration = Duration::from_secs(30);
/// The same for a model that is fetched: half of what a predictor waits.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// Where registries answer: one of them, or any of several.
#[derive(Clone, Debug)]
pub struct RegistryLinks {
    pub publish: Recipient<PublishModel>,
    pub find: Recipient<FindModel>,
    pub fetch: Recipient<FetchModel>,
    pub list: Recipient<ListModels>,
    pub set_alias: Recipient<SetAlias>,
    pub remove_alias: Recipient<RemoveAlias>,
    pub delete: Recipient<DeleteVersion>,
    pub set_route: Recipient<SetRoute>,
    pub find_route: Recipient<FindRoute>,
    pub edit: Recipient<EditRegistry>,
    pub records: Recipient<ReadRecords>,
}

impl RegistryLinks {
    /// The registries of `[[nodes]]`, for a program that is none of them; `None` where there are
    /// no nodes.
    pub fn of_cluster(config: &Config, own: &str, transport: Rc<dyn Transport>) -> Option<Self> {
        let plan = Plan::new(config, None);
        let mut directory = Directory::new(plan.clone(), hello(config, own.to_owned()), transport);
        Self::connect::<crate::peer::Proxy>(&plan, &mut directory, None, 0)
    }

    /// All registries of a plan, the one of this node among them first. `start`: whom this node
    /// asks first where it has none, so that not all ask the same one.
    pub(super) fn connect<A: Registry>(
        plan: &Plan,
        directory: &mut Directory,
        home: Option<(u32, &Addr<A>)>,
        start: usize,
    ) -> Option<Self> {
        let names = plan.names(Role::Registry);
        let mut all = Vec::new();
        for index in (0u32..).take(names.len().max(1)) {
            all.push(match home {
                Some((own, address)) if own == index => Self::at(address),
                _ => Self::at(&directory.remote(Role::Registry, target(index))?),
            });
        }
        if all.len() == 1 {
            return all.pop();
        }
        let home = home.and_then(|(own, _)| usize::try_from(own).ok());
        Some(Self::any_of(&all, Standing::new(names, home, start)))
    }

    /// One mailbox.
    fn at<A: Registry>(address: &Addr<A>) -> Self {
        Self {
            publish: address.clone().recipient(),
            find: address.clone().recipient(),
            fetch: address.clone().recipient(),
            list: address.clone().recipient(),
            set_alias: address.clone().recipient(),
            remove_alias: address.clone().recipient(),
            delete: address.clone().recipient(),
            set_route: address.clone().recipient(),
            find_route: address.clone().recipient(),
            edit: address.clone().recipient(),
            records: address.clone().recipient(),
        }
    }

    fn any_of(all: &[Self], standing: Standing) -> Self {
        fn front<M>(
            all: &[RegistryLinks],
            standing: &Standing,
            limit: Duration,
            of: impl Fn(&RegistryLinks) -> &Recipient<M>,
        ) -> Recipient<M>
        where
            M: WireMessage + Clone,
            M::Result: Send,
            M::Refusal: TryAnother,
        {
            AnyOf::start(all.iter().map(|one| of(one).clone()).collect(), standing.clone(), limit)
        }
        Self {
            publish: front(all, &standing, PUBLISH_LIMIT, |one| &one.publish),
            find: front(all, &standing, FIND_LIMIT, |one| &one.find),
            fetch: front(all, &standing, FETCH_LIMIT, |one| &one.fetch),
            list: front(all, &standing, FIND_LIMIT, |one| &one.list),
            set_alias: front(all, &standing, CHANGE_LIMIT, |one| &one.set_alias),
            remove_alias: front(all, &standing, CHANGE_LIMIT, |one| &one.remove_alias),
            delete: front(all, &standing, CHANGE_LIMIT, |one| &one.delete),
            set_route: front(all, &standing, CHANGE_LIMIT, |one| &one.set_route),
            find_route: front(all, &standing, FIND_LIMIT, |one| &one.find_route),
            edit: front(all, &standing, CHANGE_LIMIT, |one| &one.edit),
            records: front(all, &standing, FIND_LIMIT, |one| &one.records),
        }
    }

    /// Lets other nodes ask the registry of this one.
    pub(super) fn route<A: Registry>(router: &Router, index: u32, registry: &Addr<A>) {
        let (target, here) = (target(index), Self::at(registry));
        router.route(target, here.publish);
        router.route(target, here.find);
        router.route(target, here.fetch);
        router.route(target, here.list);
        router.route(target, here.set_alias);
        router.route(target, here.remove_alias);
        router.route(target, here.delete);
        router.route(target, here.set_route);
        router.route(target, here.find_route);
        router.route(target, here.edit);
        router.route(target, here.records);
    }
}

/// An actor that answers all that a registry is asked.
pub(super) trait Registry:
    Actor<Context = Context<Self>>
    + Handler<PublishModel>
    + Handler<FindModel>
    + Handler<FetchModel>
    + Handler<ListModels>
    + Handler<SetAlias>
    + Handler<RemoveAlias>
    + Handler<DeleteVersion>
    + Handler<SetRoute>
    + Handler<FindRoute>
    + Handler<EditRegistry>
    + Handler<ReadRecords>
{
}

impl<A> Registry for A where
    A: Actor<Context = Context<Self>>
        + Handler<PublishModel>
        + Handler<FindModel>
        + Handler<FetchModel>
        + Handler<ListModels>
        + Handler<SetAlias>
        + Handler<RemoveAlias>
        + Handler<DeleteVersion>
        + Handler<SetRoute>
        + Handler<FindRoute>
        + Handler<EditRegistry>
        + Handler<ReadRecords>
        + Handler<EditRegistry>
        + Handler<ReadRecords>
{
}

fn target(index: u32) -> Target {
    Target::new(wire::Role::Registry, index)
}
