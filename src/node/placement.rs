//! Where actors run: the one place that knows of threads.

use actix::{Actor, Addr, Context, Supervised};
use actix_rt::ArbiterHandle;
use gradmesh_actors::ids::Incarnation;
use tokio::sync::oneshot;

use super::NodeError;
use crate::supervisor::{Prepared, RestartPolicy, Vitals};

/// An actor that has an address and doesn't run yet.
pub(super) struct Placed<A: Actor<Context = Context<A>>> {
    pub(super) address: Addr<A>,
    start: oneshot::Sender<Start<A>>,
}

type Start<A> = Box<dyn FnOnce(Prepared<A>) + Send>;

/// How all actors of a node are supervised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supervision {
    pub(super) base: Incarnation,
    pub(super) policy: RestartPolicy,
}

/// Gives an actor a mailbox on `arbiter`.
pub(super) async fn place<A>(arbiter: &ArbiterHandle) -> Result<Placed<A>, NodeError>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let (address, placed) = oneshot::channel();
    let (start, started) = oneshot::channel::<Start<A>>();
    let spawned = arbiter.spawn_fn(move || {
        let prepared = Prepared::new();
        if address.send(prepared.address()).is_err() {
            return;
        }
        actix_rt::spawn(async move {
            if let Ok(start) = started.await {
                start(prepared);
            }
        });
    });
    if !spawned {
        return Err(NodeError::Arbiter);
    }
    let address = placed.await.map_err(|_| NodeError::Arbiter)?;
    Ok(Placed { address, start })
}

impl<A> Placed<A>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    /// Runs the actor that `factory` makes, and another one whenever it fails.
    pub(super) async fn run(
        self,
        name: String,
        supervision: Supervision,
        factory: impl Fn() -> A + Send + 'static,
    ) -> Result<Vitals, NodeError> {
        let (vitals, running) = oneshot::channel();
        let start: Start<A> = Box::new(move |prepared| {
            let Supervision { base, policy } = supervision;
            // Nobody waits for it only where the node was dropped meanwhile.
            let _ = vitals.send(prepared.supervise(name, base, policy, move |_| factory()));
        });
        self.start.send(start).map_err(|_| NodeError::Arbiter)?;
        running.await.map_err(|_| NodeError::Arbiter)
    }
}
