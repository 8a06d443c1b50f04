//! `enter`: a person's command in a member's namespaces.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;

use anyhow::{Context, anyhow, bail};

use crate::command::command;
use crate::namespace::Namespaces;

/// Replaces this process by `words`, run inside the member. The terminal, the working directory,
/// the environment and the exit code are the caller's; `PATH` has the lab's programs first.
///
/// # Errors
/// Whatever kept the command from starting; otherwise it does not return.
pub(crate) fn enter(member: &Namespaces, words: &[String]) -> anyhow::Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        bail!("no command given; write it after `--`, for example `-- ip addr`")
    };
    let directory = std::env::current_dir().ok();
    member.enter()?;
    if let Some(directory) = directory {
        std::env::set_current_dir(&directory)
            .with_context(|| format!("cannot stay in {}", directory.display()))?;
    }
    let path = member
        .environment
        .get("PATH")
        .map(String::as_str)
        .unwrap_or_default();
    let error = command(program)
        .args(arguments)
        .env("PATH", path)
        // So that `ctr images ls` shows what the kubelet sees.
        .env("CONTAINERD_NAMESPACE", "k8s.io")
        .exec();
    if error.kind() == ErrorKind::NotFound {
        return Err(anyhow!("there is no program {program:?} in {path}"));
    }
    Err(error).with_context(|| format!("cannot run {program:?}"))
}
