//! Memory of a process that does the same a great many times: it is flat, or something is left behind
//! each time.

use std::process::ExitCode;

use anyhow::Context;
use comfy_table::Table;
use serde_json::{Value, json};
use tracing::error;

/// How often memory is looked at.
pub(super) const LOOKS: u64 = 1000;
/// In percent of the whole. Memory at a mark is the least of the twentieth before it: what the
/// allocator holds ready goes up and down, and what is left behind stays.
const MARKS: [u64; 3] = [10, 50, 100];
/// Bytes by which memory may grow from the second mark to the last. The least that a request can
/// leave behind is an allocation of 16 bytes, in half of a million 8 MB; what the allocator had more
/// or less by turns, in a run of four million that ended where it began, was below this.
/// With fewer requests only larger leaks show, with more also smaller ones.
const GROWTH_MAX: u64 = 7_500_000;

/// Resident bytes at each of the marks, as far as it was looked at.
#[derive(Clone, Debug)]
pub(super) struct Resident([u64; 3]);

impl Default for Resident {
    fn default() -> Self {
        Self([u64::MAX; 3])
    }
}

impl Resident {
    /// The process had so many bytes when so many `of` all were done.
    pub(super) fn see(&mut self, done: u64, of: u64, bytes: u64) {
        for (percent, least) in std::iter::zip(MARKS, &mut self.0) {
            let mark = of * percent / 100;
            if done <= mark && done + of / 20 > mark {
                *least = bytes.min(*least);
            }
        }
    }

    /// By how much memory grew in the second half.
    fn growth(&self) -> u64 {
        self.0[2].saturating_sub(self.0[1])
    }

    fn is_flat(&self) -> bool {
        self.growth() <= GROWTH_MAX
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "at_percent": MARKS,
            "resident_bytes": self.0,
            "second_half_grew_bytes": self.growth(),
            "second_half_grew_bytes_max": GROWTH_MAX,
            "flat": self.is_flat(),
        })
    }

    pub(super) fn add_to(&self, table: &mut Table) {
        for (percent, bytes) in std::iter::zip(MARKS, self.0) {
            table.add_row([format!("resident at {percent} %"), megabytes(bytes)]);
        }
        let (grew, most) = (megabytes(self.growth()), megabytes(GROWTH_MAX));
        let verdict = if self.is_flat() { "flat" } else { "not flat" };
        let verdict = format!("{verdict}: the second half grew by {grew}, {most} are allowed");
        table.add_row(["memory".to_owned(), verdict]);
    }

    pub(super) fn verdict(&self, of: &str) -> ExitCode {
        if self.is_flat() {
            return ExitCode::SUCCESS;
        }
        error!(grew = self.growth(), at_most = GROWTH_MAX, "memory of {of} is not flat");
        ExitCode::FAILURE
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[expect(clippy::disallowed_methods, reason = "whose memory is looked at")]
pub(super) fn own_process() -> u32 {
    std::process::id()
}

/// Bytes of a process in memory.
pub(super) fn resident(process: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{file} can't be read; --requests and --pushes need Linux"))?;
    resident_in(&text).with_context(|| format!("{file} has no VmRSS"))
}

fn resident_in(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_in_the_second_half_is_not_flat_whatever_the_first_half_took() {
        assert!(Resident([1 << 20, 1 << 30, (1 << 30) + GROWTH_MAX]).is_flat());
        assert!(Resident([1 << 30, 1 << 30, 1 << 20]).is_flat());
        let grown = Resident([1 << 30, 1 << 30, (1 << 30) + GROWTH_MAX + 1]);
        assert_eq!((grown.is_flat(), grown.growth()), (false, GROWTH_MAX + 1));
        assert_eq!(grown.to_json()["flat"], false);
        let mut table = Table::new();
        grown.add_to(&mut table);
        let table = table.to_string();
        assert!(table.contains("not flat: the second half grew by 7.5 MB"), "{table}");
    }

    #[test]
    fn memory_at_a_mark_is_the_least_of_the_twentieth_before_it() {
        let mut seen = Resident::default();
        for (done, bytes) in [(5, 1), (6, 9), (10, 7), (11, 2), (46, 5), (50, 6), (95, 1), (100, 3)]
        {
            seen.see(done, 100, bytes);
        }
        assert_eq!(seen.0, [7, 5, 3]);
    }

    #[test]
    fn resident_memory_is_the_line_of_that_name() {
        let status = "Name:\tnode\nVmHWM:\t  999 kB\nVmRSS:\t  124 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(resident_in(status), Some(124 << 10));
        assert_eq!(resident_in("Name:\tnode\n"), None);
    }
}
