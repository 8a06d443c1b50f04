//! Runs a tool: input on stdin, a deadline, its words on failure.

use std::{
    collections::VecDeque,
    io,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::io::AsyncWriteExt as _;

use crate::backend::ToolError;

/// How tools are run.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Commands put before each tool; empty: none. Tests use `ip netns exec NAME`.
    pub wrapper: Vec<String>,
    /// A run that takes longer is killed. It must leave room for the wait for the xtables lock.
    pub deadline: Duration,
}

/// Process ids of the tools started last. Netlink tells by them who changed a rule.
static STARTED: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());
/// More than one sync starts: an event is read soon after the change, and an id that lives on here
/// could be given to somebody else's process.
const REMEMBERED: usize = 32;

/// Remembers that this process is ours: the changes it makes are not reported by
/// [`super::Monitor`]. For programs that are not started by a [`Runner`].
pub fn started(pid: u32) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if started.len() == REMEMBERED {
        started.pop_front();
    }
    started.push_back(pid);
}

/// Is this one of them?
pub(super) fn is_ours(pid: u32) -> bool {
    let started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    started.contains(&pid)
}

impl Default for Runner {
    fn default() -> Self {
        Self {
            wrapper: Vec::new(),
            deadline: Duration::from_secs(10),
        }
    }
}

impl Runner {
    /// Runs `tool` and returns what it printed.
    ///
    /// # Errors
    /// [`ToolError`]: it is missing, took too long or failed.
    pub async fn run(&self, tool: &str, args: &[&str], input: &str) -> Result<String, ToolError> {
        let fail = |class, message: String| ToolError {
            tool: [&[tool], args].concat().join(" "),
            class,
            message,
            line: None,
            line_number: None,
        };
        let mut words = self.wrapper.iter().map(String::as_str).chain([tool]);
        let program = words.next().unwrap_or(tool);
        #[allow(clippy::disallowed_methods, reason = "this is the adapter that spawns")]
        let mut command = tokio::process::Command::new(program);
        command
            .args(words)
            .args(args)
            // The tools' messages are read and shown: one language.
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let run = async {
            let mut child = command.spawn().map_err(|error| {
                let class = if error.kind() == io::ErrorKind::NotFound {
                    "missing"
                } else {
                    "start"
                };
                fail(class, format!("cannot start it: {error}"))
            })?;
            if let Some(pid) = child.id() {
                started(pid);
            }
            let stdin = child.stdin.take();
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A tool that stops reading says why on stderr.
                    let _ = stdin.write_all(input.as_bytes()).await;
                    let _ = stdin.shutdown().await;
                }
            };
            let (output, ()) = tokio::join!(child.wait_with_output(), feed);
            output.map_err(|error| fail("output", error.to_string()))
        };
        let output = tokio::time::timeout(self.deadline, run)
            .await
            .map_err(|_| {
                fail(
                    "timeout",
                    format!(
                        "killed after {} s without an answer",
                        self.deadline.as_secs()
                    ),
                )
            })??;
        if output.status.success() {
            return String::from_utf8(output.stdout)
                .map_err(|_| fail("output", "printed something that is not UTF-8".to_owned()));
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let message = if message.is_empty() {
            format!("failed with {} and said nothing", output.status)
        } else {
            message
        };
        let tool = [&[tool], args].concat().join(" ");
        let mut error = ToolError::from_output(&tool, message, input);
        if error.message.contains("xtables lock") {
            error.class = "lock";
        }
        Err(error)
    }
}
