//! Processes that belong to a lab: recorded by pid and start time, found again by a mark in their
//! environment, and ended without ever touching a process of somebody else.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::wait;

#[cfg(test)]
mod tests;

/// Environment variable that every process of a lab carries; its value is the lab's id.
pub(crate) const LAB_MARK: &str = "WEFT_LAB_ID";
/// Environment variable with the member's name (`hub`, `n1`, ...).
pub(crate) const MEMBER_MARK: &str = "WEFT_LAB_MEMBER";

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Clock ticks after boot at which it started (field 22 of `/proc/PID/stat`).
    pub(crate) start_time: u64,
}

impl ProcessId {
    /// The process that has this number now; `None` if there is none or it is dead already.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start_time) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, start_time })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal, if it still runs.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            // It may end between the look and the signal; then there is nothing to do.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
    }

    /// Asks it to end, insists after `patience`, and returns when it is gone.
    pub(crate) fn stop(self, what: &str, patience: Duration) -> anyhow::Result<()> {
        let step = Duration::from_millis(20);
        let gone = || {
            if self.is_alive() {
                Err("it still runs".to_owned())
            } else {
                Ok(())
            }
        };
        self.signal(Signal::SIGTERM);
        if wait::until(what, patience, step, gone).is_err() {
            self.signal(Signal::SIGKILL);
            wait::until(
                &format!("{what} to end"),
                Duration::from_secs(10),
                step,
                gone,
            )?;
        }
        Ok(())
    }
}

/// State letter and start time of a line of `/proc/PID/stat`. The name in parentheses may itself
/// hold spaces and parentheses, so the fields are counted from the last one.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    // `state` is field 3, so 18 fields lie between it and field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What makes a process ours, for a sweep.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// `NAME=value` pairs that must all stand in the environment.
    pub(crate) environment: Vec<String>,
    /// Namespaces (`/proc/PID/ns/*` link targets) that belong to the lab.
    pub(crate) namespaces: BTreeSet<String>,
    /// Processes found otherwise (members of the lab's cgroups).
    pub(crate) processes: BTreeSet<i32>,
}

/// Kills everything that carries the marks, again and again until nothing is left.
///
/// `more` adds processes that are known otherwise, asked anew in every round.
///
/// # Errors
/// What is left after ten seconds.
pub(crate) fn sweep(
    mut marks: Marks,
    mut more: impl FnMut() -> BTreeSet<i32>,
) -> anyhow::Result<()> {
    let step = Duration::from_millis(25);
    wait::until(
        "the lab's processes to end",
        Duration::from_secs(10),
        step,
        || {
            marks.processes = more();
            let found = marked(&marks);
            if found.is_empty() {
                return Ok(());
            }
            for process in &found {
                process.signal(Signal::SIGKILL);
            }
            Err(found
                .iter()
                .map(|process| describe(process.pid))
                .collect::<Vec<_>>()
                .join(", "))
        },
    )
    .context("run `cargo xtask lab down` again; if that does not help, end them by hand")
}

/// Living processes with the marks; never this one.
fn marked(marks: &Marks) -> Vec<ProcessId> {
    let own = std::process::id().cast_signed();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own && *pid != 1)
        .filter(|pid| {
            marks.processes.contains(pid)
                || has_environment(*pid, &marks.environment)
                || is_in_namespaces(*pid, &marks.namespaces)
        })
        .filter_map(ProcessId::of)
        .collect()
}

fn has_environment(pid: i32, wanted: &[String]) -> bool {
    if wanted.is_empty() {
        return false;
    }
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let pairs: BTreeSet<&[u8]> = environment.split(|byte| *byte == 0).collect();
    wanted.iter().all(|pair| pairs.contains(pair.as_bytes()))
}

fn is_in_namespaces(pid: i32, namespaces: &BTreeSet<String>) -> bool {
    !namespaces.is_empty()
        && ["net", "mnt"].iter().any(|kind| {
            fs::read_link(format!("/proc/{pid}/ns/{kind}"))
                .is_ok_and(|target| namespaces.contains(target.to_string_lossy().as_ref()))
        })
}

fn describe(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} (pid {pid})", name.trim())
}
