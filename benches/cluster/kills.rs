//! One kill, and what is seen after it.

use std::fmt;
use std::time::Duration;

use gradmesh_actors::training::{Progress, TrainingStatus};
use tokio::time::{Instant, sleep};

use crate::LOOK_EVERY;
use crate::cluster::Cluster;
use crate::probe::Probe;

/// Since the kill, until something was first seen.
#[derive(Default)]
pub(crate) struct ServerKill {
    /// The leader counts the server's actors as lost.
    pub(crate) detected: Duration,
    /// The next view is durable.
    pub(crate) raised: Duration,
    /// Copies have taken their roles, workers are being told.
    pub(crate) assigned: Duration,
    pub(crate) committed: Duration,
}

#[derive(Default)]
pub(crate) struct LeaderKill {
    /// A coordinator leads in a later view.
    pub(crate) led: Duration,
    /// Copies and workers have been told; a step was committed since.
    pub(crate) running: Duration,
    /// The longest time between two steps that were seen: nobody waits for a leader.
    pub(crate) pause: Duration,
}

pub(crate) async fn server(
    probe: &Probe,
    cluster: &mut Cluster,
    server: usize,
    before: &TrainingStatus,
) -> ServerKill {
    let earlier = probe.versions(None).await;
    let killed = Instant::now();
    cluster.kill(&format!("ps-{server}"));
    let base = probe.versions(Some(server)).await;
    let base = base.into_iter().chain(earlier).flatten().max().unwrap();
    let mut seen = ServerKill::default();
    loop {
        cluster.look();
        let (leader, versions) = tokio::join!(probe.leader(), probe.versions(Some(server)));
        // A step that is shown is committed before the next one is.
        let next = versions.iter().all(|of| of.is_some_and(|of| of > base.next()));
        note(&mut seen.committed, killed, next);
        if let Some((_, status)) = leader {
            note(&mut seen.detected, killed, status.lost > before.lost);
            note(&mut seen.raised, killed, status.view > before.view);
            let runs = status.view > before.view && status.progress == Progress::Running;
            note(&mut seen.assigned, killed, runs);
        }
        if next {
            // The roles were given between two looks.
            note(&mut seen.assigned, killed, true);
            return seen;
        }
        sleep(LOOK_EVERY).await;
    }
}

pub(crate) async fn leader(
    probe: &Probe,
    cluster: &mut Cluster,
    leader: usize,
    before: &TrainingStatus,
) -> LeaderKill {
    let killed = Instant::now();
    cluster.kill(&format!("main-{leader}"));
    let mut seen = LeaderKill::default();
    let (mut committed, mut since, mut base) = (None, killed, None);
    loop {
        cluster.look();
        let (heir, versions) = tokio::join!(probe.leader(), probe.versions(None));
        let version = versions.into_iter().min().flatten();
        seen.pause = seen.pause.max(since.elapsed());
        if version > committed {
            (committed, since) = (version, Instant::now());
        }
        if let Some((_, status)) = heir.filter(|(_, status)| status.view > before.view) {
            note(&mut seen.led, killed, true);
            let told = status.progress == Progress::Running;
            base = base.or(version.filter(|_| told));
        }
        if base.is_some_and(|base| version > Some(base)) {
            note(&mut seen.running, killed, true);
            return seen;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn note(at: &mut Duration, killed: Instant, is: bool) {
    if is && at.is_zero() {
        *at = killed.elapsed();
    }
}

impl fmt::Display for ServerKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lost, view, assigned, committed] =
            [self.detected, self.raised, self.assigned, self.committed].map(|at| at.as_millis());
        write!(f, "lost {lost}, view {view}, assigned {assigned}, committed {committed} ms")
    }
}

impl fmt::Display for LeaderKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [led, running, pause] = [self.led, self.running, self.pause].map(|at| at.as_millis());
        write!(f, "led {led}, running {running}, longest pause of steps {pause} ms")
    }
}
