//! A loopback proxy between two real processes that does to their frames what a plan says.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use super::fault::{ANY, FaultKind};
use super::frame_counts::SharedFrameCounts;
use super::network::LATE_BITS;
use crate::wire::{Begins, begins};

/// Frames between a reader and a slow writer, and those that are being overtaken: as many as a
/// connection has under way.
const FRAMES_MAX: usize = 256;
const READ_BYTES: usize = 64 << 10;
/// After a call that the system did not give, such as for want of file descriptors.
const CALL_AGAIN: Duration = Duration::from_millis(20);

/// One node's way to another one: whoever calls `listener` reaches `to_address`, through the
/// faults that are active. It works until the runtime ends.
#[derive(Debug)]
pub struct FaultyLink {
    /// Names of the nodes, as a plan has them.
    pub from: String,
    pub to: String,
    pub to_address: SocketAddr,
    /// What is active now. A loss of power blocks all ways of its node.
    pub faults: watch::Receiver<Vec<FaultKind>>,
    pub counts: SharedFrameCounts,
    pub seed: u64,
}

impl FaultyLink {
    /// Takes calls, on the current `LocalSet`.
    pub fn serve(self, listener: TcpListener) {
        spawn_local(async move {
            let mut calls = 0;
            loop {
                let Ok((caller, _)) = listener.accept().await else {
                    sleep(CALL_AGAIN).await;
                    continue;
                };
                calls += 1;
                let there = self.way(&self.from, &self.to, calls);
                let back = self.way(&self.to, &self.from, calls);
                spawn_local(connect(caller, self.to_address, there, back));
            }
        });
    }

    fn way(&self, from: &str, to: &str, call: u64) -> Way {
        Way {
            gate: Gate { from: from.to_owned(), to: to.to_owned(), faults: self.faults.clone() },
            counts: self.counts.clone(),
            rng: ChaCha8Rng::seed_from_u64(self.seed ^ call),
            overtaken: Rc::default(),
        }
    }
}

/// A call through a block is not answered until the block is over.
async fn connect(caller: TcpStream, to: SocketAddr, mut there: Way, mut back: Way) {
    if !(there.gate.open().await && back.gate.open().await) {
        return;
    }
    let Ok(callee) = TcpStream::connect(to).await else { return };
    if caller.set_nodelay(true).and_then(|()| callee.set_nodelay(true)).is_err() {
        return;
    }
    let (from_caller, to_caller) = caller.into_split();
    let (from_callee, to_callee) = callee.into_split();
    spawn_local(there.carry(from_caller, to_callee));
    spawn_local(back.carry(from_callee, to_caller));
}

/// Lets through what no fault blocks.
#[derive(Clone)]
struct Gate {
    from: String,
    to: String,
    faults: watch::Receiver<Vec<FaultKind>>,
}

impl Gate {
    fn is_open(&self) -> bool {
        !self.faults.borrow().iter().any(|fault| blocks(fault, &self.from, &self.to))
    }

    /// Waits until it is open; whether it ever will be.
    async fn open(&mut self) -> bool {
        let Self { from, to, faults } = self;
        faults.wait_for(|active| !active.iter().any(|fault| blocks(fault, from, to))).await.is_ok()
    }
}

fn blocks(fault: &FaultKind, from: &str, to: &str) -> bool {
    match fault {
        FaultKind::Block { .. } => is_between(fault, from, to),
        FaultKind::PowerLoss { node } => node == ANY || node == from || node == to,
        _ => false,
    }
}

/// One direction of one connection.
struct Way {
    gate: Gate,
    counts: SharedFrameCounts,
    rng: ChaCha8Rng,
    /// As many as there are frames on their way that are being overtaken, and one.
    overtaken: Rc<()>,
}

type Late = (Instant, Vec<u8>);
type Ended = mpsc::error::SendError<Late>;

impl Way {
    async fn carry(
        mut self,
        mut reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Unpin + 'static,
    ) {
        let (late, waiting) = mpsc::channel::<Late>(FRAMES_MAX);
        spawn_local(write(writer, waiting, self.gate.clone(), self.counts.clone()));
        let (mut read, mut more) = (Vec::new(), vec![0; READ_BYTES]);
        loop {
            let count = match reader.read(&mut more).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            read.extend_from_slice(&more[..count]);
            while let Some(frame) = first_frame(&mut read) {
                if self.pass(frame, &late).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn pass(&mut self, frame: Vec<u8>, late: &mpsc::Sender<Late>) -> Result<(), Ended> {
        let (mut delay, mut rates) = (0u64, [0u64; 3]);
        for fault in self.gate.faults.borrow().iter() {
            if !is_between(fault, &self.gate.from, &self.gate.to) {
                continue;
            }
            match fault {
                FaultKind::Delay { ms, .. } => delay = delay.saturating_add(*ms),
                FaultKind::Drop { rate, .. } => rates[0] += u64::from(*rate),
                FaultKind::Duplicate { rate, .. } => rates[1] += u64::from(*rate),
                FaultKind::Reorder { rate, .. } => rates[2] += u64::from(*rate),
                _ => {}
            }
        }
        let [lost, twice, overtaken] = rates.map(|rate| self.rng.next_u64() % 1000 < rate);
        self.counts.add(|counts| &mut counts.frames);
        if lost {
            self.counts.add(|counts| &mut counts.lost);
            return Ok(());
        }
        if delay > 0 {
            self.counts.add(|counts| &mut counts.late);
        }
        let at = later(Instant::now(), delay);
        if twice {
            self.counts.add(|counts| &mut counts.doubled);
            self.overtake(at, frame.clone(), late);
        }
        if overtaken && Rc::strong_count(&self.overtaken) <= FRAMES_MAX {
            self.counts.add(|counts| &mut counts.overtaken);
            self.overtake(at, frame, late);
            return Ok(());
        }
        late.send((at, frame)).await
    }

    /// By so much as in a simulation, also where nothing follows.
    fn overtake(&mut self, at: Instant, frame: Vec<u8>, late: &mpsc::Sender<Late>) {
        let most = 1 << (1 + self.rng.next_u64() % LATE_BITS);
        let at = later(at, 1 + self.rng.next_u64() % most);
        // It does not keep the connection open.
        let (late, under_way) = (late.downgrade(), Rc::clone(&self.overtaken));
        spawn_local(async move {
            sleep_until(at).await;
            if let Some(late) = late.upgrade() {
                // The connection may be over.
                let _ = late.send((at, frame)).await;
            }
            drop(under_way);
        });
    }
}

/// A time beyond all clocks is one that no run comes to see.
fn later(at: Instant, ms: u64) -> Instant {
    const FAR: Duration = Duration::from_secs(366 * 24 * 3600);
    at + Duration::from_millis(ms).min(FAR)
}

/// Takes the first whole frame; bytes that are none go as they are.
fn first_frame(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = match begins(read) {
        Begins::Frame { bytes, .. } if read.len() >= bytes => bytes,
        Begins::Frame { .. } | Begins::Unknown => return None,
        Begins::NoFrame => read.len(),
    };
    Some(read.drain(..length).collect())
}

/// Nothing passes a block, not even the end of the connection.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut waiting: mpsc::Receiver<Late>,
    mut gate: Gate,
    counts: SharedFrameCounts,
) -> io::Result<()> {
    while let Some((at, frame)) = waiting.recv().await {
        sleep_until(at).await;
        if !gate.is_open() {
            counts.add(|counts| &mut counts.held);
        }
        if !gate.open().await {
            return Ok(());
        }
        writer.write_all(&frame).await?;
    }
    if gate.open().await { writer.shutdown().await } else { Ok(()) }
}

/// Whether a fault of the network is one of this direction.
pub(super) fn is_between(fault: &FaultKind, sender: &str, receiver: &str) -> bool {
    let (FaultKind::Block { from, to }
    | FaultKind::Delay { from, to, .. }
    | FaultKind::Drop { from, to, .. }
    | FaultKind::Duplicate { from, to, .. }
    | FaultKind::Reorder { from, to, .. }) = fault
    else {
        return false;
    };
    let is = |name: &str, node: &str| name == ANY || name == node;
    is(from, sender) && is(to, receiver)
}
