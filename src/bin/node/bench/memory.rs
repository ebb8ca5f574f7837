//! Memory of this process while its service answers a great many requests: it is flat, or something
//! is left behind by each of them.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use comfy_table::{Table, presets};
use gradmesh::config::Config;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::error;

use super::load::{Client, on_own_thread};
use super::serving::{Served, row};
use super::{progress, requests};

const CONNECTIONS: usize = 64;
/// A connection is closed and made anew after so many requests: what it leaves behind counts too.
const REQUESTS_OF_A_CONNECTION: u64 = 1000;
/// One of so many requests is wrong, and refused.
const WRONG_EACH: u64 = 16;

/// How often memory is looked at.
const LOOKS: u64 = 1000;
/// In percent of the requests. Memory at a mark is the least of the twentieth before it: what the
/// allocator holds ready goes up and down, and what is left behind stays.
const MARKS: [u64; 3] = [10, 50, 100];
/// Bytes by which memory may grow from the second mark to the last. The least that a request can
/// leave behind is an allocation of 16 bytes, in half of a million 8 MB; what the allocator had more
/// or less by turns, in a run of four million that ended where it began, was below this.
/// With fewer requests only larger leaks show, with more also smaller ones.
const GROWTH_MAX: u64 = 7_500_000;

/// What came of it: each answer was the one that was expected.
#[derive(Debug)]
pub(super) struct Memory {
    requests: u64,
    refused: u64,
    connections: u64,
    took: Duration,
    /// Resident bytes at each of the marks.
    resident: [u64; 3],
}

pub(super) async fn memory(
    config: &Config,
    requests: u64,
    folder: &Path,
) -> anyhow::Result<Memory> {
    // Before anything is measured: not every system tells.
    resident()?;
    let served = Served::start(config, &folder.join("serving")).await?;
    let address = served.address()?;
    let bar = progress(requests);
    let shown = bar.clone();
    let memory = on_own_thread(move || ask(address, requests, shown));
    let memory = memory.await.context("the load generator panicked")?;
    bar.finish_and_clear();
    served.stop().await;
    memory
}

/// How far all connections together are.
struct Course {
    requests: u64,
    begun: Cell<u64>,
    answered: Cell<u64>,
    refused: Cell<u64>,
    connections: Cell<u64>,
    /// At each of the marks, as far as it was looked at.
    resident: [Cell<u64>; 3],
    bar: ProgressBar,
}

async fn ask(address: SocketAddr, requests: u64, bar: ProgressBar) -> anyhow::Result<Memory> {
    let (row, started) = (row(), Instant::now());
    let good = [requests::json(&row), requests::binary(&row)];
    // A row that is too short for the model.
    let wrong = requests::json(&row[1..]);
    let course = Rc::new(Course {
        requests,
        begun: Cell::default(),
        answered: Cell::default(),
        refused: Cell::default(),
        connections: Cell::default(),
        resident: MARKS.map(|_| Cell::new(u64::MAX)),
        bar,
    });
    let clients = (0..CONNECTIONS).map(|_| {
        let (course, good, wrong) = (course.clone(), good.clone(), wrong.clone());
        tokio::task::spawn_local(async move { course.run(address, &good, &wrong).await })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(Memory {
        requests,
        refused: course.refused.get(),
        connections: course.connections.get(),
        took: started.elapsed(),
        resident: course.resident.each_ref().map(Cell::get),
    })
}

impl Course {
    /// On one connection after the other, until there are requests enough.
    async fn run(
        &self,
        address: SocketAddr,
        good: &[Bytes; 2],
        wrong: &Bytes,
    ) -> anyhow::Result<()> {
        while self.begun.get() < self.requests {
            let mut client = Client::connect(address).await?;
            self.connections.set(self.connections.get() + 1);
            for _ in 0..REQUESTS_OF_A_CONNECTION {
                let at = self.begun.get();
                if at == self.requests {
                    break;
                }
                self.begun.set(at + 1);
                let is_wrong = at % WRONG_EACH == WRONG_EACH - 1;
                let request = if is_wrong { wrong } else { &good[usize::from(at % 2 == 1)] };
                let (status, body) = client.exchange(request).await?;
                let expected = if is_wrong { 400 } else { 200 };
                if status != expected {
                    let body = String::from_utf8_lossy(&body);
                    bail!("request {at} was answered with {status}, not {expected}: {body}");
                }
                self.count(is_wrong)?;
            }
        }
        Ok(())
    }

    fn count(&self, is_wrong: bool) -> anyhow::Result<()> {
        let answered = self.answered.get() + 1;
        self.answered.set(answered);
        self.refused.set(self.refused.get() + u64::from(is_wrong));
        if answered.is_multiple_of(self.requests / LOOKS) {
            self.bar.set_position(answered);
            let bytes = resident()?;
            for (percent, least) in std::iter::zip(MARKS, &self.resident) {
                let mark = self.requests * percent / 100;
                if answered <= mark && answered + self.requests / 20 > mark {
                    least.set(least.get().min(bytes));
                }
            }
        }
        Ok(())
    }
}

impl Memory {
    /// By how much memory grew in the second half.
    fn growth(&self) -> u64 {
        self.resident[2].saturating_sub(self.resident[1])
    }

    fn is_flat(&self) -> bool {
        self.growth() <= GROWTH_MAX
    }

    fn to_json(&self) -> Value {
        json!({
            "requests": self.requests,
            "refused": self.refused,
            "connections": self.connections,
            "seconds": self.took.as_secs_f64(),
            "at_percent": MARKS,
            "resident_bytes": self.resident,
            "second_half_grew_bytes": self.growth(),
            "second_half_grew_bytes_max": GROWTH_MAX,
            "flat": self.is_flat(),
        })
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let Self { requests, refused, connections, took, resident } = self;
        let seconds = took.as_secs_f64();
        let rate = *requests as f64 / seconds / 1000.0;
        let asked = format!("{requests} in {seconds:.1} s, {rate:.1} k/s, {refused} of them wrong");
        table.add_row(["requests".to_owned(), asked]);
        table.add_row(["connections".to_owned(), connections.to_string()]);
        for (percent, bytes) in std::iter::zip(MARKS, resident) {
            table.add_row([format!("resident at {percent} %"), megabytes(*bytes)]);
        }
        let (grew, most) = (megabytes(self.growth()), megabytes(GROWTH_MAX));
        let verdict = if self.is_flat() { "flat" } else { "not flat" };
        let verdict = format!("{verdict}: the second half grew by {grew}, {most} are allowed");
        table.add_row(["memory".to_owned(), verdict]);
        table
    }

    pub(super) fn show(&self, json: bool) -> anyhow::Result<ExitCode> {
        if json {
            crate::answer::line(self.to_json())?;
        } else {
            crate::answer::line(self.table())?;
        }
        if self.is_flat() {
            return Ok(ExitCode::SUCCESS);
        }
        error!(grew = self.growth(), at_most = GROWTH_MAX, "memory of the service is not flat");
        Ok(ExitCode::FAILURE)
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Bytes of this process in memory.
fn resident() -> anyhow::Result<u64> {
    const FILE: &str = "/proc/self/status";
    let text = std::fs::read_to_string(FILE)
        .with_context(|| format!("{FILE} can't be read; --requests needs Linux"))?;
    resident_in(&text).with_context(|| format!("{FILE} has no VmRSS; --requests needs Linux"))
}

fn resident_in(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(resident: [u64; 3]) -> Memory {
        let took = Duration::from_secs(2);
        Memory { requests: 100_000, refused: 6250, connections: 128, took, resident }
    }

    #[test]
    fn memory_that_grows_in_the_second_half_is_not_flat_whatever_the_first_half_took() {
        assert!(memory([1 << 20, 1 << 30, (1 << 30) + GROWTH_MAX]).is_flat());
        assert!(memory([1 << 30, 1 << 30, 1 << 20]).is_flat());
        let grown = memory([1 << 30, 1 << 30, (1 << 30) + GROWTH_MAX + 1]);
        assert_eq!((grown.is_flat(), grown.growth()), (false, GROWTH_MAX + 1));
        assert_eq!(grown.to_json()["flat"], false);
        let table = grown.table().to_string();
        assert!(table.contains("100000 in 2.0 s, 50.0 k/s, 6250 of them wrong"), "{table}");
        assert!(table.contains("not flat: the second half grew by 7.5 MB"), "{table}");
    }

    #[test]
    fn resident_memory_is_the_line_of_that_name() {
        let status = "Name:\tnode\nVmHWM:\t  999 kB\nVmRSS:\t  124 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident_in(status), Some(124 << 10));
        assert_eq!(resident_in("Name:\tnode\n"), None);
    }
}
