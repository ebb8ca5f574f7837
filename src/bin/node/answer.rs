//! What a command answers, on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anyhow::Context;

/// Writes a line. A reader that has seen enough, such as `head`, is no failure.
///
/// # Errors
/// Standard output can't be written, such as a file on a full disk.
pub(crate) fn line(text: impl Display) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output can't be written"),
    }
}
