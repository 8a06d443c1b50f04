//! kill -9 at every system call of an apply, by strace.
//!
//! Two ways to die, each at every point in turn: one tool of the apply alone (npc sees it fail), and
//! npc itself with all tools it has started, as when its container is killed (it runs as process 1
//! of a PID namespace). After each kill the rules in the kernel are read back. nftables must hold the
//! old rules or the new ones; iptables with ipset must pass what both pass and drop what both drop,
//! which the packet tracer says for every pair of ends. Then a new run must leave exactly the new
//! rules.
//!
//! strace counts calls by name, so a first run without a kill writes the calls down, and a point is
//! "the third sendmsg". By default only points are tried at which the kernel's rules may change or a
//! tool starts or ends; `WEFT_KILL_EVERYWHERE=1` tries every call (minutes).
#![allow(
    clippy::print_stdout,
    reason = "what was counted, and what the test's processes say to each other"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use weft_netfilter::{
    Family, Ruleset, TableName,
    backend::{Backend as _, Done, Error, Iptables, Nft as _, Nftables, Tools as _},
    exec::{HostNft, HostTools, Runner, Variant},
    fake::FakeKernel,
    nft::{Listing, read},
    trace::{Packet, Pass, trace},
};
use weft_testkit::{eventually::eventually, netns::Netns};

use crate::{
    change::{packets, rulesets},
    world::PATIENCE,
};

/// Tells a process of this test program to be the npc that is killed.
const APPLY: &str = "WEFT_TEST_APPLY";
/// Its thread that applies.
const THREAD: &str = "apply";
const EVERYWHERE: &str = "WEFT_KILL_EVERYWHERE";
/// What of a tool can change rules: netlink, and the socket options of iptables-legacy.
const CHANGES: [&str; 4] = ["sendto", "sendmsg", "sendmmsg", "setsockopt"];
/// What of npc itself can: element changes by netlink, and the life of the tools.
const STEPS: [&str; 9] = [
    "sendto", "sendmsg", "write", "clone", "clone3", "vfork", "waitid", "wait4", "pipe2",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Iptables(Variant),
    Nftables,
}

impl Which {
    const ALL: [Self; 3] = [
        Self::Iptables(Variant::Nft),
        Self::Iptables(Variant::Legacy),
        Self::Nftables,
    ];
}

/// A backend of either kind.
enum Kernel {
    Iptables(Iptables<HostTools>),
    Nftables(Nftables<HostNft>),
}

impl Kernel {
    async fn new(which: Which, runner: Runner) -> Self {
        match which {
            Which::Iptables(variant) => {
                let tools = HostTools::probe(runner, variant).await.expect("tools");
                Self::Iptables(Iptables::new(weft_npc::owner(), tools))
            }
            Which::Nftables => {
                let nft = HostNft::probe(runner).await.expect("nft");
                Self::Nftables(Nftables::new(weft_npc::owned(), nft))
            }
        }
    }

    async fn sync(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        match self {
            Self::Iptables(backend) => backend.sync(desired).await,
            Self::Nftables(backend) => backend.sync(desired).await,
        }
    }

    async fn verify(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        match self {
            Self::Iptables(backend) => backend.verify(desired).await,
            Self::Nftables(backend) => backend.verify(desired).await,
        }
    }

    async fn seen(&mut self, packets: &[(Packet, Vec<Pass>)]) -> Seen {
        match self {
            Self::Iptables(backend) => {
                let tools = backend.tools_mut();
                // Under the kernel's own names: what stands in the way is judged as it stands.
                let mut kernel = FakeKernel::default();
                let sets = tools.ipset_save().await.expect("sets");
                kernel.ipset_restore(&sets, &mut |_| {}).expect(&sets);
                for family in Family::ALL {
                    let saved = tools.iptables_save(family, TableName::Filter).await;
                    let saved = saved.expect("rules");
                    let lines = saved.lines().filter(|line| !line.starts_with('#'));
                    let rules: String = lines.map(|line| format!("{line}\n")).collect();
                    let restored = kernel.iptables_restore(family, &rules, &mut |_| {});
                    restored.expect(&rules);
                }
                let ruleset = kernel.ruleset();
                let passes = |(packet, way): &(Packet, Vec<Pass>)| {
                    !trace(&ruleset, packet, way).expect("sound rules").dropped
                };
                Seen::Verdicts(packets.iter().map(passes).collect())
            }
            Self::Nftables(backend) => {
                let mut tables = Vec::new();
                for table in weft_npc::owned().tables() {
                    let listed = backend.tool_mut().list(&table).await.expect("listed");
                    tables.push(listed.map(|text| read(&text).expect("a table")));
                }
                Seen::Tables(tables)
            }
        }
    }
}

/// What the kernel holds, as far as it is judged.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Whether each packet passes.
    Verdicts(Vec<bool>),
    /// All of it.
    Tables(Vec<Option<Listing>>),
}

/// Between two states that must pass what both pass and drop what both drop, or be one of them.
fn is_sound(seen: &Seen, old: &Seen, new: &Seen) -> bool {
    match (seen, old, new) {
        (Seen::Verdicts(seen), Seen::Verdicts(old), Seen::Verdicts(new)) => {
            let mut all = seen.iter().zip(old.iter().zip(new));
            all.all(|(seen, (old, new))| old != new || seen == old)
        }
        _ => seen == old || seen == new,
    }
}

/// One system call: its name, and the how manieth of this name it is.
type Point = (String, usize);

/// The calls that strace wrote down, of the process that it started.
fn points(log: &str, which: &[&str]) -> Vec<Point> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut first = None;
    let mut points = Vec::new();
    for line in log.lines() {
        // With -f, a process id stands before each line.
        let (pid, line) = match line.split_once(' ') {
            Some((pid, rest)) if pid.bytes().all(|b| b.is_ascii_digit()) => {
                (pid, rest.trim_start())
            }
            _ => ("", line),
        };
        if *first.get_or_insert(pid) != pid {
            continue;
        }
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        let count = counts.entry(name).or_default();
        *count += 1;
        points.push((name.to_owned(), *count));
    }
    if !everywhere() {
        points.retain(|(name, _)| which.contains(&name.as_str()));
    }
    points
}

#[allow(clippy::disallowed_methods, reason = "a test's own switch")]
fn everywhere() -> bool {
    std::env::var(EVERYWHERE).is_ok()
}

fn inject((name, count): &Point) -> String {
    format!("inject={name}:signal=KILL:when={count}")
}

/// What kills did.
#[derive(Debug, Default)]
struct Tally {
    points: usize,
    killed: usize,
    as_old: usize,
    as_new: usize,
    between: usize,
    wrong: Vec<String>,
}

/// A namespace with the old rules, where kills are tried.
struct Range {
    runtime: tokio::runtime::Runtime,
    which: Which,
    dir: tempfile::TempDir,
    kernel: Kernel,
    rules: (Ruleset, Ruleset),
    packets: Vec<(Packet, Vec<Pass>)>,
    old: Seen,
    new: Seen,
    tally: Tally,
}

/// Runs a tool, under strace when it is its turn.
const TURNS: &str = r#"#!/bin/sh
dir=$1
shift
runs=$(($(cat "$dir/runs") + 1))
echo $runs >"$dir/runs"
if [ "$runs" = "$(cat "$dir/turn")" ]; then
    exec strace -f -qq -o "$dir/trace" $(cat "$dir/how") "$@"
fi
exec "$@"
"#;

impl Range {
    fn new(which: Which) -> Self {
        let runtime = runtime();
        let dir = tempfile::tempdir().expect("directory");
        let script = dir.path().join("turns");
        fs::write(&script, TURNS).expect("script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
        let rules = rulesets();
        let packets = packets();
        let turns = Turns(dir.path().to_owned());
        turns.set(0, "");
        let runner = Runner {
            wrapper: [&script, dir.path()]
                .map(|path| path.display().to_string())
                .into(),
            ..Runner::default()
        };
        let mut kernel = runtime.block_on(Kernel::new(which, runner));
        let mut seen = |rules: &Ruleset| {
            runtime.block_on(async {
                kernel.sync(rules).await.expect("synced");
                kernel.seen(&packets).await
            })
        };
        let new = seen(&rules.1);
        let old = seen(&rules.0);
        if let (Seen::Verdicts(old), Seen::Verdicts(new)) = (&old, &new) {
            let both = |a, b| old.iter().zip(new).filter(|pair| *pair == (&a, &b)).count();
            let counts = [
                both(true, true),
                both(false, false),
                both(true, false),
                both(false, true),
            ];
            assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
        }
        assert_ne!(old, new);
        Self {
            runtime,
            which,
            dir,
            kernel,
            rules,
            packets,
            old,
            new,
            tally: Tally::default(),
        }
    }

    fn turns(&self) -> Turns {
        Turns(self.dir.path().to_owned())
    }

    /// Looks at what a kill left, and sees to it that the old rules are there for the next one.
    fn judge(&mut self, what: &str, killed: bool) {
        self.turns().set(0, "");
        let Self {
            runtime,
            kernel,
            rules: (old, new),
            packets,
            tally,
            ..
        } = self;
        runtime.block_on(async {
            let seen = kernel.seen(packets).await;
            tally.points += 1;
            tally.killed += usize::from(killed);
            match (seen == self.old, seen == self.new) {
                (true, _) => tally.as_old += 1,
                (_, true) => tally.as_new += 1,
                _ if is_sound(&seen, &self.old, &self.new) => tally.between += 1,
                _ => tally.wrong.push(what.to_owned()),
            }
            if !killed && seen != self.new {
                tally.wrong.push(format!(
                    "{what}: nothing was killed, and the rules are not new"
                ));
            }
            // A new run starts from what it reads.
            kernel.verify(new).await.expect("repaired");
            let rest = kernel.verify(new).await.expect("read back");
            if rest.changed() {
                tally
                    .wrong
                    .push(format!("{what}: after the repair\n{}", rest.plan));
            }
        });
        // The kernel holds a set for a moment after the last rule that looked it up.
        eventually(PATIENCE, || {
            let rest = runtime
                .block_on(kernel.verify(new))
                .expect("read back")
                .plan;
            if rest.is_empty() { Ok(()) } else { Err(rest) }
        });
        runtime
            .block_on(kernel.sync(old))
            .expect("back to the old rules");
    }

    /// Kills each tool of the apply at each of its points.
    fn kill_tools(&mut self) {
        let turns = self.turns();
        let apply = |range: &mut Self, turn: usize, how: &str| {
            turns.set(turn, how);
            let new = &range.rules.1;
            let done = range.runtime.block_on(range.kernel.sync(new));
            (done, turns.runs())
        };
        let (done, tools) = apply(self, 0, "");
        done.expect("applied");
        self.judge("no kill", false);
        for tool in 1..=tools {
            let (done, _) = apply(self, tool, "");
            done.expect("applied under strace");
            self.judge("no kill", false);
            let log = fs::read_to_string(self.dir.path().join("trace")).expect("trace");
            for point in points(&log, &CHANGES) {
                let (done, _) = apply(self, tool, &format!("-e {}", inject(&point)));
                let log = fs::read_to_string(self.dir.path().join("trace")).expect("trace");
                let killed = log.contains("+++ killed by SIGKILL +++");
                assert!(killed || done.is_ok(), "{point:?}: {done:?}");
                self.judge(&format!("tool {tool} of {tools}, {point:?}"), killed);
            }
        }
    }

    /// Kills npc with its tools at each of its points.
    fn kill_npc(&mut self) {
        let log = self.dir.path().join("trace");
        let whole = Npc::start(self.which).apply(&["-o", &log.display().to_string()]);
        assert!(whole, "{:?}: applied under strace", self.which);
        self.judge("no kill", false);
        let log = fs::read_to_string(log).expect("trace");
        for point in points(&log, &STEPS) {
            let how = inject(&point);
            let survived = Npc::start(self.which).apply(&["-o", "/dev/null", "-e", &how]);
            self.judge(&format!("npc, {point:?}"), !survived);
        }
    }
}

/// Which tool is put under strace, and how.
struct Turns(PathBuf);

impl Turns {
    fn set(&self, turn: usize, how: &str) {
        for (file, text) in [("runs", "0"), ("turn", &turn.to_string()), ("how", how)] {
            fs::write(self.0.join(file), text).expect("written");
        }
    }

    fn runs(&self) -> usize {
        let text = fs::read_to_string(self.0.join("runs")).expect("runs");
        text.trim().parse().expect("a number")
    }
}

/// This test program as the npc that is killed, process 1 of a PID namespace.
struct Npc {
    unshare: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// The thread that applies.
    thread: String,
}

#[allow(clippy::disallowed_methods, reason = "tests start tools")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

impl Npc {
    fn start(which: Which) -> Self {
        let number = Which::ALL.iter().position(|other| *other == which);
        let mut unshare = command("unshare")
            .args(["--fork", "--pid", "--kill-child=KILL"])
            .arg(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "killed::npc_that_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(APPLY, number.expect("one of all").to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("unshare");
        let mut lines = BufReader::new(unshare.stdout.take().expect("stdout")).lines();
        let ready = lines.by_ref().any(|line| line.expect("line") == "ready");
        assert!(ready, "npc is not ready");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child = fs::read_to_string(children).expect("the child");
        let tasks = Path::new("/proc").join(child.trim()).join("task");
        let mut threads = fs::read_dir(&tasks).expect("threads").map(|task| {
            let task = task.expect("thread").path();
            let name = fs::read_to_string(task.join("comm")).expect("name");
            (
                name.trim().to_owned(),
                task.file_name().expect("id").to_string_lossy().into_owned(),
            )
        });
        let thread = threads.find(|(name, _)| name == THREAD);
        Self {
            unshare,
            lines,
            thread: thread.expect("the thread of the test").1,
        }
    }

    /// Lets it apply the new rules under strace: does it survive?
    fn apply(mut self, how: &[&str]) -> bool {
        let mut strace = command("strace")
            .args(["-p", &self.thread])
            .args(how)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace");
        let mut words = BufReader::new(strace.stderr.take().expect("stderr")).lines();
        let attached = words
            .by_ref()
            .any(|line| line.expect("line").contains("attached"));
        assert!(attached, "strace did not attach");
        let mut stdin = self.unshare.stdin.take().expect("stdin");
        stdin.write_all(b"go\n").expect("told to go");
        let done = self
            .lines
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line == "done");
        // Only when everything in the PID namespace is dead.
        self.unshare.wait().expect("ended");
        for _ in words {}
        strace.wait().expect("ended");
        done
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
#[allow(
    clippy::disallowed_methods,
    reason = "how the test's processes are told"
)]
fn npc_that_is_killed() {
    // On its own it has nothing to do.
    let Ok(number) = std::env::var(APPLY) else {
        return;
    };
    let which = Which::ALL[number.parse::<usize>().expect("a number")];
    let apply = std::thread::Builder::new().name(THREAD.to_owned());
    let apply = apply.spawn(move || apply_when_told(which));
    apply.expect("a thread").join().expect("applied");
}

fn apply_when_told(which: Which) {
    let (old, new) = rulesets();
    let runtime = runtime();
    let mut kernel = runtime.block_on(Kernel::new(which, Runner::default()));
    let done = runtime.block_on(kernel.sync(&old)).expect("synced");
    assert!(!done.changed(), "{}", done.plan);
    println!("\nready");
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).expect("told to go");
    runtime.block_on(kernel.sync(&new)).expect("synced");
    println!("\ndone");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

fn kills(which: Which) {
    let ns = Netns::new();
    let tallies = ns.run(move || {
        let mut range = Range::new(which);
        range.kill_tools();
        let tools = std::mem::take(&mut range.tally);
        range.kill_npc();
        [tools, range.tally]
    });
    for (what, tally) in ["a tool", "npc"].into_iter().zip(&tallies) {
        println!("{which:?}, {what} killed: {tally:?}");
        assert_eq!(tally.wrong, [""; 0], "{which:?}, {what} killed");
        assert!(tally.killed >= 3, "{which:?}, {what} killed: {tally:?}");
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn kills_leave_what_both_rulesets_agree_on_in_iptables_nft() {
    kills(Which::Iptables(Variant::Nft));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn kills_leave_what_both_rulesets_agree_on_in_iptables_legacy() {
    kills(Which::Iptables(Variant::Legacy));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn kills_leave_the_old_or_the_new_rules_in_nftables() {
    kills(Which::Nftables);
}
