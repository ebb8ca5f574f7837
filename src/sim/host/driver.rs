//! The clock's side of the host.
//!
//! tokio's clock goes on when its runtime is about to wait. A host that was woken as any other future
//! costs such a wait twice: the first one after a wake lets time stand still. So the host has its turn
//! where the runtime says that it is about to wait, and nobody wakes it. While the runtime has tasks of its
//! own that are ready it doesn't wait: nodes spawn theirs on their `LocalSet`.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Poll, Waker};

use tokio::time::{Sleep, sleep_until};

use super::Host;
use crate::sim::report::Broken;

thread_local! {
    /// The host of this thread's simulation, while it runs.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

struct Running {
    host: Host,
    /// Of what is due next, and no timer of a node announces.
    timer: Pin<Box<Sleep>>,
    ended: Option<Ended>,
    /// Of whoever waits for the end.
    waker: Waker,
}

/// The run's result, or a panic of the simulator itself.
type Ended = Result<Option<Broken>, Box<dyn Any + Send>>;

/// Where the runtime has panicked too, nodes are dropped while it is still there.
struct Cleared;

impl Drop for Cleared {
    fn drop(&mut self) {
        RUNNING.take();
    }
}

/// Runs the host to its end, on a runtime that calls [`before_time_goes_on`] before it waits.
pub(super) async fn drive(host: Host) -> (Host, Option<Broken>) {
    let timer = Box::pin(sleep_until(host.started));
    let waker = Waker::noop().clone();
    RUNNING.set(Some(Running { host, timer, ended: None, waker }));
    let _cleared = Cleared;
    let ended = poll_fn(|cx| {
        RUNNING.with_borrow_mut(|running| match running {
            Some(Running { ended: None, waker, host, .. }) => {
                waker.clone_from(cx.waker());
                host.ready.host_waits(waker);
                Poll::Pending
            }
            _ => Poll::Ready(running.take()),
        })
    });
    match ended.await {
        Some(Running { host, ended: Some(Ok(broken)), .. }) => (host, broken),
        Some(Running { ended: Some(Err(panic)), .. }) => resume_unwind(panic),
        _ => unreachable!("the host was put there above, and ends by itself alone"),
    }
}

/// All nodes that were woken have their turns; then time goes on.
pub(super) fn before_time_goes_on() {
    RUNNING.with_borrow_mut(|running| {
        let Some(running) = running.as_mut().filter(|running| running.ended.is_none()) else {
            return;
        };
        let Running { host, timer, ended, waker } = running;
        match catch_unwind(AssertUnwindSafe(|| host.run_until_all_wait(timer.as_mut()))) {
            Ok(None) => return,
            Ok(Some(broken)) => *ended = Some(Ok(broken)),
            Err(panic) => *ended = Some(Err(panic)),
        }
        waker.wake_by_ref();
    });
}
