//! Other nodes whose instances may run what this node has no idle one for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Recipient;
use tokio::time::Instant;

use crate::messages::{LendError, LendRun, Lent, Predict, PredictError, Prediction, Ran, ask};
use crate::serving::ServedModel;

/// A node that was silent or gone is asked again after so long, one that was occupied after a run and at least
/// a few milliseconds.
const AWAY: Duration = Duration::from_secs(1);
const OCCUPIED: Duration = Duration::from_millis(5);

/// Bytes of inputs that are handed over at once: a quarter of what a frame holds.
const BYTES_MAX: usize = 64 << 20;

/// So many times as long as a run is expected to take, and a moment, its answer is waited for: then it is run
/// here, and whichever node hangs is left alone.
const PATIENCE: u32 = 8;
const MOMENT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(10);

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
    /// It is not asked before.
    rests: Mutex<Option<Instant>>,
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
        let peer = |lend| Peer { lend, under_way: AtomicUsize::new(0), rests: Mutex::new(None) };
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
        let awake = (0..count).map(|at| (turn + at) % count).filter(|&index| {
            let rests = self.all[index].rests.lock().unwrap_or_else(PoisonError::into_inner);
            rests.is_none_or(|until| until <= now)
        });
        let index = awake.min_by_key(|&index| self.all[index].under_way.load(Ordering::Relaxed))?;
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
        let wait = expected.saturating_mul(PATIENCE).saturating_add(MOMENT).min(WAIT_MAX);
        let rest = match ask(&peer.lend, run, wait).await {
            Ok(Lent { answers, took })
                if answers.len() == requests.len() && !has_died(&answers) =>
            {
                self.peers.lent.fetch_add(1, Ordering::Relaxed);
                return Some(Ran { answers, took });
            }
            Err(LendError::Occupied) => expected.max(OCCUPIED),
            Ok(_) | Err(LendError::NotThere { .. } | LendError::Link(_)) => AWAY,
        };
        let mut rests = peer.rests.lock().unwrap_or_else(PoisonError::into_inner);
        *rests = Some(Instant::now() + rest);
        None
    }
}
