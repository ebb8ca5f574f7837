//! A part of a task that has its turn when it was woken itself, not whenever the task is.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Polls a future when its own waker was called. Beside others in one `select!` it costs nothing while they
/// are busy: a timer of seconds would otherwise be asked with each frame.
#[derive(Debug)]
pub(crate) struct WhenWoken<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
    /// Of the task, as the bell has it.
    task: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    has_rung: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl<F: Future> WhenWoken<F> {
    pub(crate) fn new(future: F) -> Self {
        // Its first turn it has in any case.
        let bell = Arc::new(Bell { has_rung: AtomicBool::new(true), task: Mutex::new(None) });
        let waker = Arc::clone(&bell).into();
        Self { future, bell, waker, task: None }
    }
}

impl<F: Future + Unpin> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker, task } = &mut *self;
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *bell.task() = Some(cx.waker().clone());
            *task = Some(cx.waker().clone());
        }
        // A ring that this overlooks wakes the task again.
        if !bell.has_rung.load(Ordering::Relaxed) || !bell.has_rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

impl Bell {
    fn task(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn};
    use std::time::Duration;

    use tokio::select;
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_not_woken_has_no_turn_and_what_was_has_one() {
        let (turns, (sender, mut busy)) = (Cell::new(0), mpsc::channel(1));
        let mut timer = Box::pin(sleep(Duration::from_secs(30)));
        let mut quiet = WhenWoken::new(poll_fn(|cx| {
            turns.set(turns.get() + 1);
            timer.as_mut().poll(cx)
        }));
        for _ in 0..10 {
            sender.send(()).await.unwrap();
            select! { biased;
                () = &mut quiet => panic!("too early"),
                _ = busy.recv() => {}
            }
        }
        assert_eq!(turns.get(), 1);
        quiet.await;
        assert_eq!(turns.get(), 2);
    }

    #[tokio::test]
    async fn it_wakes_the_task_that_it_has_moved_to() {
        let (sender, mut receiver) = mpsc::channel::<u32>(1);
        let mut waiting = WhenWoken::new(Box::pin(async move { receiver.recv().await }));
        select! { biased;
            _ = &mut waiting => panic!("nothing was sent"),
            () = async {} => {}
        }
        let moved = tokio::spawn(waiting);
        tokio::task::yield_now().await;
        sender.send(7).await.unwrap();
        assert_eq!(moved.await.unwrap(), Some(7));
        select! { biased;
            () = WhenWoken::new(Box::pin(pending::<()>())) => panic!("never"),
            () = async {} => {}
        }
    }
}
