//! Programs of the node: the one place where the router starts processes.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::io::AsyncWriteExt;

/// No program of ours takes longer unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that is only asked who it is answers within milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

/// Why a program failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{command}` failed: {cause}")]
pub struct ExecError {
    /// Command line.
    pub command: String,
    /// What it said, or why it could not be started.
    pub cause: String,
}

/// Runs `program` with `input` on its standard input; returns its standard output.
///
/// # Errors
/// It cannot be started, fails, or takes longer than 20 s.
#[allow(
    clippy::disallowed_methods,
    reason = "this module is the adapter that starts processes"
)]
pub(crate) async fn run(program: &str, args: &[&str], input: &str) -> Result<String, ExecError> {
    let error = |cause: String| ExecError {
        command: format!("{program} {}", args.join(" "))
            .trim_end()
            .to_owned(),
        cause,
    };
    let work = async {
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| error(e.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that fails early closes its end; its own message says more.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child
            .wait_with_output()
            .await
            .map_err(|e| error(e.to_string()))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(error(format!("{}: {}", output.status, said.trim())))
        }
    };
    match tokio::time::timeout(LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(error(format!("no end within {LIMIT:?}"))),
    }
}

/// Starts a program without arguments, environment or input and returns what it says on standard
/// error, however it ends.
///
/// # Errors
/// It cannot be started, or takes longer than 5 s.
#[allow(
    clippy::disallowed_methods,
    reason = "this module is the adapter that starts processes"
)]
pub(crate) async fn said(program: &Path) -> Result<String, String> {
    let output = tokio::process::Command::new(program)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(ANSWER, output).await {
        Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stderr).into_owned()),
        Ok(Err(error)) => Err(format!("cannot start it: {error}")),
        Err(_) => Err(format!("it did not end within {ANSWER:?}")),
    }
}
