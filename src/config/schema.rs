//! Every key of `cluster.toml`: type, range, default and meaning, in one table.

use gradmesh_actors::hashing::BUCKETS_MAX;
use gradmesh_actors::job::MAX_VIRTUAL_WORKERS;

use super::kind::{Interval, Kind};

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// Dotted path, for example `job.optimizer.kind`.
    pub path: &'static str,
    pub kind: Kind,
    pub default: Fallback,
    /// One line: what it means, with its unit.
    pub doc: &'static str,
}

/// What holds where a key is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The default, as `--set` would take it.
    Default(&'static str),
    /// Nothing: the key may be left out, or be empty text.
    Unset,
    /// The key must be set.
    Required,
}

use Fallback::{Default, Required, Unset};
use Kind::*;

/// What TOML's whole numbers can say; more would be refused by the file and taken by `--set`.
const SEED_MAX: u64 = i64::MAX as u64;
/// Counts of rows go through `f32` when gradients are averaged, which is exact up to here.
const BATCH_MAX: u64 = 1 << 24;
/// Far above any job; keeps products of two of these inside 64 bits.
const STEPS_MAX: u64 = 1_000_000_000;
/// Clip limits and divisors: beyond this `f32` sums of squares overflow.
const LARGE: f64 = 1e9;

/// The keys outside `[[nodes]]`, in the order of `cluster.toml`.
pub(super) const KEYS: &[Key] = &[
    key(
        "cluster.name",
        Name,
        Default("gradmesh"),
        "name of the cluster, nodes of another name are refused",
    ),
    key(
        "job.seed",
        Integer { min: 0, max: SEED_MAX },
        Default("1"),
        "everything random is drawn from it: initial parameters, test split, shuffles",
    ),
    key(
        "job.epochs",
        Integer { min: 1, max: 1_000_000 },
        Default("10"),
        "times that each training row is seen",
    ),
    key(
        "job.batch_size",
        Integer { min: 1, max: BATCH_MAX },
        Default("64"),
        "rows of a step, all slots together",
    ),
    key(
        "job.virtual_workers",
        Integer { min: 1, max: MAX_VIRTUAL_WORKERS as u64 },
        Default("8"),
        "slots that a step's batch is cut into, which workers lease",
    ),
    key("job.model.name", Name, Default("model"), "name under which versions are published"),
    key(
        "job.model.kind",
        Name,
        Default("mlp"),
        "mlp, linear, or a kind that the embedding program registered",
    ),
    key(
        "job.model.hidden",
        Integers { len_max: 64, min: 1, max: 65_536 },
        Default("64,32"),
        "mlp: widths of the hidden layers",
    ),
    key(
        "job.model.activation",
        Choice(&["relu", "tanh", "sigmoid"]),
        Default("relu"),
        "mlp: function between layers",
    ),
    key(
        "job.model.loss",
        Choice(&["softmax", "squared"]),
        Default("softmax"),
        "softmax: cross-entropy over classes, squared: half the squared error",
    ),
    key(
        "job.model.from",
        Start,
        Unset,
        "the version whose parameters training begins with, those of the seed if it is empty",
    ),
    key(
        "job.model.settings",
        Table,
        Unset,
        "settings of a kind that the embedding program registered, mlp and linear have none",
    ),
    key(
        "job.data.format",
        Choice(&["idx", "csv"]),
        Required,
        "format of the data files, plain or gzip",
    ),
    key(
        "job.data.train",
        Path,
        Required,
        "training rows: IDX images, or CSV with inputs and target, relative to this file",
    ),
    key("job.data.train_labels", Path, Unset, "idx: labels of the training rows"),
    key(
        "job.data.test",
        Path,
        Unset,
        "test rows, without it test_fraction takes them from the training rows",
    ),
    key("job.data.test_labels", Path, Unset, "idx: labels of the test rows"),
    key(
        "job.data.test_fraction",
        Number(Interval::below(0.0, 1.0)),
        Default("0.2"),
        "part of the training rows kept for testing where test is not set",
    ),
    key("job.data.target", Column, Default("-1"), "csv: the target's column"),
    key(
        "job.data.header",
        Switch,
        Default("false"),
        "csv: whether the first line names the columns",
    ),
    key("job.data.text", Column, Unset, "csv: the column of texts, if there is one"),
    key(
        "job.data.text_buckets",
        // All inputs of a row have the same limit.
        Integer { min: 1, max: BUCKETS_MAX as u64 },
        Default("2048"),
        "csv: inputs into which the words of the texts are hashed, behind those of the other columns",
    ),
    key(
        "job.data.scale",
        Choice(&["none", "divide", "standard"]),
        Default("none"),
        "divide: by divide_by, standard: mean 0 and deviation 1 by feature",
    ),
    key(
        "job.data.divide_by",
        Number(Interval::above(0.0, LARGE)),
        Default("255"),
        "divide: divisor of the inputs",
    ),
    key(
        "job.optimizer.kind",
        Choice(&["sgd", "momentum", "nesterov", "adam"]),
        Default("sgd"),
        "rule that updates the parameters",
    ),
    key(
        "job.optimizer.learning_rate",
        Number(Interval::above(0.0, 1000.0)),
        Default("0.1"),
        "step size before the schedule",
    ),
    key(
        "job.optimizer.momentum",
        Number(Interval::below(0.0, 1.0)),
        Default("0.9"),
        "momentum, nesterov: part of the last update that is kept",
    ),
    key(
        "job.optimizer.beta1",
        Number(Interval::below(0.0, 1.0)),
        Default("0.9"),
        "adam: decay of the mean of gradients",
    ),
    key(
        "job.optimizer.beta2",
        Number(Interval::below(0.0, 1.0)),
        Default("0.999"),
        "adam: decay of the mean of squared gradients",
    ),
    key(
        "job.optimizer.epsilon",
        Number(Interval::above(0.0, 1.0)),
        Default("1e-8"),
        "adam: added to the divisor",
    ),
    key(
        "job.optimizer.weight_decay",
        Number(Interval::closed(0.0, 100.0)),
        Default("0"),
        "L2: this times the parameter is added to its gradient",
    ),
    key(
        "job.optimizer.schedule.kind",
        Choice(&["constant", "step", "cosine"]),
        Default("constant"),
        "how the learning rate changes over the job",
    ),
    key(
        "job.optimizer.schedule.warmup_steps",
        Integer { min: 0, max: STEPS_MAX },
        Default("0"),
        "steps over which the learning rate rises to its full value",
    ),
    key(
        "job.optimizer.schedule.every_steps",
        Integer { min: 1, max: STEPS_MAX },
        Default("1000"),
        "step: steps between two multiplications by factor",
    ),
    key(
        "job.optimizer.schedule.factor",
        Number(Interval::above(0.0, 1.0)),
        Default("0.5"),
        "step: multiplies the learning rate",
    ),
    key(
        "job.optimizer.schedule.floor",
        Number(Interval::closed(0.0, 1.0)),
        Default("0"),
        "cosine: part of the learning rate that is left at the end",
    ),
    key(
        "job.gradient.clip_value",
        Number(Interval::closed(0.0, LARGE)),
        Default("0"),
        "limit of each value of the mean gradient, either sign, 0 is off",
    ),
    key(
        "job.gradient.clip_norm",
        Number(Interval::closed(0.0, LARGE)),
        Default("0"),
        "limit of the L2 norm of the mean gradient, 0 is off",
    ),
    key(
        "job.gradient.codec",
        Choice(&["none", "fp16", "bf16", "int8", "top-k"]),
        Default("none"),
        "how a slot's gradient is written to the wire",
    ),
    key(
        "job.gradient.top_k",
        Number(Interval::above(0.0, 1.0)),
        Default("0.01"),
        "top-k: part of the parameters that a push carries",
    ),
    // A shard is an actor with a thread of its own; more than this on a cluster is a typing error.
    key(
        "servers.shards",
        Integer { min: 1, max: 1024 },
        Default("1"),
        "parts that the parameters are cut into, spread over the servers",
    ),
    key(
        "servers.replicas",
        Integer { min: 0, max: 8 },
        Default("1"),
        "copies of each part beside its primary, each on another server, as far as there are any",
    ),
    // A worker beyond the slots of a step would never have any work.
    key(
        "workers.count",
        Integer { min: 1, max: MAX_VIRTUAL_WORKERS as u64 },
        Default("2"),
        "workers of the cluster, any number gives the same bits",
    ),
    key(
        "workers.rebalance",
        Switch,
        Default("true"),
        "slots move from slow workers to fast ones where steps get shorter by a fifth",
    ),
    key(
        "checkpoint.store",
        Path,
        Default("gradmesh-data/checkpoints"),
        "folder of the checkpoints, relative to this file",
    ),
    key(
        "checkpoint.every_steps",
        Integer { min: 1, max: STEPS_MAX },
        Default("200"),
        "steps between two checkpoints",
    ),
    key(
        "checkpoint.keep",
        Integer { min: 1, max: 1000 },
        Default("2"),
        "newest checkpoints that are kept, 2 survive one that is damaged",
    ),
    key(
        "coordination.store",
        Path,
        Default("gradmesh-data/coordination"),
        "who leads and which view holds: a folder that all coordinators reach, or etcd://host:port,host:port/prefix",
    ),
    // Below, a busy disk would look like a dead leader; above, nobody would wait for a successor.
    key(
        "coordination.lease_ms",
        Integer { min: 100, max: 60_000 },
        Default("1000"),
        "milliseconds that a coordinator leads without a renewal, of which there are four in it, two where no other can lead",
    ),
    key(
        "registry.store",
        Path,
        Default("gradmesh-data/registry"),
        "folder of the published versions, relative to this file",
    ),
    key(
        "registry.keep",
        Integer { min: 0, max: 1_000_000 }, // a log of more is read for seconds
        Default("0"),
        "newest versions of a model that are kept, beside those that an alias or a route names, 0 keeps all",
    ),
    key(
        "service.listen",
        Address,
        Default("127.0.0.1:8080"),
        "where the HTTP service listens, port 0 takes a free one",
    ),
    key(
        "service.grpc_listen",
        Address,
        Unset,
        "where the same service listens for gRPC, nowhere if it is empty",
    ),
    key(
        "service.model_control",
        Switch,
        Default("false"),
        "whether whoever reaches the service may unload models and load them again",
    ),
    key(
        "service.registry_writes",
        Switch,
        Default("false"),
        "whether whoever reaches the service may register, describe, tag, alias and delete models and versions",
    ),
    key(
        "service.keys",
        Path,
        Unset,
        "file with the keys of callers, relative to this one, whoever reaches the service needs none if it is empty",
    ),
    // As many as a key may have, and as all queues together never hold.
    key(
        "service.model_requests",
        Integer { min: 0, max: 65_536 },
        Default("0"),
        "predictions of one model at a time, more are refused, 0 is only what service.queue refuses",
    ),
    // More rows than a body has are never together; one row at a time is no batch.
    key(
        "service.batch_rows",
        Integer { min: 1, max: 1 << 20 },
        Default("256"),
        "rows that a model is asked for at once, of requests that wait together",
    ),
    // A minute is six times as long as a caller waits.
    key(
        "service.batch_wait_ms",
        Integer { min: 0, max: 60_000 },
        Default("0"),
        "milliseconds that a request waits for others, 0 is only while the model is busy",
    ),
    // Those of all models together have a limit of 8192.
    key(
        "service.queue",
        Integer { min: 1, max: 8192 },
        Default("512"),
        "requests that wait for one version of a model, more are refused",
    ),
    // Each has a thread.
    key(
        "service.instances",
        Integer { min: 1, max: 256 },
        Default("1"),
        "threads for models that take longer than a millisecond, others run where requests are read",
    ),
    key(
        "service.follow",
        Choice(&["published", "job"]),
        Default("published"),
        "what the newest version of a model is: the one that was published last, or the newest checkpoint of the job while it runs",
    ),
    // A petabyte is beyond all machines.
    key(
        "service.memory_mb",
        Integer { min: 1, max: 1 << 30 },
        Default("4096"),
        "megabytes of all models in memory, those that are worth least leave for others",
    ),
    // Faster than 10 ms, heartbeats cost more than steps; slower than a minute, nobody is watched. Below the
    // 200 ms after which TCP sends again what nothing follows: the next one tells it of a loss before.
    key(
        "detector.heartbeat_ms",
        Integer { min: 10, max: 60_000 },
        Default("150"),
        "milliseconds between two heartbeats",
    ),
    key(
        "detector.dead_after_ms",
        Integer { min: 30, max: 600_000 },
        Default("1200"),
        "milliseconds of silence after which a node counts as dead, at least 3 heartbeats",
    ),
    key(
        "supervisor.restarts_max",
        Integer { min: 0, max: 1000 },
        Default("10"),
        "restarts of one actor within the window before its node gives up",
    ),
    key(
        "supervisor.window_seconds",
        Integer { min: 1, max: 86_400 },
        Default("60"),
        "seconds over which restarts are counted",
    ),
    key(
        "supervisor.backoff_ms",
        Integer { min: 1, max: 60_000 },
        Default("50"),
        "milliseconds before the first restart, doubled with each one in the window",
    ),
];

/// The keys of one `[[nodes]]` entry.
pub(super) const NODE_KEYS: &[Key] = &[
    key("nodes.name", Name, Required, "name of the node, no two are the same"),
    key(
        "nodes.address",
        Address,
        Required,
        "where the node listens for the others, no two are the same and no port is 0",
    ),
    key("nodes.roles", Choices(ROLES), Required, "what the node runs"),
    key(
        "nodes.listen",
        Address,
        Unset,
        "role service: where this node answers HTTP, if not on service.listen",
    ),
    key(
        "nodes.grpc_listen",
        Address,
        Unset,
        "role service: where this node answers gRPC, if not on service.grpc_listen",
    ),
];

const ROLES: &[&str] = &["coordinator", "server", "worker", "registry", "service"];

const fn key(path: &'static str, kind: Kind, default: Fallback, doc: &'static str) -> Key {
    Key { path, kind, default, doc }
}

#[cfg(test)]
mod tests;
