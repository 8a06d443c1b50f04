//! The one place that starts programs and waits for them.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, bail};

/// A command that is about to be run.
#[allow(
    clippy::disallowed_methods,
    reason = "the lab is made of other programs"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs `program` and returns what it printed.
///
/// # Errors
/// It cannot be started, or it failed: then the whole command line and its standard error.
pub(crate) fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> anyhow::Result<String> {
    output(command(program).args(arguments))
}

/// Runs a prepared command and returns what it printed.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = shown(command);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            anyhow::anyhow!("cannot run `{shown}`: the program is not installed")
        } else {
            anyhow::Error::new(error).context(format!("cannot run `{shown}`"))
        }
    })?;
    if !status.success() {
        bail!(
            "`{shown}` failed ({status}): {}",
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    String::from_utf8(stdout).with_context(|| format!("`{shown}` printed something not UTF-8"))
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

/// The last lines of a log, for error messages.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
