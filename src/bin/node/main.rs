//! `node`: trains on a cluster, publishes and serves, from one `cluster.toml`.

mod addresses;
mod answer;
mod args;
#[cfg(feature = "sim")]
mod bench;
#[cfg(feature = "sim")]
mod chaos;
mod check;
#[cfg(feature = "sim")]
mod demo;
mod drain;
mod failure;
mod http_status;
mod import;
mod keys;
mod log;
mod models;
mod predict;
mod run;
#[cfg(feature = "sim")]
mod simulate;
mod status;
mod summary;
#[cfg(feature = "sim")]
mod temporary;
mod up;

use std::process::ExitCode;

use args::{Args, Command};
use failure::Failure;
use mimalloc::MiMalloc;

/// Each message is some small allocations, which this one has ready where the system's searches.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    without_huge_pages();
    let args = Args::read();
    let failure = Failure::new(&args);
    let done = log::init(&args.log).and_then(|()| run(args));
    done.unwrap_or_else(|error| failure.tell(&error))
}

/// The allocator asks for huge pages, and a process that needs 10 MB then has 27. Nothing that was
/// measured is slower without them, and a model's first step comes earlier.
fn without_huge_pages() {
    // A kernel that refuses it costs memory, nothing else.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_thp_disable(true);
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let serve = Command::Run { name: None, fresh: false, until_stdin_ends: false };
    let command = args.command.clone().unwrap_or(serve);
    if let Command::Check { keys } = command {
        return check::check(&args, keys);
    }
    let config = args.config()?;
    #[cfg(feature = "sim")]
    if let Command::Simulate { seeds, from, seed, faults, steps, limit } = command {
        let limit = std::time::Duration::from_millis(limit.0);
        let wanted = simulate::Wanted { seeds, from, seed, faults, steps, limit };
        return simulate::simulate(config, &args.config, wanted, args.json);
    }
    let system = actix_rt::System::new();
    system.block_on(async move {
        match command {
            Command::Run { name, fresh, until_stdin_ends } => {
                if until_stdin_ends {
                    run::continue_without_parent();
                }
                let ends = run::ended(until_stdin_ends);
                run::serve(config, name, fresh, args.json, ends).await
            }
            Command::Train { fresh } => run::train(config, fresh, args.json).await,
            Command::Up { train, fresh } => up::up(&args, config, train, fresh).await,
            #[cfg(feature = "sim")]
            Command::Chaos { plan, limit, kills, roles, seed, every } => {
                let limit = std::time::Duration::from_millis(limit.0);
                if plan.as_os_str() != "random" {
                    return chaos::chaos(config, &plan, limit, args.json).await;
                }
                let roles = roles.into_iter().map(Into::into).collect();
                let every = std::time::Duration::from_millis(every.0);
                let random = chaos::random::Random { kills, roles, seed, every };
                chaos::random_rounds(config, random, limit, args.json).await
            }
            #[cfg(feature = "sim")]
            Command::Demo { lasts, every, seed, roles, epochs } => {
                let lasts = std::time::Duration::from_millis(lasts.0);
                let every = std::time::Duration::from_millis(every.0);
                let roles = roles.into_iter().map(Into::into).collect();
                let wanted = demo::Wanted { lasts, every, seed, roles, epochs };
                demo::demo(config, wanted, args.json).await
            }
            #[cfg(feature = "sim")]
            Command::Bench { quick, rounds, only, serve, requests, pushes } => {
                let only = if serve { Some(bench::Part::Serving) } else { only };
                let wanted = bench::Wanted { quick, rounds: rounds.get(), only, requests, pushes };
                bench::bench(config, wanted, args.json).await
            }
            Command::Drain { node, back } => drain::drain(config, &node, back, args.json).await,
            Command::Status => status::status(config, args.json).await,
            Command::Models(command) => models::models(config, command, args.json).await,
            Command::Keys(command) => keys::keys(&config, command, args.json),
            Command::Predict { model, input, version } => {
                predict::predict(config, &model, &version, &input, args.json).await
            }
            Command::Check { .. } => Ok(ExitCode::SUCCESS),
            #[cfg(feature = "sim")]
            Command::Simulate { .. } => Ok(ExitCode::SUCCESS),
        }
    })
}
