//! The command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use gradmesh::config::{Config, environment};

/// Trains on a cluster of actors, publishes the model and serves it.
#[derive(Clone, Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Args {
    /// The cluster's configuration.
    #[arg(long, global = true, default_value = "cluster.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Overrides a key, for example job.seed=7; may be repeated. Environment variables
    /// GRADMESH__JOB__SEED=7 do the same and come before.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// What is logged: error, warn, info, debug, trace, or a filter; "json:" before it for JSON.
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "FILTER",
        env = "GRADMESH_LOG"
    )]
    pub(crate) log: String,
    /// Answers as one JSON value on standard output, failures as {"error": "…"}.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Trains, publishes, then serves until Ctrl-C (what `node` alone does).
    Run {
        /// Where the configuration names nodes: which of them this process is.
        #[arg(long)]
        name: Option<String>,
        /// Drops an unfinished run's checkpoints and starts anew.
        #[arg(long)]
        fresh: bool,
        /// Ends with whoever holds the other end of standard input, however that one dies.
        #[arg(long, hide = true)]
        until_stdin_ends: bool,
    },
    /// Trains, publishes, exits.
    Train {
        /// Drops an unfinished run's checkpoints and starts anew.
        #[arg(long)]
        fresh: bool,
    },
    /// Starts each node of the configuration as a process of its own on this machine.
    Up {
        /// Exits when the model is published.
        #[arg(long)]
        train: bool,
        /// Drops an unfinished run's checkpoints and starts anew.
        #[arg(long)]
        fresh: bool,
    },
    /// Trains this cluster in a simulation, on one thread a seed, under faults; each seed must come
    /// to the digest of a run without any.
    ///
    /// Ends with 1 where a seed fails: tells the story, and writes the few faults that are enough as
    /// a plan on standard output.
    #[cfg(feature = "sim")]
    Simulate {
        /// How many.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first one.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Only this one, with its timeline.
        #[arg(long, conflicts_with_all = ["seeds", "from"])]
        seed: Option<u64>,
        /// "swarm": each seed draws its own; or a file with a plan.
        #[arg(long, value_name = "swarm|FILE", default_value = "swarm")]
        faults: String,
        /// Steps of the job, which is shortened to its first rows; 0 for all of it.
        #[arg(long, default_value_t = 60)]
        steps: u64,
        /// A seed that has not trained after this simulated time has failed.
        #[arg(long = "for", value_name = "TIME", default_value = "600s")]
        limit: gradmesh::sim::Time,
    },
    /// Trains on real processes under a fault plan, and compares the digest with a calm run's.
    ///
    /// Each node is a process on this machine, and each way between two a proxy. Stores and logs are
    /// in a temporary folder. SIGKILL, SIGTERM, SIGSTOP and SIGCONT, blocked, late, lost, doubled and
    /// overtaken messages, flipped bits; a failing or slow disk, a wrong clock and a panic are left out.
    /// Ends with 1 where the digest is another one, nothing is trained in time, or no fault began.
    ///
    /// With `random` for a plan the job is trained again and again while nodes are killed and paused
    /// at random instants, sometimes two at once, until --kills processes were killed.
    #[cfg(feature = "sim")]
    Chaos {
        /// TOML, a table `[[faults]]` for each, as `node simulate` writes it.
        #[arg(value_name = "random|FILE")]
        plan: PathBuf,
        /// Gives a run up after this time, for example 60s.
        #[arg(long = "for", value_name = "TIME", default_value = "60s")]
        limit: gradmesh::sim::Time,
        /// random: ends when so many processes were killed.
        #[arg(long, default_value_t = 100)]
        kills: usize,
        /// random: hits only nodes that have this role; may be repeated.
        #[arg(long = "role", value_enum, value_name = "ROLE")]
        roles: Vec<RoleArg>,
        /// random: draws when what is hit.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// random: between two instants, on average.
        #[arg(long, value_name = "TIME", default_value = "500ms")]
        every: gradmesh::sim::Time,
    },
    /// The demonstration: trains on a cluster of processes of which one is killed every two seconds,
    /// while it serves; the digest and each answer must be those of a calm run.
    ///
    /// A cluster of its own on loopback in a temporary folder: 2 coordinators, 3 servers (each shard
    /// has a replica), 3 workers, 2 registries, 2 services. `[[nodes]]` of the configuration are
    /// left out, its job is trained for as many epochs as take about --for. Ends with 1 where the
    /// digest is another one or a prediction failed.
    #[cfg(feature = "sim")]
    Demo {
        /// How long processes are killed, about.
        #[arg(long = "for", value_name = "TIME", default_value = "30s")]
        lasts: gradmesh::sim::Time,
        /// Between two kills.
        #[arg(long, value_name = "TIME", default_value = "2s")]
        every: gradmesh::sim::Time,
        /// Draws who is killed; another one each time where it is left out.
        #[arg(long)]
        seed: Option<u64>,
        /// Kills only nodes of this role; may be repeated.
        #[arg(long = "role", value_enum, value_name = "ROLE")]
        roles: Vec<RoleArg>,
        /// Trains for so many epochs, however long that takes.
        #[arg(long)]
        epochs: Option<u64>,
    },
    /// Checks the configuration and names every problem.
    Check {
        /// Lists all keys with their types, ranges and defaults.
        #[arg(long)]
        keys: bool,
    },
    /// Measures this machine's limits and gradmesh beside them, and prints their ratios.
    ///
    /// Exchanges between two processes beside TCP, the server's work beside memory, training beside
    /// the same loop without actors and beside matrix products, the HTTP service beside a bare
    /// handler. On the data set of the configuration. Only ratios mean something, and only on a machine that does nothing else.
    #[cfg(feature = "sim")]
    Bench {
        /// Measures each once and short, to see that it works.
        #[arg(long)]
        quick: bool,
        /// How often all is measured; the median of each counts.
        #[arg(long, default_value = "5", value_name = "N")]
        rounds: std::num::NonZeroUsize,
        /// Measures one part alone.
        #[arg(long, value_enum, value_name = "PART")]
        only: Option<crate::bench::Part>,
        /// Measures serving alone, as `--only serving`.
        #[arg(long, conflicts_with = "only")]
        serve: bool,
        /// Sends so many requests to the service and prints the memory of this process; ends with 1
        /// where it still grows in the second half of them.
        #[arg(
            long,
            value_name = "N",
            requires = "serve",
            conflicts_with_all = ["quick", "rounds"],
            value_parser = clap::value_parser!(u64).range(1000..)
        )]
        requests: Option<u64>,
        /// Makes so many pushes of 4 KiB to a server process and prints the memory of both sides; ends
        /// with 1 where it still grows in the second half of them.
        #[arg(
            long,
            value_name = "N",
            conflicts_with_all = ["quick", "rounds", "only", "serve"],
            value_parser = clap::value_parser!(u64).range(1000..)
        )]
        pushes: Option<u64>,
    },
    /// How far the run of a started cluster, or of a started `node run`, is.
    Status,
    /// Takes a node's servers and workers out of the run while it goes on, and waits until they have
    /// nothing left: then it can be stopped without a loss.
    ///
    /// Others take over what it has: copies of shards when they have been filled, slots at once, or
    /// at the next checkpoint where residuals stay with them. The node stays out, also when it is
    /// started again, until it is called back. Asking again is safe, and so is Ctrl-C: the node goes
    /// on leaving. Ends with 1 where nobody alive would stay to do its work.
    Drain {
        /// A name from the file's `nodes` tables.
        #[arg(value_name = "NODE")]
        node: String,
        /// Lets it take part again.
        #[arg(long)]
        back: bool,
    },
    /// The registry's models and versions.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// The keys of those who may ask the service.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Predicts rows of a CSV or JSON file with a version of the registry.
    Predict {
        model: String,
        /// CSV without header, a row a line; or a JSON array of rows. Plain or gzip; - is standard
        /// input.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// A number, an alias, or latest.
        #[arg(long, default_value = "latest")]
        version: String,
    },
}

/// A role on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum RoleArg {
    Coordinator,
    Server,
    Worker,
    Registry,
    Service,
}

impl From<RoleArg> for gradmesh::config::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Coordinator => Self::Coordinator,
            RoleArg::Server => Self::Server,
            RoleArg::Worker => Self::Worker,
            RoleArg::Registry => Self::Registry,
            RoleArg::Service => Self::Service,
        }
    }
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// All models, or the versions of one.
    List { model: Option<String> },
    /// The description of a version (default: the latest).
    Show { model: String, version: Option<String> },
    /// Names a version, for example `alias digits production 3`.
    Alias {
        model: String,
        alias: String,
        #[arg(required_unless_present = "remove", conflicts_with = "remove")]
        version: Option<String>,
        /// Takes the name away.
        #[arg(long)]
        remove: bool,
    },
    /// Splits the requests that name no version, for example `route digits production=95 7=5`.
    ///
    /// Versions are numbers, aliases or `latest`, weights count in proportion. Requests with the same
    /// parameter `routing_key` get the same version. Without any version, requests go to the latest.
    Route {
        model: String,
        #[arg(value_name = "VERSION=WEIGHT")]
        splits: Vec<String>,
        /// Is asked the same, behind all others; its answers are compared and dropped.
        #[arg(long, value_name = "VERSION", requires = "splits")]
        shadow: Option<String>,
    },
    /// Publishes a model that was not trained here: an ONNX file (`.onnx`), a pipeline of published models
    /// (`.toml`, as `examples/emoji/pipeline.toml`), a folder with a text-embedding model (`config.json`,
    /// `tokenizer.json`, `model.safetensors`), or one with a version of another registry
    /// (`description.json` and its file).
    Import {
        path: PathBuf,
        /// What it is called here.
        #[arg(long, value_name = "NAME")]
        model: String,
    },
    /// Removes a version for good; its number is not used again.
    Delete { model: String, version: String },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes a key and prints it, once: the file of service.keys gets its BLAKE3 alone. Services that run
    /// know it within two seconds; a key is taken back by taking its entry out of the file.
    Add {
        /// Whose it is.
        name: String,
        /// A model that it may ask; "emoji-*" is all that begin so. May be repeated. All without any.
        #[arg(long = "model", value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
        models: Vec<String>,
        /// Predictions at a time.
        #[arg(long, default_value_t = 512, value_name = "N")]
        requests: usize,
        /// It may change the registry, where service.registry_writes is on.
        #[arg(long)]
        registry_writes: bool,
        /// It may load and unload models, where service.model_control is on.
        #[arg(long)]
        model_control: bool,
    },
}

impl Args {
    /// As [`Parser::parse`], with every `--set` in its order: where some stand before the command
    /// and some behind it, clap keeps the latter only.
    pub(crate) fn read() -> Self {
        let mut args = Self::parse();
        args.set = sets(std::env::args_os().filter_map(|word| word.into_string().ok()));
        args
    }

    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        Config::load(&self.config, &self.set, environment()).context("configuration")
    }
}

/// The values of `--set` in a command line that clap has accepted.
fn sets(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut sets = Vec::new();
    let mut is_value = false;
    for word in words {
        if is_value {
            sets.push(word);
            is_value = false;
        } else if let Some(set) = word.strip_prefix("--set=") {
            sets.push(set.to_owned());
        } else {
            is_value = word == "--set";
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_before_and_behind_the_command_all_count_in_their_order() {
        let line = "node --set a=1 --json train --set=b=2 --fresh --set a=3";
        assert_eq!(sets(line.split(' ').map(str::to_owned)), ["a=1", "b=2", "a=3"]);
    }
}
