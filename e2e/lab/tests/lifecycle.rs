//! `down` leaves the machine as it was, however far `up` came.
//!
//! These tests start the one lab that this machine can have, so they run one after the other and
//! fail when a lab is up already: `cargo test -p weft-lab --test lifecycle -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_lab::{Component, Families, Lab, Layout, Options, ProxyMode};

static ONE_LAB: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_LAB.lock().unwrap_or_else(PoisonError::into_inner)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

fn lab() -> Lab {
    let cache = std::env::var_os("WEFT_CACHE").map_or_else(
        || std::env::home_dir().unwrap().join(".cache/weft"),
        PathBuf::from,
    );
    Lab::new(Layout::new(&repository(), &cache))
}

fn options() -> Options {
    Options {
        nodes: 2,
        proxy_mode: ProxyMode::Iptables,
        families: Families::V4,
        underlay_mtu: 1500,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the test looks at the machine by its programs"
)]
fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = command(program, arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[allow(
    clippy::disallowed_methods,
    reason = "polls a process that sends no event"
)]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "waited 60 s for {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Everything of the machine that a lab could have touched.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    links: BTreeSet<String>,
    routes: String,
    iptables: String,
    mounts: String,
    cgroups: BTreeSet<String>,
    named_namespaces: BTreeSet<String>,
    sysctls: Vec<String>,
    directories: Vec<(&'static str, bool)>,
    lab_processes: BTreeSet<String>,
    files: bool,
}

impl Machine {
    fn look() -> Self {
        let list = |path: &str| -> BTreeSet<String> {
            fs::read_dir(path)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect()
        };
        Self {
            links: list("/sys/class/net"),
            routes: output("ip", &["route", "show", "table", "all"]),
            iptables: output("iptables-save", &[]),
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
            cgroups: output("find", &["/sys/fs/cgroup", "-type", "d"])
                .lines()
                .map(str::to_owned)
                .collect(),
            named_namespaces: list("/run/netns"),
            sysctls: ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic"]
                .iter()
                .map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap())
                .collect(),
            directories: [
                "/var/lib/kubelet",
                "/var/lib/cni",
                "/opt/cni",
                "/etc/cni",
                "/run/containerd",
            ]
            .map(|path| (path, Path::new(path).exists()))
            .into(),
            lab_processes: lab_processes(),
            files: repository().join("target/lab").exists(),
        }
    }
}

/// Processes that carry a lab's mark or run its programs.
fn lab_processes() -> BTreeSet<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let marked = environment
                .split(|byte| *byte == 0)
                .any(|pair| pair.starts_with(b"WEFT_LAB_ID="));
            marked || program.starts_with(lab().layout().cache())
        })
        .map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} {}", entry.file_name().display(), name.trim())
        })
        .collect()
}

fn state() -> Option<Value> {
    let text = fs::read(lab().layout().root().join("state.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

/// `xtask lab up` as a process of its own, which does not outlive the test.
struct Up(Child);

impl Up {
    fn spawn(xtask: &Path) -> Self {
        let mut command = command(xtask, &["lab", "up", "--nodes", "2"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Builds xtask and returns its path: it stands above this test's own directory.
fn xtask() -> PathBuf {
    let build = ["build", "--quiet", "--package", "xtask"];
    let status = command(env!("CARGO"), &build)
        .current_dir(repository())
        .status()
        .unwrap();
    assert!(status.success());
    std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("xtask")
}

#[test]
#[ignore = "needs root: starts a lab"]
fn down_leaves_the_machine_as_it_was_before_up() {
    let _alone = alone();
    let lab = lab();
    lab.build().unwrap();
    let before = Machine::look();
    assert!(
        !before.files,
        "a lab is up; run `cargo xtask lab down` first"
    );

    let start = Instant::now();
    lab.up(&options()).unwrap();
    let seconds = start.elapsed().as_secs();
    assert!(seconds < 45, "up took {seconds} s");
    assert!(lab.status().unwrap().unwrap().is_healthy());

    // A second `up` changes nothing; one with other options is refused.
    let first = state();
    lab.up(&options()).unwrap();
    assert_eq!(state(), first);
    let other = Options {
        nodes: 1,
        ..options()
    };
    assert_eq!(
        lab.up(&other).unwrap_err().to_string(),
        "a lab with other options is up (--nodes 2 --proxy-mode iptables --families v4 \
         --underlay-mtu 1500); run `cargo xtask lab down` first"
    );

    // Every component can be stopped and started.
    for (component, node) in [
        (Component::ApiServer, None),
        (Component::ControllerManager, None),
        (Component::Scheduler, None),
        (Component::Kubelet, Some("n1")),
        (Component::Containerd, Some("n1")),
        (Component::Proxy, Some("n1")),
        (Component::Link, Some("n1")),
    ] {
        lab.stop(component, node).unwrap();
        assert!(
            !lab.status().unwrap().unwrap().is_healthy(),
            "{component:?} is stopped"
        );
        lab.start(component, node).unwrap();
        assert!(
            lab.status().unwrap().unwrap().is_healthy(),
            "{component:?} is back"
        );
    }

    // A removed node leaves nothing behind; the next one has a new name.
    lab.remove_node("n2", true).unwrap();
    assert_eq!(lab.add_node(None).unwrap(), "n3");
    let status = lab.status().unwrap().unwrap();
    let names: Vec<&str> = status
        .members
        .iter()
        .map(|member| member.name.as_str())
        .collect();
    assert_eq!(names, ["hub", "outside", "n1", "n3"]);

    assert!(lab.down().unwrap());
    assert_eq!(Machine::look(), before);
    assert!(!lab.down().unwrap(), "nothing is left to remove");
}

/// A moment of `up`, by what the state file says.
type Moment = (&'static str, fn(&Value) -> bool);

#[test]
#[ignore = "needs root: starts a lab"]
fn down_leaves_the_machine_as_it_was_after_a_crash_of_up() {
    let _alone = alone();
    let lab = lab();
    lab.build().unwrap();
    let before = Machine::look();
    assert!(
        !before.files,
        "a lab is up; run `cargo xtask lab down` first"
    );

    let xtask = xtask();
    let moments: [Moment; 5] = [
        ("the state file is there", |_| true),
        ("the hub is held open", |state| {
            state["holders"]["hub"].is_object()
        }),
        ("a node is held open", |state| {
            state["holders"]["n1"].is_object()
        }),
        ("containerd runs", |state| {
            state["daemons"]["n2/containerd"].is_object()
        }),
        ("the kubelet runs", |state| {
            state["daemons"]["n1/kubelet"].is_object()
        }),
    ];
    for (moment, reached) in moments {
        let mut up = Up::spawn(&xtask);
        eventually(moment, || {
            assert_eq!(up.0.try_wait().unwrap(), None, "up ended before: {moment}");
            state().is_some_and(|state| reached(&state))
        });
        up.kill();

        let refused = lab.up(&options()).unwrap_err().to_string();
        assert_eq!(
            refused, "a lab is here that did not finish starting; run `cargo xtask lab down` first",
            "{moment}"
        );
        assert!(lab.down().unwrap(), "{moment}");
        assert_eq!(Machine::look(), before, "{moment}");
    }
}

#[test]
#[ignore = "needs root: starts a lab"]
fn down_finds_a_lab_whose_files_were_deleted() {
    let _alone = alone();
    let lab = lab();
    lab.build().unwrap();
    let before = Machine::look();
    assert!(
        !before.files,
        "a lab is up; run `cargo xtask lab down` first"
    );

    // As `cargo clean` does it.
    lab.up(&options()).unwrap();
    // The daemons go on writing, so one pass may meet a directory that is not empty again.
    eventually("the files to be gone", || {
        fs::remove_dir_all(lab.layout().root()).is_ok() || !lab.layout().root().exists()
    });
    assert!(lab.down().unwrap());
    assert_eq!(Machine::look(), before);
}
