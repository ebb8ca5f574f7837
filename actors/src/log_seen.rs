//! How far a registry has read its log, for predictors of the same process: where nothing was
//! appended, no name means anything else than it did.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// An older look says nothing any more: ten turns of following the log were missed, so this process
/// was stopped and others were not, or the store can't be read.
pub const SEEN_MAX: Duration = Duration::from_secs(1);

/// What the last look at the log has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSeen {
    pub entries: u64,
    /// When the look began.
    pub at: Instant,
}

/// `None` until the log was read.
pub type LogFeed = watch::Receiver<Option<LogSeen>>;

/// How many entries there are, if that was seen lately.
pub(crate) fn entries(feed: &LogFeed) -> Option<u64> {
    let seen = (*feed.borrow())?;
    (seen.at.elapsed() <= SEEN_MAX).then_some(seen.entries)
}
