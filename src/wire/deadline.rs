//! How long the rest of a frame may take.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::FrameError;

/// A frame that has begun is complete after this, at 9 MB/s for the longest: whoever is slower
/// holds a connection and memory for nothing.
pub const FRAME_TIME_MAX: Duration = Duration::from_secs(30);

/// `work`, or an error where it takes longer than [`FRAME_TIME_MAX`].
pub(super) async fn in_time<T>(
    work: impl Future<Output = Result<T, FrameError>>,
) -> Result<T, FrameError> {
    let mut work = pin!(work);
    // Most frames are there, or taken, as a whole: they need no timer.
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return done;
    }
    match timeout(FRAME_TIME_MAX, work).await {
        Ok(done) => done,
        Err(_) => Err(FrameError::TooSlow { limit_ms: FRAME_TIME_MAX.as_millis() as u64 }),
    }
}
