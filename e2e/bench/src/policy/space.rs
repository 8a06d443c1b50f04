//! Network namespaces of the benchmark: made, entered and removed by a guard.
//!
//! A thread lives in each and takes closures: sockets, child processes and threads made in a closure
//! belong to the namespace, whoever asks stays where he is. Needs root.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};

type Job = Box<dyn FnOnce() + Send>;

/// Names are `weft-b-<pid>-<n>`.
const PREFIX: &str = "weft-b-";
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network namespace, loopback up, removed at drop.
pub(crate) struct Space {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// A program and its arguments.
#[allow(
    clippy::disallowed_methods,
    reason = "driving programs is what a benchmark does"
)]
pub(crate) fn program<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Command {
    let (program, arguments) = words.split_first().expect("a program has a name");
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Removes namespaces of benchmarks that were killed before their guards could.
pub(crate) fn sweep() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Somebody else may have removed it meanwhile.
            let _ = program(&["ip", "netns", "del", &name]).output();
        }
    }
}

impl Space {
    /// Makes a namespace.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{n}", std::process::id());
        text(program(&["ip", "netns", "add", &name]).output(), &name)
            .context("cannot make a network namespace (as root?)")?;
        let mut space = Self {
            name,
            jobs: None,
            thread: None,
        };
        let file = File::open(format!("/run/netns/{}", space.name))?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        space.thread = Some(std::thread::spawn(move || {
            let entered = setns(file, CloneFlags::CLONE_NEWNET);
            if ready.send(entered).is_ok() {
                inbox.into_iter().for_each(|job| job());
            }
        }));
        started
            .recv()
            .context("the thread of a namespace ended")?
            .context("cannot enter a network namespace")?;
        space.jobs = Some(jobs);
        space.sh(
            "ip link set lo up; sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
             net.ipv6.conf.default.disable_ipv6=1",
        )?;
        Ok(space)
    }

    /// For `ip link add ... netns NAME`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in the namespace.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (reply, answer) = mpsc::channel();
        let job: Job = Box::new(move || {
            // Whoever asked waits right below.
            let _ = reply.send(work());
        });
        let jobs = self.jobs.as_ref().context("the namespace is gone")?;
        jobs.send(job)
            .ok()
            .context("the thread of a namespace ended")?;
        answer.recv().context("the thread of a namespace panicked")
    }

    /// Starts a program in the namespace.
    pub(crate) fn spawn(&self, mut command: Command) -> anyhow::Result<Child> {
        let what = format!("{command:?}");
        self.run(move || command.spawn())?
            .with_context(|| format!("cannot start {what}"))
    }

    /// Runs a program and returns what it printed.
    pub(crate) fn call<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> anyhow::Result<String> {
        let mut command = program(words);
        let what = format!("{command:?}");
        text(self.run(move || command.output())?, &what)
    }

    /// Runs a shell script and returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> anyhow::Result<String> {
        self.call(&["sh", "-ec", script])
    }

    /// Runs a program with `input` on its standard input.
    pub(crate) fn feed(&self, words: &[&str], input: &str) -> anyhow::Result<()> {
        let mut command = program(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.spawn(command)?;
        let mut stdin = child.stdin.take().context("standard input is closed")?;
        // A tool that stops reading says why on stderr.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        text(child.wait_with_output(), &words.join(" ")).map(drop)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panicked if a job did, which its caller has seen.
            let _ = thread.join();
        }
        // Left for the sweep of the next run if that fails.
        let _ = program(&["ip", "netns", "del", &self.name]).output();
    }
}

fn text(output: std::io::Result<Output>, what: &str) -> anyhow::Result<String> {
    let output = output.with_context(|| format!("cannot start: {what}"))?;
    if !output.status.success() {
        bail!(
            "{what}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
