//! Log lines on standard error: for people, or as JSON.

use std::io::IsTerminal;

use anyhow::bail;
use gradmesh_actors::nearest::nearest;
use tracing_subscriber::EnvFilter;

const DEFAULT: &str = "info";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The parser of requests calls every stranger's garbage an error.
const QUIET: &str = "actix_http::h1=off";

/// # Errors
/// The filter is none; lines are then written as without `--log`.
pub(crate) fn init(filter: &str) -> anyhow::Result<()> {
    let (json, wanted) = match filter.strip_prefix("json") {
        Some("") => (true, DEFAULT),
        Some(rest) => match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, filter),
        },
        None => (false, filter),
    };
    let read = read(wanted);
    let wanted = read.as_ref().map_or(DEFAULT, |()| wanted);
    // It would report a line that can't be written to the same closed stream, and panic.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(with_quiet(wanted)))
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if json {
        lines.json().init();
    } else {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
    }
    read
}

fn read(filter: &str) -> anyhow::Result<()> {
    let levels = LEVELS.join(", ");
    if filter.trim().is_empty() {
        bail!("the filter of logs is empty; set --log (or GRADMESH_LOG) to {levels}, or a filter");
    }
    if let Err(error) = EnvFilter::try_new(filter) {
        bail!("{filter:?} is no filter of logs: {error}; set --log (or GRADMESH_LOG) to {levels}");
    }
    // A lone word is the name of a module, which a misspelt level would be taken for.
    let lower = filter.to_lowercase();
    match nearest(&lower, LEVELS.into_iter()) {
        Some(level) if level != lower => {
            bail!(
                "{filter:?} is no level of logs, did you mean {level}? change --log (or GRADMESH_LOG)"
            )
        }
        _ => Ok(()),
    }
}

/// Whoever asks for details, or for this very module, gets its lines too.
fn with_quiet(filter: &str) -> String {
    if ["actix", "debug", "trace"].iter().any(|word| filter.to_lowercase().contains(word)) {
        return filter.to_owned();
    }
    format!("{filter},{QUIET}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_and_anything_else_is_refused() {
        for filter in ["info", "WARN", "off", "gradmesh", "info,gradmesh::peer=debug", "node=trace"]
        {
            assert!(read(filter).is_ok(), "{filter}: {:?}", read(filter));
        }
        for filter in ["", "wran", "node=loud", "a=b=c", "inof"] {
            let refused = read(filter).unwrap_err().to_string();
            assert!(refused.contains("--log"), "{refused}");
        }
    }
}
