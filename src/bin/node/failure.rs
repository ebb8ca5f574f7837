//! How a command ends that could not do what it was told.

use std::process::ExitCode;

use gradmesh::config::ConfigError;
use gradmesh::node::NodeError;

use crate::args::{Args, Command};

/// Of a `node run` that no restart helps, as `EX_CONFIG` of sysexits.h: whoever supervises it
/// (`up`, or `RestartPreventExitStatus=` of systemd) can leave it alone.
pub(crate) const LASTING: u8 = 78;

/// Whom a failure is told, beside those who read the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    /// As JSON on standard output.
    json: bool,
    /// `node run`, which is made to be restarted.
    restarted: bool,
}

impl Failure {
    pub(crate) fn new(args: &Args) -> Self {
        let (restarted, by_up) = match args.command {
            None => (true, false),
            Some(Command::Run { until_stdin_ends, .. }) => (true, until_stdin_ends),
            Some(_) => (false, false),
        };
        // `up` takes the last word of a node from there.
        Self { json: args.json || by_up, restarted }
    }

    pub(crate) fn tell(self, error: &anyhow::Error) -> ExitCode {
        let sentence = sentence(error);
        tracing::error!("{sentence}");
        if self.json {
            // Standard error has it, if this can't be written.
            let _ = crate::answer::line(serde_json::json!({ "error": sentence }));
        }
        if self.restarted && is_lasting(error) {
            return ExitCode::from(LASTING);
        }
        ExitCode::FAILURE
    }
}

/// The error and its causes. One that an error has in its own text is not said again.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
    }
    sentence
}

fn is_lasting(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.downcast_ref::<NodeError>().is_some_and(NodeError::is_lasting)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_that_the_error_names_itself_is_said_once() {
        let source = std::io::Error::from_raw_os_error(13);
        let address = "127.0.0.1:1".parse().unwrap();
        let error = Err::<(), _>(NodeError::Listen { address, source }).context("start");
        let sentence = sentence(&error.unwrap_err());
        assert_eq!(sentence.matches("os error 13").count(), 1, "{sentence}");
        assert!(sentence.starts_with("start: can't listen on 127.0.0.1:1"), "{sentence}");
    }

    #[test]
    fn a_configuration_is_lasting_and_a_port_in_use_is_not() {
        let config = gradmesh::config::Config::from_toml("x = 1", std::path::Path::new("."));
        assert!(is_lasting(&config.context("configuration").unwrap_err()));
        let source = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        let listen = NodeError::Listen { address: "127.0.0.1:1".parse().unwrap(), source };
        assert!(!is_lasting(&listen.into()));
    }
}
