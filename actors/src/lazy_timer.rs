//! A timer for one limit after another, most of which are never reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::clock;

/// Entering a timer into tokio's wheel and taking it out again for each request costs more than to send a short
/// one. This one stays where it is as long as later deadlines follow, and is set to the last of them when it
/// goes off.
///
/// For one task at a time: it wakes whoever asked last.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer(Option<Pin<Box<Sleep>>>);

impl LazyTimer {
    /// Ready when it is `deadline` or later.
    pub(crate) fn poll_until(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn until(timer: &mut LazyTimer, deadline: Instant) -> Duration {
        poll_fn(|cx| timer.poll_until(deadline, cx)).await;
        deadline.elapsed()
    }

    /// Of a wait that is over before its deadline.
    async fn not_until(timer: &mut LazyTimer, deadline: Instant, given_up_after: Duration) {
        assert!(timeout(given_up_after, until(timer, deadline)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn each_deadline_is_met_whichever_came_before() {
        let (mut timer, s) = (LazyTimer::default(), Duration::from_secs);
        let late = Duration::from_millis(1);
        for pass in 0..3 {
            let now = Instant::now();
            not_until(&mut timer, now + s(5), s(1)).await;
            not_until(&mut timer, now + s(6), s(1)).await;
            assert!(until(&mut timer, now + s(7)).await <= late, "a later one, pass {pass}");
            let now = Instant::now();
            not_until(&mut timer, now + s(60), s(1)).await;
            assert!(until(&mut timer, now + s(3)).await <= late, "an earlier one, pass {pass}");
            // It has gone off, and was asked by nobody since.
            tokio::time::sleep(s(100)).await;
        }
        let over = Instant::now() - s(1);
        assert!(until(&mut timer, over).await >= s(1), "one that is over");
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_once_for_many_deadlines_that_are_not_reached() {
        let (mut timer, s) = (LazyTimer::default(), Duration::from_secs);
        let first = Instant::now() + s(5);
        for _ in 0..40 {
            not_until(&mut timer, Instant::now() + s(5), Duration::from_millis(100)).await;
            assert_eq!(timer.0.as_ref().map(|sleep| sleep.deadline()), Some(first));
        }
    }
}
