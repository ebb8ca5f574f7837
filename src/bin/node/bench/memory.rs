//! Memory of this process while its service answers a great many requests: it is flat, or something
//! is left behind by each of them.

use std::cell::{Cell, RefCell};
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
use serde_json::Value;
use tokio::time::Instant;

use super::load::{Client, on_own_thread};
use super::resident::{LOOKS, Resident, own_process, resident};
use super::serving::{Served, row};
use super::{progress, requests};

const CONNECTIONS: usize = 64;
/// A connection is closed and made anew after so many requests: what it leaves behind counts too.
const REQUESTS_OF_A_CONNECTION: u64 = 1000;
/// One of so many requests is wrong, and refused.
const WRONG_EACH: u64 = 16;

/// What came of it: each answer was the one that was expected.
#[derive(Debug)]
pub(super) struct Memory {
    requests: u64,
    refused: u64,
    connections: u64,
    took: Duration,
    resident: Resident,
}

pub(super) async fn memory(
    config: &Config,
    requests: u64,
    folder: &Path,
) -> anyhow::Result<Memory> {
    let process = own_process();
    // Before anything is measured: not every system tells.
    resident(process)?;
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
    resident: RefCell<Resident>,
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
        resident: RefCell::default(),
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
        resident: course.resident.borrow().clone(),
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
            let bytes = resident(own_process())?;
            self.resident.borrow_mut().see(answered, self.requests, bytes);
        }
        Ok(())
    }
}

impl Memory {
    fn to_json(&self) -> Value {
        let mut value = self.resident.to_json();
        value["requests"] = self.requests.into();
        value["refused"] = self.refused.into();
        value["connections"] = self.connections.into();
        value["seconds"] = self.took.as_secs_f64().into();
        value
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
        resident.add_to(&mut table);
        table
    }

    pub(super) fn show(&self, json: bool) -> anyhow::Result<ExitCode> {
        if json {
            crate::answer::line(self.to_json())?;
        } else {
            crate::answer::line(self.table())?;
        }
        Ok(self.resident.verdict("the service"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_how_many_were_asked_and_whether_memory_is_flat() {
        let (took, resident) = (Duration::from_secs(2), Resident::default());
        let memory = Memory { requests: 100_000, refused: 6250, connections: 128, took, resident };
        let table = memory.table().to_string();
        assert!(table.contains("100000 in 2.0 s, 50.0 k/s, 6250 of them wrong"), "{table}");
        assert!(table.contains("flat: the second half grew by 0.0 MB"), "{table}");
        assert_eq!(memory.to_json()["flat"], true);
    }
}
