//! Namespaces of a lab's members, and work inside them.
//!
//! A thread enters a namespace, does the work or starts a child there, and ends; the rest of this
//! process stays where it is. `ip netns` is not used: it leaves a mount behind, and its `exec`
//! mounts a `/sys` without the cgroup tree.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command::{command, output};
use crate::process::{LAB_MARK, MEMBER_MARK, ProcessId};

/// A member's namespaces, named by the process that holds them open.
#[derive(Debug, Clone)]
pub(crate) struct Namespaces {
    pub(crate) holder: ProcessId,
    pub(crate) environment: BTreeMap<String, String>,
}

impl Namespaces {
    /// Link targets (`net:[4026531840]`) of the member's network and mount namespaces.
    pub(crate) fn identities(&self) -> Vec<String> {
        if !self.holder.is_alive() {
            return Vec::new();
        }
        ["net", "mnt"]
            .iter()
            .filter_map(|kind| {
                let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", self.holder.pid));
                Some(link.ok()?.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// Moves the calling thread into the member. The thread must not share its file system state.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        if !self.holder.is_alive() {
            return Err(anyhow!(
                "the process that holds the namespaces (pid {}) is gone; run `cargo xtask lab down`",
                self.holder.pid
            ));
        }
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", self.holder.pid);
            File::open(&path).with_context(|| format!("cannot open {path}"))
        };
        let (net, uts, mnt) = (open("net")?, open("uts")?, open("mnt")?);
        unshare(CloneFlags::CLONE_FS).context("cannot unshare the thread's directory state")?;
        setns(net, CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
        setns(uts, CloneFlags::CLONE_NEWUTS).context("cannot enter the UTS namespace")?;
        setns(mnt, CloneFlags::CLONE_NEWNS).context("cannot enter the mount namespace")
    }

    /// Does `work` inside the member.
    pub(crate) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        on_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Runs a program inside the member and returns what it printed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        self.within(|| {
            output(
                command(program)
                    .args(arguments)
                    .env_clear()
                    .envs(&self.environment)
                    .current_dir("/")
                    .stdin(Stdio::null()),
            )
        })
    }
}

/// Runs `work` on a thread of its own, whose namespaces may be changed.
fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(anyhow!("the thread that worked in a namespace panicked")))
}

/// Environment of every process of `member`: nothing of the caller's (a proxy variable would send
/// the API server's traffic elsewhere), the lab's programs first in `PATH`, and the marks.
pub(crate) fn environment(lab: &str, member: &str, programs: &Path) -> BTreeMap<String, String> {
    let path = format!(
        "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        programs.display()
    );
    [
        ("PATH", path.as_str()),
        ("HOME", "/root"),
        (LAB_MARK, lab),
        (MEMBER_MARK, member),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Makes a member: new network, mount and UTS namespaces, prepared by `prepare` and kept open by a
/// process that sleeps.
pub(crate) fn hold(
    name: &str,
    environment: BTreeMap<String, String>,
    prepare: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<Namespaces> {
    let holder = on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)
            .context("cannot make namespaces (are you root?)")?;
        propagate(MsFlags::MS_PRIVATE)?;
        nix::unistd::sethostname(name).context("cannot set the host name")?;
        prepare()?;
        // Volumes that the kubelet mounts must be seen by containers that run already.
        propagate(MsFlags::MS_SHARED)?;
        start(
            detached(Path::new("sleep"), &environment).arg("infinity"),
            None,
        )
    })
    .with_context(|| format!("cannot make {name}"))?;
    Ok(Namespaces {
        holder,
        environment,
    })
}

/// Sets the propagation of every mount.
fn propagate(kind: MsFlags) -> anyhow::Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        kind | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("cannot set the propagation of mounts")
}

/// A long-running program of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Daemon {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// Starts it inside `namespaces`; its output goes to its log alone.
    pub(crate) fn start(&self, namespaces: &Namespaces) -> anyhow::Result<ProcessId> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open the log {}", self.log.display()))?;
        namespaces
            .within(|| {
                let mut command = detached(&self.program, &namespaces.environment);
                start(command.args(&self.arguments), Some(log))
            })
            .with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// A command that gets a session of its own: no signal of the caller's terminal reaches it.
/// `setsid` replaces itself by the program, so the pid is the program's.
fn detached(program: &Path, environment: &BTreeMap<String, String>) -> Command {
    let mut command = command("setsid");
    command
        .arg(program)
        .env_clear()
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

fn start(command: &mut Command, log: Option<File>) -> anyhow::Result<ProcessId> {
    match log {
        Some(log) => command.stdout(log.try_clone()?).stderr(log),
        None => command.stdout(Stdio::null()).stderr(Stdio::null()),
    };
    let shown = crate::command::shown(command);
    let child = command
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    ProcessId::of(child.id().cast_signed()).with_context(|| format!("`{shown}` ended at once"))
}
