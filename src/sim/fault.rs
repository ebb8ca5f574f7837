//! What goes wrong, when, and for how long: a fault plan.
//!
//! A plan is data: it can be written by hand, drawn by a seed ([`super::swarm`]), shrunk
//! ([`super::shrink`]), saved as TOML, and applied to a simulated cluster or to real processes.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every node of a simulation, where a fault takes a name.
pub const ANY: &str = "*";
/// A year is beyond any simulation, and exact in f64.
const MS_MAX: u64 = 32_000_000_000;
/// Rates are of so many.
const RATE_MAX: u16 = 1000;
/// A plan of some thousand faults.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Faults in any order; each is independent of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// One thing that goes wrong from `at_ms` on, for `for_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Milliseconds from the start of the simulation.
    pub at_ms: u64,
    /// Milliseconds until it is over; 0 for what has no length, as the flip of a bit.
    #[serde(default)]
    pub for_ms: u64,
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What goes wrong. Nodes go by name, [`ANY`] is all of them. Rates are of 1000.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum FaultKind {
    /// SIGKILL: none of its code runs; the kernel resets its connections. Starts again afterwards.
    Kill { node: String },
    /// The machine is gone without a word, and what it has not synced is lost or torn. Starts
    /// again afterwards.
    PowerLoss { node: String },
    /// SIGTERM: it ends in its own way. Starts again afterwards.
    Stop { node: String },
    /// SIGSTOP, then SIGCONT: it comes back and knows nothing of the time between.
    Pause { node: String },
    /// Its servers and workers are to leave, as by `node drain`; afterwards they are called back.
    /// Nothing happens on a node that has neither.
    Drain { node: String },
    /// Nothing comes through from one node to the other. What was sent arrives afterwards, where
    /// the connection still lives.
    Block { from: String, to: String },
    /// Messages are late by so much more.
    Delay { from: String, to: String, ms: u64 },
    /// Messages are lost while their connection lives on: worse than TCP, as a bad proxy does.
    Drop { from: String, to: String, rate: u16 },
    /// Messages arrive twice.
    Duplicate { from: String, to: String, rate: u16 },
    /// Messages are overtaken by later ones.
    Reorder { from: String, to: String, rate: u16 },
    /// Writes of this node fail, as on a full disk.
    FailWrites { node: String, rate: u16 },
    /// Writes of this node take so much longer.
    SlowDisk { node: String, ms: u64 },
    /// A worker of this node panics in its next gradient: its supervisor puts a fresh one in its
    /// place. Nothing happens on a node without workers.
    Panic { node: String },
    /// Computations of this node take so many times as long. In a simulation, where they take no time, a
    /// gradient takes a millisecond for each time beyond the first.
    Slow { node: String, times: u16 },
    /// A bit of something that is stored flips: of a file whose path contains this.
    FlipBit { path: String },
    /// The wall clock of this node is wrong by so much.
    Clock { node: String, by_ms: i64 },
}

impl FaultPlan {
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect() }
    }

    /// Reads a plan in TOML: a table `[[faults]]` for each.
    ///
    /// # Errors
    /// See [`FaultPlanError`].
    pub fn from_toml(text: &str) -> Result<Self, FaultPlanError> {
        let wrong = |error: toml::de::Error| FaultPlanError(error.to_string());
        let plan: Self = toml::from_str(text).map_err(wrong)?;
        // serde can't refuse unknown keys of a flattened enum.
        let table: toml::Table = toml::from_str(text).map_err(wrong)?;
        let written = table.get("faults").and_then(toml::Value::as_array);
        for (written, fault) in written.into_iter().flatten().zip(&plan.faults) {
            let known =
                toml::Table::try_from(fault).map_err(|error| FaultPlanError(error.to_string()))?;
            let keys = written.as_table().into_iter().flat_map(toml::Table::keys);
            if let Some(key) = keys.into_iter().find(|key| !known.contains_key(*key)) {
                let known: Vec<&str> = known.keys().map(String::as_str).collect();
                return Err(FaultPlanError(format!(
                    "{fault} has no {key:?}; its keys are {}",
                    known.join(", ")
                )));
            }
        }
        plan.faults.iter().try_for_each(Fault::check_ranges)?;
        Ok(plan)
    }

    /// The plan as [`FaultPlan::from_toml`] reads it.
    pub fn to_toml(&self) -> String {
        // Strings and numbers in a flat table: always writable.
        toml::to_string(self).unwrap_or_default()
    }

    /// Whether every name is one of `names`, or all of them.
    ///
    /// # Errors
    /// The first fault that names a node that isn't there.
    pub fn check_nodes(&self, names: &[&str]) -> Result<(), FaultPlanError> {
        for fault in &self.faults {
            let unknown = |node: &&str| *node != ANY && !names.contains(node);
            if let Some(node) = fault.nodes().into_iter().find(unknown) {
                let names = names.join(", ");
                let text = format!("{fault}: no node is called {node:?}; there are {names}");
                return Err(FaultPlanError(text));
            }
        }
        Ok(())
    }

    /// When the last fault is over.
    pub fn end(&self) -> Duration {
        let ends = self.faults.iter().map(|fault| fault.at_ms.saturating_add(fault.for_ms));
        Duration::from_millis(ends.max().unwrap_or(0))
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// Reads a plan from a file.
///
/// # Errors
/// The file can't be read, is longer than people or a swarm write, or is no plan.
pub fn read_plan(file: &Path) -> Result<FaultPlan, FaultPlanError> {
    let wrong = |cause: &dyn fmt::Display| FaultPlanError(format!("{}: {cause}", file.display()));
    let bytes = std::fs::metadata(file).map_err(|error| wrong(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes, more than {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    FaultPlan::from_toml(&text).map_err(|FaultPlanError(cause)| wrong(&cause))
}

/// A fault plan is not readable, or not one of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault plan: {0}")]
pub struct FaultPlanError(String);

impl Fault {
    fn new(kind: FaultKind) -> Self {
        Self { at_ms: 0, for_ms: 0, kind }
    }

    /// From this time on: `"4.8s"`, `"300ms"`, or a [`Duration`] written so.
    ///
    /// # Panics
    /// The text is no time.
    #[must_use]
    pub fn at(mut self, time: &str) -> Self {
        self.at_ms = millis(time);
        self
    }

    /// For so long.
    ///
    /// # Panics
    /// The text is no time.
    #[must_use]
    pub fn for_(mut self, time: &str) -> Self {
        self.for_ms = millis(time);
        self
    }

    /// Sums of these can't overflow, and a rate means what it says.
    fn check_ranges(&self) -> Result<(), FaultPlanError> {
        let (ms, rate) = match self.kind {
            FaultKind::Delay { ms, .. } | FaultKind::SlowDisk { ms, .. } => (ms, 0),
            FaultKind::Clock { by_ms, .. } => (by_ms.unsigned_abs(), 0),
            FaultKind::Drop { rate, .. }
            | FaultKind::Duplicate { rate, .. }
            | FaultKind::Reorder { rate, .. }
            | FaultKind::FailWrites { rate, .. } => (0, rate),
            _ => (0, 0),
        };
        if let Some(ms) = [self.at_ms, self.for_ms, ms].into_iter().find(|ms| *ms > MS_MAX) {
            let text = format!("{self}: {ms} ms is more than a year ({MS_MAX} ms)");
            return Err(FaultPlanError(text));
        }
        if rate > RATE_MAX {
            let text = format!("{self}: a rate of {rate}, rates are of {RATE_MAX}");
            return Err(FaultPlanError(text));
        }
        Ok(())
    }

    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<&str> {
        match &self.kind {
            FaultKind::Kill { node }
            | FaultKind::PowerLoss { node }
            | FaultKind::Stop { node }
            | FaultKind::Pause { node }
            | FaultKind::Drain { node }
            | FaultKind::Panic { node }
            | FaultKind::Slow { node, .. }
            | FaultKind::FailWrites { node, .. }
            | FaultKind::SlowDisk { node, .. }
            | FaultKind::Clock { node, .. } => vec![node],
            FaultKind::Block { from, to }
            | FaultKind::Delay { from, to, .. }
            | FaultKind::Drop { from, to, .. }
            | FaultKind::Duplicate { from, to, .. }
            | FaultKind::Reorder { from, to, .. } => vec![from, to],
            FaultKind::FlipBit { .. } => Vec::new(),
        }
    }
}

#[expect(clippy::panic, reason = "a test's own constant; documented at its callers")]
fn millis(text: &str) -> u64 {
    match text.parse() {
        Ok(Time(ms)) => ms,
        Err(error) => panic!("{error}"),
    }
}

/// A time as people write it, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub u64);

impl FromStr for Time {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || FaultPlanError(format!("{text:?} is no time: write \"4.8s\" or \"300ms\""));
        let (number, scale) = match text.strip_suffix("ms") {
            Some(number) => (number, 1.0),
            None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000.0),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let ms = (number * scale).round();
        if !(0.0..=MS_MAX as f64).contains(&ms) {
            return Err(wrong());
        }
        Ok(Self(ms as u64))
    }
}

/// SIGKILL of a node.
pub fn kill(node: &str) -> Fault {
    Fault::new(FaultKind::Kill { node: node.to_owned() })
}

/// A node's machine loses its power.
pub fn power_loss(node: &str) -> Fault {
    Fault::new(FaultKind::PowerLoss { node: node.to_owned() })
}

/// SIGTERM to a node.
pub fn stop(node: &str) -> Fault {
    Fault::new(FaultKind::Stop { node: node.to_owned() })
}

/// SIGSTOP of a node, then SIGCONT.
pub fn pause(node: &str) -> Fault {
    Fault::new(FaultKind::Pause { node: node.to_owned() })
}

/// A node's servers and workers leave, and are called back afterwards.
pub fn drain(node: &str) -> Fault {
    Fault::new(FaultKind::Drain { node: node.to_owned() })
}

/// A worker of this node panics once.
pub fn panic_in(node: &str) -> Fault {
    Fault::new(FaultKind::Panic { node: node.to_owned() })
}

/// Computations of a node take `times` as long.
pub fn slow(node: &str, times: u16) -> Fault {
    Fault::new(FaultKind::Slow { node: node.to_owned(), times })
}

/// Nothing from one node reaches the other; the other way is open.
pub fn block(from: &str, to: &str) -> Fault {
    Fault::new(FaultKind::Block { from: from.to_owned(), to: to.to_owned() })
}

/// Nothing passes between two nodes, either way.
pub fn partition(one: &str, other: &str) -> [Fault; 2] {
    [block(one, other), block(other, one)]
}

/// Messages from one node to the other are late by `ms` more.
pub fn delay(from: &str, to: &str, ms: u64) -> Fault {
    Fault::new(FaultKind::Delay { from: from.to_owned(), to: to.to_owned(), ms })
}

/// Of 1000 messages from one node to the other, `rate` are lost.
pub fn lose(from: &str, to: &str, rate: u16) -> Fault {
    Fault::new(FaultKind::Drop { from: from.to_owned(), to: to.to_owned(), rate })
}

/// Of 1000 messages from one node to the other, `rate` arrive twice.
pub fn duplicate(from: &str, to: &str, rate: u16) -> Fault {
    Fault::new(FaultKind::Duplicate { from: from.to_owned(), to: to.to_owned(), rate })
}

/// Of 1000 messages from one node to the other, `rate` are overtaken.
pub fn reorder(from: &str, to: &str, rate: u16) -> Fault {
    Fault::new(FaultKind::Reorder { from: from.to_owned(), to: to.to_owned(), rate })
}

/// Of 1000 writes of a node, `rate` fail.
pub fn fail_writes(node: &str, rate: u16) -> Fault {
    Fault::new(FaultKind::FailWrites { node: node.to_owned(), rate })
}

/// Each write of a node takes `ms` longer.
pub fn slow_disk(node: &str, ms: u64) -> Fault {
    Fault::new(FaultKind::SlowDisk { node: node.to_owned(), ms })
}

/// A bit flips in a stored file whose path contains `path`.
pub fn flip_bit(path: &str) -> Fault {
    Fault::new(FaultKind::FlipBit { path: path.to_owned() })
}

/// A node's wall clock is wrong by `by_ms`.
pub fn skew(node: &str, by_ms: i64) -> Fault {
    Fault::new(FaultKind::Clock { node: node.to_owned(), by_ms })
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FaultKind::Kill { node } => write!(f, "kill({node:?})"),
            FaultKind::PowerLoss { node } => write!(f, "power_loss({node:?})"),
            FaultKind::Stop { node } => write!(f, "stop({node:?})"),
            FaultKind::Pause { node } => write!(f, "pause({node:?})"),
            FaultKind::Drain { node } => write!(f, "drain({node:?})"),
            FaultKind::Panic { node } => write!(f, "panic_in({node:?})"),
            FaultKind::Slow { node, times } => write!(f, "slow({node:?}, {times})"),
            FaultKind::Block { from, to } => write!(f, "block({from:?}, {to:?})"),
            FaultKind::Delay { from, to, ms } => write!(f, "delay({from:?}, {to:?}, {ms})"),
            FaultKind::Drop { from, to, rate } => write!(f, "lose({from:?}, {to:?}, {rate})"),
            FaultKind::Duplicate { from, to, rate } => {
                write!(f, "duplicate({from:?}, {to:?}, {rate})")
            }
            FaultKind::Reorder { from, to, rate } => {
                write!(f, "reorder({from:?}, {to:?}, {rate})")
            }
            FaultKind::FailWrites { node, rate } => write!(f, "fail_writes({node:?}, {rate})"),
            FaultKind::SlowDisk { node, ms } => write!(f, "slow_disk({node:?}, {ms})"),
            FaultKind::FlipBit { path } => write!(f, "flip_bit({path:?})"),
            FaultKind::Clock { node, by_ms } => write!(f, "skew({node:?}, {by_ms})"),
        }?;
        write!(f, ".at(\"{}\")", seconds(self.at_ms))?;
        if self.for_ms > 0 { write!(f, ".for_(\"{}\")", seconds(self.for_ms)) } else { Ok(()) }
    }
}

/// As [`Fault::at`] reads it.
fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(100) { format!("{}s", ms as f64 / 1000.0) } else { format!("{ms}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_in_toml_reads_back_as_it_was() {
        let [one, other] = partition("main", "ps-0");
        let plan = FaultPlan::new([
            kill("ps-0").at("4.8s").for_("800ms"),
            one.at("1s").for_("2s"),
            other.at("1s").for_("2s"),
            lose("*", "worker-1", 50).at("0s").for_("3.25s"),
            flip_bit("parameters").at("2s"),
            skew("main", -30_000).at("1s").for_("1s"),
            slow("worker-1", 4).at("0s").for_("5s"),
        ]);
        assert_eq!(FaultPlan::from_toml(&plan.to_toml()), Ok(plan.clone()));
        assert_eq!(plan.end(), Duration::from_millis(5600));
    }

    #[test]
    fn a_fault_is_shown_as_it_is_written_in_a_test() {
        let text = kill("ps-0").at("4.8s").for_("812ms").to_string();
        assert_eq!(text, r#"kill("ps-0").at("4.8s").for_("812ms")"#);
    }

    #[test]
    fn what_is_no_time_or_no_fault_is_refused() {
        for text in ["5", "-1s", "s", "5 minutes", "1e300s", "NaNs"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        let error = FaultPlan::from_toml("[[faults]]\nfault = \"explode\"\nat_ms = 1").unwrap_err();
        assert!(error.to_string().contains("explode"), "{error}");
        let text = "[[faults]]\nfault = \"kill\"\nnode = \"a\"\nat_ms = 1\nfor = 3";
        let error = FaultPlan::from_toml(text).unwrap_err();
        assert!(error.to_string().contains("has no \"for\""), "{error}");
    }

    #[test]
    fn times_and_rates_beyond_their_ranges_are_refused() {
        let plan = |fault: Fault| FaultPlan::from_toml(&FaultPlan::new([fault]).to_toml());
        let long = kill("a").at("1s");
        assert!(plan(Fault { for_ms: MS_MAX, ..long.clone() }).is_ok());
        for wrong in [
            Fault { at_ms: MS_MAX + 1, ..long.clone() },
            Fault { for_ms: u64::from(u32::MAX) << 30, ..long },
            delay("a", "b", MS_MAX + 1),
            skew("a", i64::MIN + 1),
            lose("a", "b", RATE_MAX + 1),
        ] {
            assert!(plan(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
