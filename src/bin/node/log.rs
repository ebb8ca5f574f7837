//! Log lines on standard error: for people, or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

pub(crate) fn init(filter: &str) {
    let (json, filter) = match filter.strip_prefix("json") {
        Some(rest) => {
            (true, rest.strip_prefix(':').filter(|rest| !rest.is_empty()).unwrap_or("info"))
        }
        None => (false, filter),
    };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // It would report a line that can't be written to the same closed stream, and panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if json {
        lines.json().init();
    } else {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
}
