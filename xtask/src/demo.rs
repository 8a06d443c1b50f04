//! `cargo xtask demo`: the main job, shown to a person. Builds the image, starts a cluster,
//! installs weft as a user would, and prints what is there now in plain words. Called again while
//! it is up, it says so and only shows.

mod matrix;
mod picture;
mod pods;
mod trace;

use std::{
    fs,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    cluster::{self, kubectl},
    command::{at, output, pause, run},
    image, install, packages, wait,
};
use pods::Pod;

/// How long pods may take to run, after the nodes are Ready.
const PODS: Duration = Duration::from_secs(60);

/// Shows everything; makes what is not there yet.
///
/// # Errors
/// A step failed; the message says which, and the cluster stays up to be looked at.
pub(crate) fn up() -> Result<()> {
    let begun = Instant::now();
    packages::install("the path trace of the demo", &["tcpdump", "iproute2"])?;
    if cluster::is_up() && install::is_installed() && pods::exist() {
        heading("The demo is already up: this is its state");
        println!("(`make demo-down` removes it; `make install` brings in a changed build)");
    } else {
        make()?;
    }
    show()?;
    println!("\nDone in {} s.", begun.elapsed().as_secs());
    Ok(())
}

/// Removes what [`up`] made, the cluster with it.
///
/// # Errors
/// As `cargo xtask lab down`.
pub(crate) fn down() -> Result<()> {
    // Pods, policy and release are in the cluster and go with it.
    cluster::down()?;
    let _ = fs::remove_dir_all(at("target/demo"));
    Ok(())
}

fn make() -> Result<()> {
    if cluster::is_up() && install::is_installed() {
        heading("A cluster with weft is up: it is used as it is");
        println!("(`make install` brings in a changed build)");
    } else {
        heading(
            "1. The image: weft's static binaries and Debian's iptables, ipset, nft, conntrack",
        );
        let archive = image::build(image::Arch::host())?;

        heading("2. A Kubernetes cluster: every node is a network namespace with its own kubelet");
        if cluster::is_up() {
            println!("A lab is already up; it is used as it is.");
        } else {
            cluster::up()?;
        }

        heading("3. Install, as a user does it");
        install::run_in_lab(&archive).inspect_err(|_| explain())?;
    }

    heading("4. Four pods to look at");
    pods::apply(&nodes()?)?;
    wait_for_pods()
}

fn show() -> Result<()> {
    let nodes = nodes()?;
    let pods = pods::list()?;
    ensure!(
        !pods.is_empty(),
        "the demo has no pods: run `make demo-down` and `make demo` again"
    );

    heading("Nodes, and pods with their addresses");
    kubectl_shown(&["get", "nodes", "-o", "wide"])?;
    kubectl_shown(&["get", "pods", "-n", pods::NAMESPACE, "-o", "wide"])?;

    heading("Where the addresses come from");
    println!(
        "An IPPool is cut into blocks; a node hands out addresses of its own blocks alone, so a pod\n\
         starts also while the API server is away.\n"
    );
    for kind in ["weftnetworks", "ippools", "ipblocks", "weftnodes"] {
        kubectl_shown(&["get", kind])?;
    }

    let (from, to) = cross_node(&pods);
    heading(&format!("The picture on node {}", from.node));
    let links = cluster::output_inside(&from.node, &["ip", "-d", "-j", "address", "show"])?;
    print!("{}", picture::draw(&links, &pods)?);

    heading("One ping from node to node");
    trace(from, to)?;

    heading("Who reaches whom, without a policy");
    pods::remove_policy()?;
    let open = settled(&pods, |_, _| true)?;
    print!("{}", matrix::draw(&pods, &open));
    let all_open = matrix::agrees(&pods, &open, |_, _| true);

    heading("Who reaches whom, with a policy: only `web` may reach `database`");
    print!("{}", pods::POLICY);
    pods::apply_policy()?;
    // A pod always reaches itself, whatever its policies say.
    let expected = |from: &Pod, to: &Pod| {
        to.name != pods::GUARDED || from.name == pods::ADMITTED || from.name == to.name
    };
    let closed = settled(&pods, expected)?;
    print!("{}", matrix::draw(&pods, &closed));
    println!("The policy stays: try it yourself.");

    next(&nodes, from, to);
    ensure!(all_open, "without a policy every pod must reach every pod");
    ensure!(
        matrix::agrees(&pods, &closed, expected),
        "the matrix with the policy is not what the policy says"
    );
    Ok(())
}

/// Measures the matrix until it is as expected, at most a few times: a policy takes a moment from
/// the API server to the kernel. The last matrix is the answer, right or wrong.
fn settled(pods: &[Pod], expected: impl Fn(&Pod, &Pod) -> bool) -> Result<matrix::Matrix> {
    let mut matrix = matrix::measure(pods)?;
    for _ in 0..3 {
        if matrix::agrees(pods, &matrix, &expected) {
            break;
        }
        pause(Duration::from_secs(1));
        matrix = matrix::measure(pods)?;
    }
    Ok(matrix)
}

fn trace(from: &Pod, to: &Pod) -> Result<()> {
    if from.node == to.node {
        println!("The cluster has one node: there is no other one to ping.");
        return Ok(());
    }
    println!(
        "{} ({}, node {}) pings {} ({}, node {}); captured on every device of both nodes:\n",
        from.name, from.address, from.node, to.name, to.address, to.node
    );
    let crossings = trace::capture(from, to)?;
    print!("{}", trace::draw(&crossings));
    ensure!(
        !crossings.is_empty(),
        "the capture saw no packet of the ping; see `kubectl -n {} exec {} -- weft-probe ping {}`",
        pods::NAMESPACE,
        from.name,
        to.address
    );
    Ok(())
}

/// Two pods on different nodes, or the first two.
fn cross_node(pods: &[Pod]) -> (&Pod, &Pod) {
    let from = &pods[0];
    let to = pods
        .iter()
        .find(|pod| pod.node != from.node)
        .or_else(|| pods.get(1))
        .unwrap_or(from);
    (from, to)
}

fn next(nodes: &[String], from: &Pod, to: &Pod) {
    let namespace = pods::NAMESPACE;
    let node = nodes.first().map_or("n1", String::as_str);
    heading("What to try next");
    println!(
        "  export KUBECONFIG={} PATH={}:$PATH",
        cluster::kubeconfig().display(),
        at("target/lab/bin").display()
    );
    let commands = [
        (
            "kubectl get weftnetwork default -o yaml".into(),
            "how the network stands",
        ),
        (format!("kubectl describe weftnode {node}"), "one node"),
        (
            format!(
                "kubectl -n {namespace} exec {} -- weft-probe ping {}",
                from.name, to.address
            ),
            "a ping by hand",
        ),
        (
            format!("kubectl -n {namespace} delete networkpolicy --all"),
            "open everything again",
        ),
        (
            "kubectl -n kube-system delete pod -l app.kubernetes.io/part-of=weft".into(),
            "traffic goes on",
        ),
        (
            format!("cargo xtask lab enter {node} -- ip -d link"),
            "the devices of a node",
        ),
        (
            format!("cargo xtask lab enter {node} -- iptables-save"),
            "its rules",
        ),
        ("helm test weft -n kube-system".into(), "connectivity test"),
        ("make e2e".into(), "every test of a running cluster"),
        (
            "make bench".into(),
            "speed against host-to-host and a VXLAN floor",
        ),
        ("make demo-down".into(), "remove all of this"),
    ];
    for (command, meaning) in commands {
        println!("  {command:<70} # {meaning}");
    }
}

fn nodes() -> Result<Vec<String>> {
    let list: Value = serde_json::from_str(&output(kubectl(&["get", "nodes", "-o", "json"]))?)?;
    let names: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["metadata"]["name"].as_str().map(String::from))
        .collect();
    ensure!(!names.is_empty(), "the cluster has no nodes");
    Ok(names)
}

fn wait_for_pods() -> Result<()> {
    let waited = wait::until(PODS, "what the cluster says above", || {
        let pods = pods::list()?;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        let now = format!("{ready} of {} pods are ready", pods::COUNT);
        Ok(if ready == pods::COUNT {
            ControlFlow::Break(now)
        } else {
            ControlFlow::Continue(now)
        })
    });
    if waited.is_err() {
        explain();
    }
    waited
}

/// Prints what a person needs when a step failed; the cluster stays up.
fn explain() {
    println!("\nThis did not work. What the cluster says:");
    for arguments in [
        ["get", "pods", "-A", "-o", "wide"].as_slice(),
        &["get", "weftnetworks,ippools,ipblocks,weftnodes"],
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        &[
            "logs",
            "-n",
            "kube-system",
            "-l",
            "app.kubernetes.io/part-of=weft",
            "--all-containers",
            "--prefix",
            "--tail=15",
            "--ignore-errors",
        ],
    ] {
        let _ = kubectl_shown(arguments);
    }
    println!("The cluster stays up: look around, then `make demo-down`.");
}

/// Runs kubectl and shows the command above its output.
fn kubectl_shown(arguments: &[&str]) -> Result<()> {
    println!("$ kubectl {}", arguments.join(" "));
    run(kubectl(arguments)).context("ask the cluster")?;
    println!();
    Ok(())
}

fn heading(text: &str) {
    println!("\n=== {text}\n");
}
