//! A run's state as metrics, read from its snapshot whenever the page is asked for.

use std::fmt;

use gradmesh_actors::ids::WorkerId;
use gradmesh_actors::training::{EventFeed, Progress, Share, TrainingStatus};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::sync::watch;

/// Each has its own series, so that an alert can wait for `failed` by name.
const PHASES: [&str; 7] =
    ["following", "gathering", "assigning", "running", "publishing", "done", "failed"];

/// What the coordinator of this node publishes. Nothing is counted twice: the page shows the
/// snapshot that `node status` shows.
#[derive(Debug)]
pub(super) struct TrainingMetrics {
    status: watch::Receiver<TrainingStatus>,
}

impl TrainingMetrics {
    pub(super) fn new(status: watch::Receiver<TrainingStatus>) -> Self {
        Self { status }
    }
}

impl Collector for TrainingMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.status.borrow().clone();
        Page(encoder).write(&status)
    }
}

/// Counters fall to zero with a coordinator that starts anew, as counters may; what a rollback
/// turns back is a gauge.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn write(&mut self, status: &TrainingStatus) -> fmt::Result {
        self.progress(status)?;
        self.learning(status)?;
        self.cluster(status)?;
        self.events(&status.events)?;
        self.shares(&status.shares)?;
        self.bytes(status)
    }

    fn progress(&mut self, status: &TrainingStatus) -> fmt::Result {
        self.phase(&status.progress)?;
        let version = Some(status.version.0);
        self.gauge("version", "Steps that every shard has taken", version)?;
        let last = status.last_version.map(|version| version.0);
        self.gauge("last_version", "Steps of the whole job, once its data is known", last)?;
        let checkpoint = status.checkpoint.map(|version| version.0);
        self.gauge("checkpoint_version", "Steps in the newest whole checkpoint", checkpoint)?;
        let epochs = Some(status.ledger.epochs());
        self.gauge("epoch", "Epochs that are done", epochs)
    }

    /// Of the newest epoch that has it: losses and accuracy come a step apart.
    fn learning(&mut self, status: &TrainingStatus) -> fmt::Result {
        let epochs = || status.ledger.finished.iter().rev();
        let train = epochs().map(|epoch| epoch.train_loss).next();
        self.real("train_loss", "Mean loss of the training rows in the last epoch", None, train)?;
        let test = epochs().find_map(|epoch| epoch.test_loss);
        self.real("test_loss", "Mean loss of the test rows after the last epoch", None, test)?;
        let accuracy = epochs().find_map(|epoch| epoch.test_accuracy);
        let help = "Part of the test rows that the last epoch's model gets right, 0 to 1";
        self.real("test_accuracy", help, Some(Unit::Other("ratio".to_owned())), accuracy)
    }

    fn cluster(&mut self, status: &TrainingStatus) -> fmt::Result {
        self.gauge("view", "View of the cluster, raised by each recovery", Some(status.view.0))?;
        self.gauge("workers", "Workers alive", Some(status.workers as u64))?;
        self.gauge("servers", "Parameter servers alive", Some(status.servers as u64))?;
        self.gauge("shards", "Shards of which a copy is alive", Some(status.shards as u64))?;
        let replicas = "Copies beside the primaries that could take their place";
        self.gauge("replicas", replicas, Some(status.replicas as u64))?;
        self.counter("members_lost", "Workers and copies of shards lost", None, status.lost)?;
        let promotions = "Replicas that took a lost primary's place";
        self.counter("promotions", promotions, None, status.promotions)?;
        let handovers = "Primaries that handed over to a replica";
        self.counter("handovers", handovers, None, status.handovers)?;
        let rollbacks = "Recoveries that went back to a checkpoint";
        self.counter("rollbacks", rollbacks, None, status.rollbacks)?;
        let leases = "Views in which shards went on as they were";
        self.counter("new_leases", leases, None, status.new_leases)
    }

    /// By kind. What views did has a time: its sum by the number of those is the mean.
    fn events(&mut self, feed: &EventFeed) -> fmt::Result {
        let events = feed.tallies.iter().map(|(kind, tally)| (kind, tally.events));
        self.by_kind("events", "What happened to the run, as node status shows it", None, events)?;
        let timed = || feed.tallies.iter().filter(|(_, tally)| tally.timed > 0);
        let views = timed().map(|(kind, tally)| (kind, tally.timed));
        self.by_kind("recoveries", "Views by what they did, once everyone follows", None, views)?;
        let took = timed().map(|(kind, tally)| (kind, tally.took_ms as f64 / 1e3));
        let help = "From the last word of the first who was lost until everyone follows the view";
        self.by_kind("recovery", help, Some(Unit::Seconds), took)
    }

    /// Of each worker: an operator sees who is slow, and whether slots left it.
    fn shares(&mut self, shares: &[Share]) -> fmt::Result {
        let slots = shares.iter().map(|share| (share.worker, f64::from(share.slots)));
        self.by_worker("worker_slots", "Slots that a worker has leased", None, slots)?;
        let seconds = |share: &Share| Some((share.worker, share.slot_us? as f64 / 1e6));
        let help = "Time that a worker takes to compute a slot, as it was lately";
        let unit = Some(Unit::Seconds);
        self.by_worker("worker_slot", help, unit, shares.iter().filter_map(seconds))
    }

    fn by_worker(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        workers: impl Iterator<Item = (WorkerId, f64)>,
    ) -> fmt::Result {
        let mut workers = workers.peekable();
        if workers.peek().is_none() {
            return Ok(());
        }
        let (name, help) = (format!("training_{name}"), format!("{help}."));
        let gauge = MetricType::Gauge;
        let mut family = self.0.encode_descriptor(&name, &help, unit.as_ref(), gauge)?;
        for (WorkerId(worker), value) in workers {
            let labels = [("worker", worker)];
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn by_kind<'k, N: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kinds: impl Iterator<Item = (&'k String, N)>,
    ) -> fmt::Result {
        let mut kinds = kinds.peekable();
        // A family without series is not one.
        if kinds.peek().is_none() {
            return Ok(());
        }
        let (name, help) = (format!("training_{name}"), format!("{help}."));
        let counter = MetricType::Counter;
        let mut family = self.0.encode_descriptor(&name, &help, unit.as_ref(), counter)?;
        for (kind, value) in kinds {
            let labels = [("kind", kind.as_str())];
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn bytes(&mut self, status: &TrainingStatus) -> fmt::Result {
        let bytes = |page: &mut Self, name: &str, help: &str, value: u64| {
            page.counter(name, help, Some(Unit::Bytes), value)
        };
        bytes(self, "pushed", "Gradients as they were sent", status.bytes.pushed)?;
        let dense = "The same gradients before the codec, as plain f32";
        bytes(self, "pushed_uncompressed", dense, status.bytes.pushed_dense)?;
        bytes(self, "pulled", "Parameters as they were sent", status.bytes.pulled)?;
        let replicated = "Steps and states as they were sent to other copies of a shard";
        bytes(self, "replicated", replicated, status.bytes.replicated)
    }

    fn phase(&mut self, progress: &Progress) -> fmt::Result {
        let now = match progress {
            Progress::Following { .. } => "following",
            Progress::Gathering => "gathering",
            Progress::Assigning => "assigning",
            Progress::Running => "running",
            Progress::Publishing => "publishing",
            Progress::Done(_) => "done",
            Progress::Failed { .. } => "failed",
        };
        let gauge = ConstGauge::new(0);
        let help = "1 for the phase that the run is in, 0 for the others.";
        let mut family =
            self.0.encode_descriptor("training_phase", help, None, metric_type(&gauge))?;
        for phase in PHASES {
            let labels = [("phase", phase)];
            ConstGauge::new(i64::from(phase == now)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Left out while it isn't known.
    fn gauge(&mut self, name: &str, help: &str, value: Option<u64>) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        // Steps and members are far below 2⁶³.
        let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        self.metric(name, help, None, &gauge)
    }

    fn real(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: Option<f64>,
    ) -> fmt::Result {
        let Some(value) = value else { return Ok(()) };
        self.metric(name, help, unit, &ConstGauge::new(value))
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        self.metric(name, help, unit, &ConstCounter::new(value))
    }

    fn metric(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        // As the registry writes them: with a full stop.
        let (name, help) = (format!("training_{name}"), format!("{help}."));
        let encoder = self.0.encode_descriptor(&name, &help, unit.as_ref(), metric_type(metric))?;
        metric.encode(encoder)
    }
}

fn metric_type(metric: &impl EncodeMetric) -> MetricType {
    metric.metric_type()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gradmesh_actors::ids::{Version, View};
    use gradmesh_actors::ledger::{EpochRecord, Ledger};
    use gradmesh_actors::messages::BytesMoved;
    use gradmesh_actors::training::Tally;

    use super::*;
    use crate::metrics::Metrics;

    fn status() -> TrainingStatus {
        let epoch = |epoch, test_accuracy| EpochRecord {
            epoch,
            rows: 100,
            train_loss: 0.5 / epoch as f64,
            test_loss: test_accuracy,
            test_accuracy,
        };
        TrainingStatus {
            held_up: None,
            resumed_from: None,
            progress: Progress::Running,
            view: View(3),
            version: Version(25),
            last_version: Some(Version(40)),
            steps_per_epoch: Some(10),
            train_rows: Some(100),
            checkpoint: Some(Version(20)),
            shards: 2,
            servers: 2,
            replicas: 1,
            workers: 4,
            ledger: Ledger {
                finished: vec![epoch(1, Some(0.75)), epoch(2, None)],
                ..Ledger::default()
            },
            bytes: BytesMoved { pushed: 100, pushed_dense: 400, pulled: 300, replicated: 200 },
            lost: 5,
            new_leases: 6,
            promotions: 8,
            handovers: 9,
            rollbacks: 7,
            shares: vec![Share { worker: WorkerId(1), slots: 6, slot_us: Some(1500) }],
            leaving: Vec::new(),
            events: EventFeed {
                newest: Vec::new(),
                tallies: BTreeMap::from([
                    ("joined".to_owned(), Tally { events: 9, timed: 0, took_ms: 0 }),
                    ("promoted".to_owned(), Tally { events: 3, timed: 2, took_ms: 2500 }),
                ]),
            },
        }
    }

    /// A series of the page, with what is said about its family before it.
    #[derive(Debug, PartialEq)]
    struct Series {
        kind: String,
        value: f64,
    }

    /// Reads a page as a scraper does; a series without `# HELP` and `# TYPE` fails.
    fn parse(page: &str) -> BTreeMap<String, Series> {
        let (mut helped, mut kinds) = (Vec::new(), BTreeMap::new());
        let mut series = BTreeMap::new();
        let body = page.strip_suffix("# EOF\n").expect("a page ends");
        for line in body.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help has a text");
                assert!(!text.is_empty(), "{line}");
                helped.push(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type has a name");
                assert_eq!(kinds.insert(name.to_owned(), kind.to_owned()), None, "{name} twice");
            } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                let (name, unit) = unit.split_once(' ').expect("a unit has a name");
                assert!(name.ends_with(unit), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a series has a value");
                let bare = name.split('{').next().unwrap_or(name);
                let family = bare.strip_suffix("_total").unwrap_or(bare);
                assert!(helped.contains(&family.to_owned()), "{line} has no help");
                let kind = kinds.get(family).expect("a type before the series").clone();
                assert_eq!(bare != family, kind == "counter", "{line} is a {kind}");
                let value = value.parse().expect("a number");
                let known = series.insert(name.to_owned(), Series { kind, value });
                assert_eq!(known, None, "{name} twice");
            }
        }
        series
    }

    fn page(status: TrainingStatus) -> BTreeMap<String, Series> {
        let metrics = Metrics::new();
        metrics.watch_training(watch::channel(status).1);
        parse(&metrics.text())
    }

    #[test]
    fn a_run_is_on_the_page_by_the_conventions_of_prometheus() {
        let page = page(status());
        for (name, kind, value) in [
            ("version", "gauge", 25.0),
            ("last_version", "gauge", 40.0),
            ("checkpoint_version", "gauge", 20.0),
            ("epoch", "gauge", 2.0),
            ("train_loss", "gauge", 0.25),
            ("test_loss", "gauge", 0.75),
            ("test_accuracy_ratio", "gauge", 0.75),
            ("view", "gauge", 3.0),
            ("workers", "gauge", 4.0),
            ("shards", "gauge", 2.0),
            ("members_lost_total", "counter", 5.0),
            ("new_leases_total", "counter", 6.0),
            ("rollbacks_total", "counter", 7.0),
            ("pushed_bytes_total", "counter", 100.0),
            ("pushed_uncompressed_bytes_total", "counter", 400.0),
            ("pulled_bytes_total", "counter", 300.0),
            ("worker_slots{worker=\"1\"}", "gauge", 6.0),
            ("worker_slot_seconds{worker=\"1\"}", "gauge", 0.0015),
            ("events_total{kind=\"joined\"}", "counter", 9.0),
            ("recoveries_total{kind=\"promoted\"}", "counter", 2.0),
            ("recovery_seconds_total{kind=\"promoted\"}", "counter", 2.5),
            ("phase{phase=\"running\"}", "gauge", 1.0),
            ("phase{phase=\"failed\"}", "gauge", 0.0),
        ] {
            let name = format!("gradmesh_training_{name}");
            let expected = Series { kind: kind.to_owned(), value };
            assert_eq!(page.get(&name), Some(&expected), "{name} in {page:#?}");
        }
    }

    #[test]
    fn what_is_not_known_yet_is_left_out() {
        let early = TrainingStatus {
            progress: Progress::Gathering,
            last_version: None,
            checkpoint: None,
            ledger: Ledger::default(),
            ..status()
        };
        let page = page(early);
        for name in
            ["last_version", "checkpoint_version", "train_loss", "test_loss", "test_accuracy_ratio"]
        {
            assert!(!page.contains_key(&format!("gradmesh_training_{name}")), "{name}");
        }
        assert_eq!(page["gradmesh_training_phase{phase=\"gathering\"}"].value, 1.0);
    }

    #[test]
    fn the_page_shows_the_state_at_the_moment_of_asking() {
        let metrics = Metrics::new();
        let (sender, receiver) = watch::channel(status());
        metrics.watch_training(receiver);
        sender.send_replace(TrainingStatus { version: Version(31), ..status() });
        assert_eq!(parse(&metrics.text())["gradmesh_training_version"].value, 31.0);
    }
}
