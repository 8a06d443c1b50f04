//! The lab as the other tasks use it: by the verbs that people have (`cargo xtask lab ...`), so
//! that a task can do nothing to the lab that a person could not repeat.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

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
pub(crate) fn load_image(archive: &Path) -> Result<()> {
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
    Ok(command(still_there(&own.to_string_lossy()), &line))
}

/// The path of a running program under which its successor stands when it was built anew meanwhile:
/// `/proc/self/exe` then says "(deleted)" (proc(5)).
fn still_there(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
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
///
/// # Errors
/// `KUBECONFIG` names a file that does not exist.
pub(crate) fn environment(command: &mut Command) -> Result<()> {
    let value = match std::env::var_os("KUBECONFIG") {
        Some(list) if !list.is_empty() => {
            let here = std::env::current_dir().context("find the current directory")?;
            absolute(&list, &here)?
        }
        _ => kubeconfig().into(),
    };
    command.env("KUBECONFIG", value);
    Ok(())
}

/// The files of `KUBECONFIG` (separated by `:`) as absolute paths: cargo runs each test in the
/// directory of its package, where a path relative to `here` leads elsewhere.
fn absolute(list: &OsStr, here: &Path) -> Result<OsString> {
    let files: Vec<PathBuf> = std::env::split_paths(list)
        .filter(|file| !file.as_os_str().is_empty())
        .map(|file| here.join(file))
        .collect();
    for file in &files {
        ensure!(
            file.is_file(),
            "KUBECONFIG is {}, and there is no file {}",
            list.display(),
            file.display()
        );
    }
    std::env::join_paths(files).context("join the files of KUBECONFIG")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn relative_kubeconfigs_are_found_from_where_the_caller_is() {
        let here = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(here.path().join("a"), "").unwrap();
        fs::write(other.path().join("b"), "").unwrap();
        let b = other.path().join("b");
        let list = format!("a::{}", b.display());
        assert_eq!(
            absolute(OsStr::new(&list), here.path()).unwrap(),
            OsString::from(format!(
                "{}:{}",
                here.path().join("a").display(),
                b.display()
            ))
        );
    }

    #[test]
    fn kubeconfig_that_does_not_exist_is_named() {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("a"), "").unwrap();
        assert_eq!(
            absolute(OsStr::new("a:lab/missing"), here.path())
                .unwrap_err()
                .to_string(),
            format!(
                "KUBECONFIG is a:lab/missing, and there is no file {}/lab/missing",
                here.path().display()
            )
        );
    }

    #[test]
    fn a_program_that_was_replaced_is_found_where_it_was() {
        assert_eq!(
            still_there("/w/target/debug/xtask (deleted)"),
            "/w/target/debug/xtask"
        );
        assert_eq!(
            still_there("/w/target/debug/xtask"),
            "/w/target/debug/xtask"
        );
    }
}
