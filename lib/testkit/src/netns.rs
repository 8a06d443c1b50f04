//! Network namespaces for kernel tests: made, entered and removed by a guard.
//!
//! Entering is done by a thread that lives in the namespace and takes closures: sockets, child
//! processes and further threads made in a closure belong to the namespace, the test's own thread
//! never changes. Needs root.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::{Command, Output},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use nix::sched::{CloneFlags, setns};

static COUNTER: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// Removes namespaces of test processes that were killed before their guards could.
#[allow(
    clippy::disallowed_methods,
    reason = "kept on request, for a look by hand"
)]
fn sweep() {
    if std::env::var("WEFT_KEEP_NETNS").is_ok() {
        return;
    }
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("weft-t-").and_then(|rest| {
            let (pid, n) = rest.split_once('-')?;
            n.parse::<u32>().ok()?;
            pid.parse::<u32>().ok()
        });
        let dead = owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        if dead {
            let _ = text_of_command(&["ip", "netns", "del", &name]);
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a name of its own (`weft-t-<pid>-<n>`), loopback up, removed at drop.
/// When the test fails, the drop prints how to repeat commands by hand (`WEFT_KEEP_NETNS=1` keeps
/// the namespace).
pub struct Netns {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Makes a namespace.
    ///
    /// # Panics
    /// It could not be made: tests fail, they never skip.
    #[must_use]
    #[track_caller]
    #[allow(
        clippy::expect_used,
        clippy::new_without_default,
        reason = "a test fails without its namespace"
    )]
    pub fn new() -> Self {
        SWEEP.call_once(sweep);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft-t-{}-{n}", std::process::id());
        host_command(&["ip", "netns", "add", &name]);
        let path = format!("/run/netns/{name}");
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let entered = File::open(&path)
                    .map_err(|e| format!("open {path}: {e}"))
                    .and_then(|ns| {
                        setns(ns, CloneFlags::CLONE_NEWNET)
                            .map_err(|e| format!("setns {path}: {e}"))
                    });
                // The receiver waits right below; if it is gone the test is over anyway.
                let _ = ready.send(entered);
                while let Ok(job) = inbox.recv() {
                    job();
                }
            })
            .expect("start the namespace's thread");
        let ns = Self {
            name,
            jobs: Some(jobs),
            thread: Some(thread),
        };
        started
            .recv()
            .expect("the namespace's thread answers")
            .expect("enter the namespace (root?)");
        ns.sh("ip link set lo up");
        ns
    }

    /// Name under `/run/netns`, for `ip link add ... netns NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the namespace, as `CNI_NETNS` has it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Runs `work` in the namespace and returns its value; a panic in it continues here.
    ///
    /// # Panics
    /// When `work` does.
    #[allow(clippy::expect_used, reason = "the thread lives as long as the guard")]
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, answer) = mpsc::channel();
        let job: Job = Box::new(move || {
            let _ = reply.send(catch_unwind(AssertUnwindSafe(work)));
        });
        self.jobs
            .as_ref()
            .expect("jobs are taken at drop only")
            .send(job)
            .expect("the namespace's thread lives");
        match answer.recv().expect("the namespace's thread answers") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Runs a shell script in the namespace and returns its standard output, trimmed.
    ///
    /// # Panics
    /// It fails; the message carries its output.
    #[track_caller]
    #[allow(clippy::panic, reason = "a test assertion")]
    pub fn sh(&self, script: &str) -> String {
        match self.try_sh(script) {
            Ok(out) => out,
            Err(err) => panic!("in {}: `{script}`: {err}", self.name),
        }
    }

    /// Runs a shell script in the namespace: its standard output, or both outputs if it fails.
    ///
    /// # Errors
    /// The script's exit status was not 0.
    #[allow(clippy::expect_used, reason = "every test machine has sh")]
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        let owned = script.to_owned();
        let output = self.run(move || shell(&owned).output().expect("run sh"));
        text_of(&output)
    }

    /// Starts a shell script in the namespace and returns without waiting.
    ///
    /// # Panics
    /// There is no shell.
    #[allow(clippy::expect_used, reason = "every test machine has sh")]
    pub fn spawn(&self, script: &str) -> std::process::Child {
        let owned = format!("exec {script}");
        self.run(move || {
            shell(&owned)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .expect("run sh")
        })
    }
}

impl Drop for Netns {
    #[allow(
        clippy::print_stderr,
        clippy::disallowed_methods,
        reason = "a failed test tells how to look by hand"
    )]
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let keep = std::env::var("WEFT_KEEP_NETNS").is_ok();
        if std::thread::panicking() {
            eprintln!(
                "namespace of the failed test: nsenter --net=/run/netns/{} (kept only with WEFT_KEEP_NETNS=1)",
                self.name
            );
        }
        if !keep {
            let _ = text_of_command(&["ip", "netns", "del", &self.name]);
        }
    }
}

/// Joins two namespaces by a veth pair; both ends are up and carry the given address
/// (`192.0.2.1/24`).
pub fn join(a: &Netns, a_if: &str, a_addr: &str, b: &Netns, b_if: &str, b_addr: &str) {
    a.sh(&format!(
        "ip link add {a_if} type veth peer name {b_if} netns {}",
        b.name()
    ));
    for (ns, dev, addr) in [(a, a_if, a_addr), (b, b_if, b_addr)] {
        ns.sh(&format!("ip addr add {addr} dev {dev} nodad 2>/dev/null || ip addr add {addr} dev {dev}; ip link set {dev} up"));
    }
}

#[allow(clippy::disallowed_methods, reason = "tests run ip(8)")]
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

#[allow(clippy::panic, reason = "a test assertion")]
#[track_caller]
fn host_command(words: &[&str]) {
    if let Err(err) = text_of_command(words) {
        panic!("`{}`: {err}", words.join(" "));
    }
}

#[allow(clippy::disallowed_methods, reason = "tests run ip(8)")]
fn text_of_command(words: &[&str]) -> Result<String, String> {
    let (program, args) = words.split_first().ok_or("no command")?;
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|e| e.to_string())?;
    text_of(&output)
}

fn text_of(output: &Output) -> Result<String, String> {
    let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(out)
    } else {
        let err = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{}: {out} {err}", output.status))
    }
}
