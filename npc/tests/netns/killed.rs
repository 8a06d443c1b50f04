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

#[path = "killed/strace.rs"]
mod strace;

use std::{fs, os::unix::fs::PermissionsExt as _};

use weft_netfilter::{
    Family, Ruleset, TableName,
    backend::{Backend as _, Nft as _, Tools as _},
    exec::{Runner, Variant},
    fake::FakeKernel,
    nft::{Listing, read},
    trace::{Packet, Pass, trace},
};
use weft_npc::Kernel;
use weft_testkit::{eventually::eventually, netns::Netns};

use self::strace::{Npc, TURNS, Turns, inject, points};
use crate::{
    change::{packets, rulesets},
    world::PATIENCE,
};

/// Tells a process of this test program to be the npc that is killed.
const APPLY: &str = "WEFT_TEST_APPLY";
/// Its thread that applies.
const THREAD: &str = "apply";
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

async fn kernel(which: Which, runner: &Runner) -> Kernel {
    let kernel = match which {
        Which::Iptables(variant) => Kernel::iptables(runner, variant).await,
        Which::Nftables => Kernel::nftables(runner).await,
    };
    kernel.expect("tools")
}

async fn seen(kernel: &mut Kernel, packets: &[(Packet, Vec<Pass>)]) -> Seen {
    match kernel {
        Kernel::Iptables(backend) => {
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
        Kernel::Nftables(backend) => {
            let mut tables = Vec::new();
            for table in weft_npc::owned().tables() {
                let listed = backend.tool_mut().list(&table).await.expect("listed");
                tables.push(listed.map(|text| read(&text).expect("a table")));
            }
            Seen::Tables(tables)
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
        let mut kernel = runtime.block_on(kernel(which, &runner));
        let mut applied = |rules: &Ruleset| {
            runtime.block_on(async {
                kernel.sync(rules).await.expect("synced");
                seen(&mut kernel, &packets).await
            })
        };
        let new = applied(&rules.1);
        let old = applied(&rules.0);
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
            let seen = seen(kernel, packets).await;
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
    let mut kernel = runtime.block_on(kernel(which, &Runner::default()));
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
