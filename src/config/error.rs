//! Everything that is wrong with a configuration, in one error.

use std::fmt;

/// The configuration can't be used. All its problems at once, one a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct ConfigError {
    /// At least one; keys that don't exist first, then in the order of the schema.
    pub problems: Vec<Problem>,
}

/// One thing to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, for example `job.seed` or `nodes[1].address`; empty where the whole source
    /// is meant.
    pub key: String,
    /// As it was given, where it was given.
    pub value: Option<String>,
    /// What is wrong, with the range or the other value that decided.
    pub problem: String,
    pub what_to_do: String,
    /// Where the value comes from: a file, an environment variable, `--set`, or `defaults`.
    pub source: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match (&self.value, self.key.as_str()) {
            (_, "") => {}
            (Some(value), key) => write!(f, "{key} = {value}: ")?,
            (None, key) => write!(f, "{key}: ")?,
        }
        write!(f, "{}; {}", self.problem, self.what_to_do)
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
