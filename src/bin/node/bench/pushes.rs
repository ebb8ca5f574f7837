//! Memory of a server's process, and of its worker's, while a great many pushes are made.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{Table, presets};
use gradmesh::config::Config;
use tokio::time::Instant;

use super::exchange::{SMALL, Server};
use super::progress;
use super::resident::{LOOKS, Resident, own_process, resident};

/// What came of it.
#[derive(Debug)]
pub(super) struct Pushes {
    pushes: u64,
    took: Duration,
    server: Resident,
    worker: Resident,
}

/// Makes so many pushes of 4 KiB, each after the answer to the one before.
pub(super) async fn pushes(config: &Config, pushes: u64, folder: &Path) -> anyhow::Result<Pushes> {
    let mut server = Server::start(config, folder, SMALL, false).await?;
    let (here, there) = (own_process(), server.process()?);
    let (mut of_server, mut of_worker) = (Resident::default(), Resident::default());
    let (started, bar) = (Instant::now(), progress(pushes));
    let (mut done, each) = (0, (pushes / LOOKS).max(1));
    while done < pushes {
        let next = each.min(pushes - done);
        server.measure(usize::try_from(next)?, Duration::ZERO).await?;
        done += next;
        bar.set_position(done);
        of_server.see(done, pushes, resident(there)?);
        of_worker.see(done, pushes, resident(here)?);
    }
    bar.finish_and_clear();
    Ok(Pushes { pushes, took: started.elapsed(), server: of_server, worker: of_worker })
}

impl Pushes {
    pub(super) fn show(&self, json: bool) -> anyhow::Result<ExitCode> {
        let Self { pushes, took, server, worker } = self;
        let seconds = took.as_secs_f64();
        if json {
            crate::answer::line(serde_json::json!({
                "pushes": pushes,
                "seconds": seconds,
                "server": server.to_json(),
                "worker": worker.to_json(),
            }))?;
        } else {
            let mut table = Table::new();
            table.load_preset(presets::UTF8_BORDERS_ONLY);
            let rate = *pushes as f64 / seconds / 1000.0;
            let made = format!("{pushes} of 4 KiB in {seconds:.1} s, {rate:.1} k/s");
            table.add_row(["pushes".to_owned(), made]);
            for (name, of) in [("server", server), ("worker", worker)] {
                table.add_row([name, ""]);
                of.add_to(&mut table);
            }
            crate::answer::line(table)?;
        }
        let verdicts = [server.verdict("the server"), worker.verdict("the worker")];
        let flat = verdicts.iter().all(|verdict| *verdict == ExitCode::SUCCESS);
        Ok(if flat { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
