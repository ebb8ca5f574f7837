//! The time that actors give to their rules.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

thread_local! {
    static STANDS_AT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Now, by tokio's clock, which a simulation moves.
#[must_use]
pub fn now() -> Instant {
    STANDS_AT.get().unwrap_or_else(Instant::now)
}

/// The time since then.
#[must_use]
pub fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// When `limit` will be over, or never.
pub(crate) fn after(limit: Duration) -> Instant {
    /// About as far ahead as any platform's clock goes, and as tokio's own timeouts do.
    const NEVER: Duration = Duration::from_secs(86_400 * 365 * 30);
    let now = now();
    now.checked_add(limit).unwrap_or_else(|| now + NEVER)
}

/// While it is there this thread's clock stands still: a simulation moves it between the turns of its
/// nodes, and tokio's, which takes a lock, need not be asked in each of them.
#[derive(Debug)]
pub struct StandsStill(());

impl StandsStill {
    /// At the time that it is.
    #[must_use]
    pub fn begin() -> Self {
        STANDS_AT.set(Some(Instant::now()));
        Self(())
    }

    /// Tokio's clock was moved meanwhile: this one stands where that is now, if it stands.
    pub fn look_again() {
        STANDS_AT.set(STANDS_AT.get().map(|_| Instant::now()));
    }
}

impl Drop for StandsStill {
    fn drop(&mut self) {
        STANDS_AT.set(None);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_stands_still_as_long_as_somebody_wants_it_to() {
        let began = now();
        advance(Duration::from_secs(1)).await;
        assert_eq!(since(began), Duration::from_secs(1));
        let still = StandsStill::begin();
        advance(Duration::from_secs(1)).await;
        assert_eq!(since(began), Duration::from_secs(1));
        StandsStill::look_again();
        advance(Duration::from_secs(1)).await;
        assert_eq!(since(began), Duration::from_secs(2));
        drop(still);
        StandsStill::look_again();
        advance(Duration::from_secs(1)).await;
        assert_eq!(since(began), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_no_clock_has_is_far_ahead() {
        assert_eq!(after(Duration::from_secs(3)), now() + Duration::from_secs(3));
        assert!(after(Duration::MAX) > now() + Duration::from_secs(1 << 29));
    }
}
