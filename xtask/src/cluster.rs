//! The lab as the other tasks use it: by the verbs that people have (`cargo xtask lab ...`), so
//! that a task can do nothing to the lab that a person could not repeat.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::command::{at, command, output, run};

/// Nodes of a lab that a task starts.
const NODES: &str = "3";

/// Kubeconfig of the administrator.
pub(crate) fn kubeconfig() -> PathBuf {
    at("target/lab/admin.kubeconfig")
}

/// Whether a lab is up (or was left half up, which `lab up` says).
pub(crate) fn is_up() -> bool {
    kubeconfig().exists()
}

/// Starts a lab.
///
/// # Errors
/// As `cargo xtask lab up`.
pub(crate) fn up() -> Result<()> {
    run(lab(&["up", "--nodes", NODES])?)
}

/// Removes it.
///
/// # Errors
/// As `cargo xtask lab down`.
pub(crate) fn down() -> Result<()> {
    run(lab(&["down"])?)
}

/// Imports an image on every node.
///
/// # Errors
/// As `cargo xtask lab load-image`.
pub(crate) fn load_image(archive: &std::path::Path) -> Result<()> {
    let archive = archive.to_string_lossy();
    run(lab(&["load-image", &archive])?)
}

/// A command inside a node.
///
/// # Errors
/// This program's own path is unknown.
pub(crate) fn inside(node: &str, line: &[&str]) -> Result<Command> {
    let mut arguments = vec!["enter", node, "--"];
    arguments.extend(line);
    lab(&arguments)
}

/// Output of a command inside a node.
///
/// # Errors
/// It failed.
pub(crate) fn output_inside(node: &str, line: &[&str]) -> Result<String> {
    output(inside(node, line)?)
}

fn lab(arguments: &[&str]) -> Result<Command> {
    let own = std::env::current_exe().context("find the path of xtask itself")?;
    let mut line = vec!["lab"];
    line.extend(arguments);
    Ok(command(&own.to_string_lossy(), &line))
}

/// `kubectl` against the lab.
pub(crate) fn kubectl(arguments: &[&str]) -> Command {
    at_lab("kubectl", arguments)
}

/// `helm` against the lab.
pub(crate) fn helm(arguments: &[&str]) -> Command {
    at_lab("helm", arguments)
}

/// The caller's `KUBECONFIG` is not looked at: what installs and removes must never reach another
/// cluster by accident.
fn at_lab(name: &str, arguments: &[&str]) -> Command {
    let own = at("target/lab/bin").join(name);
    let mut program = command(&own.to_string_lossy(), arguments);
    program.env("KUBECONFIG", kubeconfig());
    program
}

/// Points the tests at a cluster: `KUBECONFIG` of the caller, else the lab.
pub(crate) fn environment(command: &mut Command) {
    if std::env::var_os("KUBECONFIG").is_none() {
        command.env("KUBECONFIG", kubeconfig());
    }
}
