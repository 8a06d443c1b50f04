//! Starting programs: the one place of xtask that spawns processes.
//!
//! A step prints what it runs, fails with the command line and what the program said, and never
//! reads from the terminal.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Root of the workspace.
#[must_use]
pub(crate) fn workspace() -> PathBuf {
    // xtask is always started by cargo from its own checkout and rebuilt when the checkout moves.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .map_or_else(|| manifest.to_path_buf(), Path::to_path_buf)
}

/// A path below the workspace.
pub(crate) fn at(relative: &str) -> PathBuf {
    workspace().join(relative)
}

/// A command in the workspace's root, without stdin.
#[allow(
    clippy::disallowed_methods,
    reason = "the adapter that spawns processes"
)]
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null());
    // What `cargo run` says of xtask itself: build scripts that watch these (ring's) would see them
    // change and build half of the tree anew, each time a person calls cargo by hand in between.
    for (name, _) in std::env::vars_os() {
        let of_xtask = name
            .to_str()
            .is_some_and(|n| n.starts_with("CARGO_PKG_") || OF_CARGO_RUN.contains(&n));
        if of_xtask {
            command.env_remove(name);
        }
    }
    command
}

/// Variables that `cargo run` sets besides `CARGO_PKG_*`.
const OF_CARGO_RUN: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// How a command is shown to people.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs with the terminal's output.
///
/// # Errors
/// The program could not be started or failed.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let text = shown(&command);
    let status = command
        .status()
        .with_context(|| format!("start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed: {status}");
    }
    Ok(())
}

/// Runs and gives stdout; stderr is part of the error.
///
/// # Errors
/// The program could not be started or failed.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let text = shown(&command);
    let output = command
        .output()
        .with_context(|| format!("start `{text}`"))?;
    if !output.status.success() {
        bail!(
            "`{text}` failed: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{text}` printed no UTF-8"))
}

/// Runs with stdout and stderr in one stream, in order, each line given to `line`. Whether the
/// program succeeded is the answer.
///
/// # Errors
/// The program could not be started.
pub(crate) fn stream(mut command: Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let text = shown(&command);
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let also = writer.try_clone().context("copy the pipe")?;
    let mut child = command
        .stdout(writer)
        .stderr(also)
        .spawn()
        .with_context(|| format!("start `{text}`"))?;
    // The command holds the write ends of the pipe; without this the reader never sees the end.
    drop(command);
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        line(String::from_utf8_lossy(&bytes).trim_end_matches('\n'));
    }
    let status = child.wait().with_context(|| format!("wait for `{text}`"))?;
    Ok(status.success())
}

/// Starts a program whose output is read later, with [`finish`].
///
/// # Errors
/// The program could not be started.
pub(crate) fn start(mut command: Command) -> Result<(String, Child)> {
    let text = shown(&command);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{text}`"))?;
    Ok((text, child))
}

/// Waits for a started program and gives its stdout, whatever its exit code.
///
/// # Errors
/// Its output could not be read.
pub(crate) fn finish((text, child): (String, Child)) -> Result<String> {
    let output = child
        .wait_with_output()
        .with_context(|| format!("wait for `{text}`"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits between two looks at something that nobody announces.
#[allow(
    clippy::disallowed_methods,
    reason = "a command line program that polls kubectl has no other clock"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Whether a program is in `PATH`.
pub(crate) fn exists(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else {
        return false;
    };
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_names_the_command_and_what_it_said() {
        let error = output(command("sh", &["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c echo why"), "{text}");
        assert!(text.contains("why\n"), "{text}");
    }

    #[test]
    fn stream_keeps_both_outputs_in_order() {
        let mut lines = Vec::new();
        let ok = stream(
            command("sh", &["-c", "echo a; echo b >&2; echo c; exit 1"]),
            |line| lines.push(line.to_owned()),
        )
        .unwrap();
        assert_eq!(
            (ok, lines),
            (false, vec!["a".into(), "b".into(), "c".into()])
        );
    }

    #[test]
    fn exists_finds_programs_of_the_path_only() {
        assert!(exists("sh"));
        assert!(!exists("no-such-program-anywhere"));
    }
}
