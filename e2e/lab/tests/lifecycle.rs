//! `down` leaves the machine as it was, however far `up` came.
//!
//! These tests start the one lab that this machine can have, so they run one after the other and
//! fail when a lab is up already: `cargo test -p weft-lab --test lifecycle -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
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

/// Everything of the machine that a lab could have touched, one line per thing.
///
/// What other programs make all the time is left out: their cgroups, and named network namespaces
/// (which a lab does not use).
fn machine() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut add = |kind: &str, text: &str| {
        lines.extend(text.lines().map(|line| format!("{kind}: {line}")));
    };
    add("route", &output("ip", &["route", "show", "table", "all"]));
    add("rule", &output("iptables-save", &[]));
    for entry in fs::read_dir("/sys/class/net").unwrap() {
        add("link", &entry.unwrap().file_name().to_string_lossy());
    }
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        if !line.contains(" /run/netns") {
            add("mount", line);
        }
    }
    for line in output(
        "find",
        &["/sys/fs/cgroup", "-type", "d", "-name", "weft-lab*"],
    )
    .lines()
    {
        add("cgroup", line);
    }
    for name in [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
    ] {
        let value = fs::read_to_string(format!("/proc/sys/{name}")).unwrap();
        add("sysctl", &format!("{name} = {value}"));
    }
    for path in [
        "/etc/cni",
        "/etc/kubernetes",
        "/opt/cni",
        "/opt/containerd",
        "/run/containerd",
        "/usr/libexec/kubernetes",
        "/var/lib/cni",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/var/lib/weft",
        "/var/log/containers",
        "/var/log/pods",
    ] {
        if Path::new(path).exists() {
            add("file", path);
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|pair| pair.starts_with(b"WEFT_LAB_ID="))
        {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            add(
                "process",
                &format!("{} {name}", entry.file_name().display()),
            );
        }
    }
    if lab().layout().root().exists() {
        add("file", "target/lab");
    }
    lines
}

/// The machine before a lab; fails when there is one.
fn machine_without_lab() -> BTreeSet<String> {
    let lines = machine();
    assert!(
        !lines.contains("file: target/lab"),
        "a lab is up; run `cargo xtask lab down` first"
    );
    lines
}

#[track_caller]
fn assert_unchanged(before: &BTreeSet<String>, when: &str) {
    let after = machine();
    let left: Vec<&String> = after.difference(before).collect();
    let lost: Vec<&String> = before.difference(&after).collect();
    assert!(
        left.is_empty() && lost.is_empty(),
        "{when}: left behind {left:#?}, lost {lost:#?}"
    );
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
    let mut cargo = command(env!("CARGO"), &build);
    // What cargo says of this test: build scripts that watch these (ring's) would see a change, and
    // an xtask that is running these tests would be replaced by one that was built anew.
    for (name, _) in std::env::vars_os() {
        let of_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_NAME"];
        if of_test
            .iter()
            .any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()))
        {
            cargo.env_remove(name);
        }
    }
    assert!(cargo.current_dir(repository()).status().unwrap().success());
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
    let before = machine_without_lab();
    let _down = Down;

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

    // A container outlives its daemons, but not `down`. It needs no CNI in the host's network.
    run_pod(&lab, "n1");
    assert!(lab.down().unwrap());
    assert_unchanged(&before, "after down");
    assert!(!lab.down().unwrap(), "nothing is left to remove");
}

/// Runs a pod in the host network of `node` and waits until it is ready.
fn run_pod(lab: &Lab, node: &str) {
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web" },
        "spec": {
            "nodeName": node,
            "hostNetwork": true,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "web",
                "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
                "args": ["netexec"],
            }],
        },
    });
    let kubeconfig = format!("--kubeconfig={}", lab.layout().admin_kubeconfig().display());
    let kubectl = lab.layout().programs().join("kubectl");
    let mut create = command(&kubectl, &[&kubeconfig, "create", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    create
        .stdin
        .take()
        .unwrap()
        .write_all(pod.to_string().as_bytes())
        .unwrap();
    assert!(create.wait().unwrap().success());
    let wait = [
        &kubeconfig,
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod/web",
    ];
    assert!(
        command(&kubectl, &wait)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}

/// Takes the lab down when a test fails, so that the next one meets a clean machine.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        if let Err(error) = lab().down() {
            eprintln!("cannot take the lab down: {error:#}");
        }
    }
}

/// A moment of `up`, by what the state file says.
type Moment = (&'static str, fn(&Value) -> bool);

#[test]
#[ignore = "needs root: starts a lab"]
fn down_leaves_the_machine_as_it_was_after_a_crash_of_up() {
    let _alone = alone();
    let lab = lab();
    lab.build().unwrap();
    let before = machine_without_lab();
    let _down = Down;

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
        assert_unchanged(&before, moment);
    }
}

#[test]
#[ignore = "needs root: starts a lab"]
fn down_finds_a_lab_whose_files_were_deleted() {
    let _alone = alone();
    let lab = lab();
    lab.build().unwrap();
    let before = machine_without_lab();
    let _down = Down;

    // As `cargo clean` does it.
    lab.up(&options()).unwrap();
    // The daemons go on writing, so one pass may meet a directory that is not empty again.
    eventually("the files to be gone", || {
        fs::remove_dir_all(lab.layout().root()).is_ok() || !lab.layout().root().exists()
    });
    assert!(lab.down().unwrap());
    assert_unchanged(&before, "after down");
}
