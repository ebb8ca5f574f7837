//! One caller, from the handshake to its end.

use std::future::pending;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::refusals::Refusals;
use super::{Router, SILENCE_MAX};
use crate::peer::REQUESTS_MAX;
use crate::transport::Connection;
use crate::wire::{
    Class, Fault, Frame, FrameError, FrameReader, FrameWriter, Hello, Limits, Pulse, Target,
    shake_hands,
};

/// Answers that wait for the socket: a few, so that the rest waits in its actor's task and a
/// caller that doesn't read is held back.
const ANSWERS_WAITING_MAX: usize = 16;
/// Requests of one caller that actors work on: all that it waits for, and as many that it has
/// given up, because a timeout there ends nothing here.
const UNDER_WAY_MAX: usize = 2 * REQUESTS_MAX;

/// Serves one caller. Whatever it sends, only its own connection suffers.
pub(super) async fn serve(
    connection: Connection,
    own: &Hello,
    router: &Router,
    refusals: &Refusals,
) {
    let Connection { peer, reader, writer } = connection;
    let pulse = Pulse::new();
    let mut reader = FrameReader::new(reader, Limits::HELLO, pulse.clone());
    let mut writer = FrameWriter::new(writer, pulse.clone());
    let node = match shake_hands(&mut reader, &mut writer, own, None).await {
        Ok(hello) => hello.node,
        Err(error) => {
            if let Some(others) = refusals.count(Instant::now()) {
                warn!(%peer, %error, others, "caller refused");
            }
            return;
        }
    };
    debug!(%peer, node, "caller connected");

    let (answers, waiting) = mpsc::channel(ANSWERS_WAITING_MAX);
    let reading = async {
        read_requests(&mut reader, router, answers, peer, &node).await;
        // What was answered before still goes out; the writer then ends by itself.
        pending::<()>().await;
    };
    select! { biased;
        () = reading => {}
        written = write_answers(&mut writer, waiting) => match written {
            Ok(()) => debug!(%peer, node, "caller gone"),
            Err(error) => warn!(%peer, node, %error, "answers can't be sent"),
        },
        () = pulse.silent_for(SILENCE_MAX) => {
            warn!(%peer, node, limit_ms = SILENCE_MAX.as_millis() as u64, "caller is silent, closed");
        }
    }
}

/// Until the caller closes or is not understood. Answers still under way are then dropped.
async fn read_requests<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    router: &Router,
    answers: mpsc::Sender<Frame>,
    peer: SocketAddr,
    node: &str,
) {
    let mut under_way = JoinSet::new();
    loop {
        let (fault, kind, request, target) = match reader.read().await {
            Ok(None) => return,
            Ok(Some(frame)) if frame.class == Class::Ping => {
                if answers.send(Frame::bare(Class::Pong, frame.request)).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Some(frame)) => {
                let Frame { kind, request, target, .. } = frame;
                match start(frame, router, &mut under_way, &answers) {
                    Ok(()) => continue,
                    Err(fault) => (fault, kind, request, target),
                }
            }
            Err(error) => (Fault::Connection { cause: error.to_string() }, 0, 0, Target::NODE),
        };
        warn!(%peer, node, %fault, "request not taken");
        let closes = matches!(fault, Fault::Undecodable { .. } | Fault::Connection { .. });
        if answers.send(fault.to_frame(kind, request, target)).await.is_err() || closes {
            return;
        }
    }
}

/// Hands one request over and brings its answer to the writer when it is there.
fn start(
    frame: Frame,
    router: &Router,
    under_way: &mut JoinSet<()>,
    answers: &mpsc::Sender<Frame>,
) -> Result<(), Fault> {
    if frame.class != Class::Request {
        let cause = format!("{:?} where a request belongs", frame.class);
        return Err(Fault::Connection { cause });
    }
    while under_way.try_join_next().is_some() {}
    if under_way.len() >= UNDER_WAY_MAX {
        return Err(Fault::Busy { waiting: under_way.len() });
    }
    let answering = router.dispatch(frame)?;
    let answers = answers.clone();
    under_way.spawn_local(async move {
        // Without a writer the caller is gone, and asks again over its next connection.
        let _ = answers.send(answering.await).await;
    });
    Ok(())
}

async fn write_answers<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    mut waiting: mpsc::Receiver<Frame>,
) -> Result<(), FrameError> {
    while let Some(mut frame) = waiting.recv().await {
        loop {
            writer.write(&frame).await?;
            match waiting.try_recv() {
                Ok(next) => frame = next,
                Err(_) => break,
            }
        }
        writer.flush().await?;
    }
    writer.shutdown().await
}
