//! Other nodes whose instances may run what this node has no idle one for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::Recipient;
use tokio::time::Instant;

use crate::messages::{LendError, LendRun, Lent, Predict, PredictError, Prediction, Ran, ask};
use crate::serving::ServedModel;

/// A node that was silent or gone, or had not loaded the version, is asked again after so long, and each time
/// after twice as long, up to a minute.
const AWAY: Duration = Duration::from_secs(1);
const AWAY_MAX: Duration = Duration::from_secs(60);
/// One that was occupied is asked again after a run, and at least so long.
const OCCUPIED: Duration = Duration::from_millis(5);

/// Runs that one node does for this one at a time, once it has shown that it can: each success allows one
/// more, and what does not succeed begins with one again. So much leaves the queues at most.
const UNDER_WAY_MAX: usize = 16;

/// Bytes of inputs that are handed over at once: a quarter of what a frame holds.
const BYTES_MAX: usize = 64 << 20;

/// So many times as long as a run is expected to take, and a moment, its answer is waited for: then it is run
/// here, and whichever node hangs is left alone.
const PATIENCE: u32 = 8;
const MOMENT: Duration = Duration::from_millis(500);

/// The other nodes with the role of a service. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    all: Arc<[Peer]>,
    /// Where to look first among equals.
    turn: Arc<AtomicUsize>,
    lent: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Peer {
    lend: Recipient<LendRun>,
    /// Runs of this node that are under way there.
    under_way: AtomicUsize,
    standing: Mutex<Standing>,
}

/// What a node is good for.
#[derive(Clone, Copy, Debug)]
struct Standing {
    /// Runs at a time.
    allowed: usize,
    /// It is not asked before.
    rests: Option<Instant>,
    /// How long it rests next.
    away: Duration,
}

impl Default for Standing {
    fn default() -> Self {
        Self { allowed: 1, rests: None, away: AWAY }
    }
}

impl Peer {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing panics in the middle of a change.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self) {
        let mut standing = self.standing();
        let allowed = (standing.allowed + 1).min(UNDER_WAY_MAX);
        *standing = Standing { allowed, ..Standing::default() };
    }

    fn occupied(&self, expected: Duration) {
        let mut standing = self.standing();
        standing.allowed = 1;
        standing.rests = Some(Instant::now() + expected.max(OCCUPIED));
    }

    fn away(&self) {
        let mut standing = self.standing();
        let away = standing.away.saturating_mul(2).min(AWAY_MAX);
        *standing = Standing { allowed: 1, rests: Some(Instant::now() + standing.away), away };
    }
}

/// A run that is handed to one of them. It counts as under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed {
    peers: Peers,
    index: usize,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.peers.all[self.index].under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    pub fn new(all: Vec<Recipient<LendRun>>) -> Self {
        let peer = |lend| Peer { lend, under_way: AtomicUsize::new(0), standing: Mutex::default() };
        Self { all: all.into_iter().map(peer).collect(), ..Self::default() }
    }

    /// Runs that others have done for this node.
    pub fn lent(&self) -> u64 {
        self.lent.load(Ordering::Relaxed)
    }

    /// The one that has least to do for this node, of those that may have an idle instance.
    pub(crate) fn try_borrow(&self) -> Option<Borrowed> {
        let (count, now) = (self.all.len(), Instant::now());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let under_way = |index: usize| self.all[index].under_way.load(Ordering::Relaxed);
        let may = (0..count).map(|at| (turn.wrapping_add(at)) % count).filter(|&index| {
            let Standing { allowed, rests, .. } = *self.all[index].standing();
            under_way(index) < allowed && rests.is_none_or(|until| until <= now)
        });
        let index = may.min_by_key(|&index| under_way(index))?;
        self.all[index].under_way.fetch_add(1, Ordering::Relaxed);
        Some(Borrowed { peers: self.clone(), index })
    }
}

/// Whether the instance ended in the middle of the run.
fn has_died(answers: &[Result<Prediction, PredictError>]) -> bool {
    answers.iter().any(|answer| matches!(answer, Err(PredictError::Link(_))))
}

impl Borrowed {
    /// The answers in the order of the requests; `None` where nothing was run there.
    pub(crate) async fn run(self, served: &ServedModel, requests: &[Predict]) -> Option<Ran> {
        let rows = requests.iter().map(Predict::rows).sum();
        let expected = served.expected(rows).unwrap_or_default();
        if requests.iter().map(Predict::bytes).sum::<usize>() > BYTES_MAX {
            return None;
        }
        let run = LendRun {
            model: served.model().to_owned(),
            version: served.version(),
            digest: served.digest().to_owned(),
            requests: requests.to_vec(),
        };
        let peer = &self.peers.all[self.index];
        // Whoever asks has half of their time left for a run here.
        let half = requests.iter().map(|one| one.limit / 2).min().unwrap_or_default();
        let wait = expected.saturating_mul(PATIENCE).saturating_add(MOMENT).min(half);
        match ask(&peer.lend, run, wait).await {
            Ok(Lent { answers, took })
                if answers.len() == requests.len() && !has_died(&answers) =>
            {
                self.peers.lent.fetch_add(1, Ordering::Relaxed);
                peer.succeeded();
                return Some(Ran { answers, took });
            }
            Err(LendError::Occupied) => peer.occupied(expected),
            Ok(_) | Err(LendError::NotThere { .. } | LendError::Link(_)) => peer.away(),
        }
        None
    }
}
