//! Events in plain words.

use std::fmt;

use super::{Cause, Event, EventKind, Who};
use crate::ids::ShardId;

impl EventKind {
    /// Its name in metrics and in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "joined",
            Self::Lost { .. } => "lost",
            Self::Began { .. } => "began",
            Self::Promoted { .. } => "promoted",
            Self::HandedOver { .. } => "handed-over",
            Self::InSync { .. } => "in-sync",
            Self::Released { .. } => "released",
            Self::Fenced { .. } => "fenced",
            Self::RolledBack { .. } => "rolled-back",
            Self::Continued { .. } => "continued",
            Self::Rebalanced { .. } => "rebalanced",
            Self::StoodStill { .. } => "stood-still",
            Self::Leaving { .. } => "leaving",
            Self::Back { .. } => "back",
            Self::Led { .. } => "led",
        }
    }

    /// Whether somebody should look, though nothing has to be done.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Lost { .. }
                | Self::Fenced { .. }
                | Self::RolledBack { .. }
                | Self::StoodStill { .. }
        )
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { who } => write!(f, "{who} has joined"),
            Self::Lost { who } => write!(f, "{who} is lost"),
            Self::Began { version, workers } => {
                write!(f, "the run began at {version} with {}", count(*workers, "worker"))
            }
            Self::Promoted { shards, from, to } => {
                write!(f, "{to} took the place of {from} as primary of {}", all(shards))
            }
            Self::HandedOver { shards, from, to } => {
                write!(f, "{from} handed {} over to {to}", all(shards))
            }
            Self::InSync { copy } => write!(f, "{copy} is in sync"),
            Self::Released { copy } => write!(f, "{copy} is not needed any more"),
            Self::Fenced { copy, by } => {
                write!(f, "{copy} was refused as primary, {by} has another one")
            }
            Self::RolledBack { from, to } => write!(f, "everyone went back from {from} to {to}"),
            Self::Continued { workers } => {
                write!(f, "the run went on with {}", count(*workers, "worker"))
            }
            Self::Rebalanced { workers } => {
                write!(f, "slots moved between {}", count(*workers, "worker"))
            }
            Self::StoodStill { for_ms, version, is_last: true, .. } => {
                let time = Millis(*for_ms);
                write!(
                    f,
                    "{version} is the last, and for {time} its checkpoint has not been whole; see that checkpoint.store takes what is written"
                )
            }
            Self::StoodStill { for_ms, version, ahead: 0, .. } => {
                let time = Millis(*for_ms);
                write!(
                    f,
                    "no step for {time}, all shards are at {version}; see what the workers log"
                )
            }
            Self::StoodStill { for_ms, slowest, version, ahead, .. } => {
                let time = Millis(*for_ms);
                write!(
                    f,
                    "no step for {time}: {slowest} is at {version}, another shard {ahead} ahead; see what its server and the workers log"
                )
            }
            Self::Leaving { who } => write!(f, "{who} is to leave"),
            Self::Back { who } => write!(f, "{who} is to stay after all"),
            Self::Led { leader, term } => write!(f, "{leader} leads in {term}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Worker(worker) => worker.fmt(f),
            Self::Server(server) => server.fmt(f),
            Self::Copy(copy) => copy.fmt(f),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { ms } => write!(f, "nothing was heard of it for {}", Millis(*ms)),
            Self::Refused { ms } => {
                write!(f, "nobody listens at its address, nor said a word for {}", Millis(*ms))
            }
            Self::Restarted => f.write_str("it was started again"),
            Self::GaveUp => f.write_str("its node does not run it any more"),
            Self::Loss { lost } => write!(f, "{lost} lost"),
            Self::Arrival => f.write_str("somebody has joined"),
            Self::CaughtUp => f.write_str("a copy has caught up"),
            Self::Checkpoint { version } => {
                write!(f, "the checkpoint of {version} can't be read")
            }
            Self::Residuals => f.write_str("a worker's residuals are of another step"),
            Self::Moves => f.write_str("slots moved at a checkpoint"),
            Self::Drain => f.write_str("some are to leave, or to stay"),
            Self::Slow { worker, percent } => {
                let (whole, tenths) = (percent / 100, percent / 10 % 10);
                write!(f, "{worker} takes {whole}.{tenths} times as long as the fastest")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(cause) = self.cause {
            write!(f, ": {cause}")?;
        }
        self.took_ms.map_or(Ok(()), |took| write!(f, "; took {}", Millis(took)))
    }
}

/// As people read times.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ 0..1000 => write!(f, "{ms} ms"),
            ms => write!(f, "{}.{} s", ms / 1000, ms / 100 % 10),
        }
    }
}

fn count(number: u32, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// A server may have thousands.
fn all(shards: &[ShardId]) -> String {
    match shards {
        [] => "no shard".to_owned(),
        [one] => one.to_string(),
        [first, .., last] => format!("{} shards from {first} to {last}", shards.len()),
    }
}
