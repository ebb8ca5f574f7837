//! A loopback proxy between two real processes that does to their frames what a plan says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};

use super::fault::{ANY, FaultKind};
use crate::wire::{Begins, begins};

/// Frames between a reader and a slow writer, as many as a connection has under way.
const FRAMES_MAX: usize = 256;
const READ_BYTES: usize = 64 << 10;

/// One node's way to another one: whoever calls `listener` reaches `to_address`, through the
/// faults that are active. It works until the runtime ends.
#[derive(Debug)]
pub struct FaultyLink {
    /// Names of the nodes, as a plan has them.
    pub from: String,
    pub to: String,
    pub to_address: SocketAddr,
    /// What is active now.
    pub faults: watch::Receiver<Vec<FaultKind>>,
    pub seed: u64,
}

impl FaultyLink {
    /// Takes calls, on the current `LocalSet`.
    pub fn serve(self, listener: TcpListener) {
        spawn_local(async move {
            let mut calls = 0;
            while let Ok((caller, _)) = listener.accept().await {
                calls += 1;
                let Ok(callee) = TcpStream::connect(self.to_address).await else { continue };
                if caller.set_nodelay(true).and_then(|()| callee.set_nodelay(true)).is_err() {
                    continue;
                }
                let (from_caller, to_caller) = caller.into_split();
                let (from_callee, to_callee) = callee.into_split();
                spawn_local(self.way(&self.from, &self.to, calls).carry(from_caller, to_callee));
                spawn_local(self.way(&self.to, &self.from, calls).carry(from_callee, to_caller));
            }
        });
    }

    fn way(&self, from: &str, to: &str, call: u64) -> Way {
        Way {
            from: from.to_owned(),
            to: to.to_owned(),
            faults: self.faults.clone(),
            rng: ChaCha8Rng::seed_from_u64(self.seed ^ call),
            overtaken: None,
        }
    }
}

/// One direction of one connection.
struct Way {
    from: String,
    to: String,
    faults: watch::Receiver<Vec<FaultKind>>,
    rng: ChaCha8Rng,
    /// A frame that waits until the one behind it has gone.
    overtaken: Option<Vec<u8>>,
}

type Late = (Instant, Vec<u8>);

impl Way {
    async fn carry(
        mut self,
        mut reader: impl AsyncRead + Unpin,
        writer: impl AsyncWrite + Unpin + 'static,
    ) {
        let (late, waiting) = mpsc::channel::<Late>(FRAMES_MAX);
        let faults = self.faults.clone();
        spawn_local(write(writer, waiting, self.from.clone(), self.to.clone(), faults));
        let mut read = Vec::new();
        loop {
            let mut more = [0; READ_BYTES];
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

    async fn pass(
        &mut self,
        frame: Vec<u8>,
        late: &mpsc::Sender<Late>,
    ) -> Result<(), mpsc::error::SendError<Late>> {
        let (mut delay, mut rates) = (0, [0u64; 3]);
        for fault in
            self.faults.borrow().iter().filter(|fault| is_between(fault, &self.from, &self.to))
        {
            match fault {
                FaultKind::Delay { ms, .. } => delay += ms,
                FaultKind::Drop { rate, .. } => rates[0] += u64::from(*rate),
                FaultKind::Duplicate { rate, .. } => rates[1] += u64::from(*rate),
                FaultKind::Reorder { rate, .. } => rates[2] += u64::from(*rate),
                _ => {}
            }
        }
        let [lost, twice, overtaken] = rates.map(|rate| self.rng.next_u64() % 1000 < rate);
        if lost {
            return Ok(());
        }
        let at = Instant::now() + Duration::from_millis(delay);
        if overtaken && self.overtaken.is_none() {
            self.overtaken = Some(frame);
            return Ok(());
        }
        if twice {
            late.send((at, frame.clone())).await?;
        }
        late.send((at, frame)).await?;
        match self.overtaken.take() {
            Some(overtaken) => late.send((at, overtaken)).await,
            None => Ok(()),
        }
    }
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
    from: String,
    to: String,
    mut faults: watch::Receiver<Vec<FaultKind>>,
) -> io::Result<()> {
    let mut open = async || {
        let blocks = |fault: &FaultKind| {
            matches!(fault, FaultKind::Block { .. }) && is_between(fault, &from, &to)
        };
        faults.wait_for(|active| !active.iter().any(blocks)).await.is_ok()
    };
    while let Some((at, frame)) = waiting.recv().await {
        sleep_until(at).await;
        if !open().await {
            return Ok(());
        }
        writer.write_all(&frame).await?;
    }
    if open().await { writer.shutdown().await } else { Ok(()) }
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
