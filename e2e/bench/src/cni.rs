//! CNI ADD and DEL: weft's plugin with its router and npc, against `bridge` + `host-local`.
//!
//! The plugins are executed as the runtime does it, from inside the node's namespaces: one process
//! per call, configuration on standard input. weft's calls are for Pod objects bound to the node,
//! whose kubelet is stopped meanwhile so that it does not attach them itself: the ordinary path,
//! with the pod looked up and the policy gate passed.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    node::Lab,
    report::{Budget, Row},
    sample::{Spread, quantile, ratios, spread},
};

const NODE: &str = "n1";
/// Rounds that warm caches and are not counted.
const WARM_UP: usize = 3;
const NAMESPACE: &str = "weft-bench";

/// Arguments of the part that runs inside the node.
#[derive(clap::Args)]
pub(crate) struct InNode {
    #[arg(long)]
    plugins: PathBuf,
    #[arg(long)]
    attachments: usize,
    /// UIDs of the pods to attach, in order.
    #[arg(long, value_delimiter = ',')]
    pods: Vec<String>,
}

/// Milliseconds per call.
#[derive(Default, Serialize, Deserialize)]
struct Times {
    weft_add: Vec<f64>,
    weft_del: Vec<f64>,
    bridge_add: Vec<f64>,
    bridge_del: Vec<f64>,
    again_add: Vec<f64>,
    again_del: Vec<f64>,
}

/// Runs the in-node part and forms the rows.
pub(crate) fn measure(lab: &Lab, plugins: &Path, attachments: usize) -> anyhow::Result<Vec<Row>> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the same program runs again inside the node"
    )]
    let me = std::env::current_exe()?;
    let plugins = std::fs::canonicalize(plugins)
        .with_context(|| format!("{}: no plugins there", plugins.display()))?;
    let pods = Pods::create(lab, attachments + WARM_UP)?;
    let text = lab.run(
        NODE,
        &[
            &me.display().to_string(),
            "cni",
            "--plugins",
            &plugins.display().to_string(),
            "--attachments",
            &attachments.to_string(),
            "--pods",
            &pods.uids.join(","),
        ],
    )?;
    drop(pods);
    let times: Times = serde_json::from_str(text.lines().last().unwrap_or_default())
        .with_context(|| format!("unexpected output: {text}"))?;
    let mut rows = Vec::new();
    for (verb, ours, other, again, budget) in [
        (
            "ADD",
            &times.weft_add,
            &times.bridge_add,
            &times.again_add,
            Budget::AtMost(0.5),
        ),
        (
            "DEL",
            &times.weft_del,
            &times.bridge_del,
            &times.again_del,
            Budget::None,
        ),
    ] {
        for (name, q, budget) in [("p50", 0.5, budget), ("p99", 0.99, Budget::None)] {
            let (a, b) = (quantile(ours, q), quantile(other, q));
            // The median of a row is the ratio of the quantiles; its ends are the paired ratios'.
            let paired = spread(&ratios(ours, other));
            let control = spread(&ratios(other, again));
            let around = |s: Spread, m: f64| Spread { median: m, ..s };
            rows.push(Row::new(
                &format!("CNI {verb} {name} ms, weft / bridge+host-local"),
                "lab",
                (a, b),
                around(paired, a / b),
                Some(around(control, b / quantile(again, q))),
                budget,
            ));
        }
    }
    Ok(rows)
}

/// Times both plugins in turn and prints [`Times`] as JSON.
pub(crate) fn in_node(arguments: &InNode) -> anyhow::Result<()> {
    let weft = json!({"cniVersion": "1.0.0", "name": "weft", "type": "weft-cni"});
    let state = format!("/run/weft-bench-{}", std::process::id());
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "weft-bench", "type": "bridge", "bridge": "weftbench1",
        "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": state, "ranges": [[{"subnet": "198.51.100.0/24"}]]}
    });
    let weft = Plugin {
        binary: "/opt/cni/bin/weft-cni".into(),
        path: "/opt/cni/bin".into(),
        conf: weft,
    };
    let bridge = Plugin {
        binary: arguments.plugins.join("bridge"),
        path: arguments.plugins.clone(),
        conf: bridge,
    };
    let mut times = Times::default();
    let result = (0..arguments.attachments + WARM_UP).try_for_each(|i| -> anyhow::Result<()> {
        let counted = i >= WARM_UP;
        let uid = arguments.pods.get(i).context("too few pods")?;
        let mut order: Vec<(&Plugin, u8)> = vec![(&weft, 0), (&bridge, 1), (&bridge, 2)];
        if i % 2 == 1 {
            order.reverse();
        }
        for (plugin, slot) in order {
            let (add, del) = plugin.round(i, slot, uid)?;
            if counted {
                let (adds, dels) = match slot {
                    0 => (&mut times.weft_add, &mut times.weft_del),
                    1 => (&mut times.bridge_add, &mut times.bridge_del),
                    _ => (&mut times.again_add, &mut times.again_del),
                };
                adds.push(add);
                dels.push(del);
            }
        }
        Ok(())
    });
    let _ = run(&["ip", "link", "del", "weftbench1"]);
    let _ = std::fs::remove_dir_all(&state);
    result?;
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

fn pod_name(i: usize) -> String {
    format!("weft-bench-{i}")
}

/// Pods bound to [`NODE`] that no kubelet starts; gone, and the kubelet back, when dropped.
struct Pods<'a> {
    lab: &'a Lab,
    uids: Vec<String>,
}

impl<'a> Pods<'a> {
    fn create(lab: &'a Lab, count: usize) -> anyhow::Result<Self> {
        lab.component("stop", "kubelet", NODE)?;
        let mut pods = Self {
            lab,
            uids: Vec::new(),
        };
        let items: Vec<_> = (0..count)
            .map(|i| {
                json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": NAMESPACE, "name": pod_name(i)},
                    "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 0,
                        "automountServiceAccountToken": false,
                        "tolerations": [{"operator": "Exists"}],
                        "containers": [{"name": "none", "image": "none.invalid/none"}]}})
            })
            .collect();
        lab.kubectl(&["create", "namespace", NAMESPACE])?;
        lab.kubectl_with_input(
            &["create", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string(),
        )?;
        let listed = lab.kubectl(&[
            "-n",
            NAMESPACE,
            "get",
            "pods",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}",
        ])?;
        let uids: BTreeMap<&str, &str> = listed.lines().filter_map(|l| l.split_once(' ')).collect();
        for i in 0..count {
            let name = pod_name(i);
            let uid = uids.get(name.as_str());
            pods.uids
                .push((*uid.with_context(|| format!("pod {name} has no UID"))?).to_owned());
        }
        Ok(pods)
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let gone = self
            .lab
            .kubectl(&[
                "-n",
                NAMESPACE,
                "delete",
                "pods",
                "--all",
                "--force",
                "--grace-period=0",
            ])
            .and_then(|_| self.lab.kubectl(&["delete", "namespace", NAMESPACE]))
            .and_then(|_| self.lab.component("start", "kubelet", NODE));
        if let Err(error) = gone {
            println!("namespace {NAMESPACE} or the stopped kubelet of {NODE} is left: {error:#}");
        }
    }
}

struct Plugin {
    binary: PathBuf,
    path: PathBuf,
    conf: serde_json::Value,
}

impl Plugin {
    /// One ADD and one DEL in a fresh namespace; milliseconds of each.
    fn round(&self, i: usize, slot: u8, uid: &str) -> anyhow::Result<(f64, f64)> {
        let netns = format!("weftbench-{i}-{slot}");
        run(&["ip", "netns", "add", &netns])?;
        let result = (|| {
            let add = self.call("ADD", &netns, (i, slot), uid)?;
            let del = self.call("DEL", &netns, (i, slot), uid)?;
            Ok((add, del))
        })();
        run(&["ip", "netns", "del", &netns])?;
        result
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "executing a plugin is what is measured"
    )]
    fn call(
        &self,
        verb: &str,
        netns: &str,
        (i, slot): (usize, u8),
        uid: &str,
    ) -> anyhow::Result<f64> {
        let id = format!("{:07x}{slot}beef{i:052x}", i * 8 + usize::from(slot));
        let start = Instant::now();
        let mut child = Command::new(&self.binary)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &id)
            .env("CNI_NETNS", format!("/run/netns/{netns}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={};\
                     K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}",
                    pod_name(i)
                ),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        child
            .stdin
            .take()
            .context("the plugin's standard input is closed")?
            .write_all(self.conf.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let elapsed = start.elapsed();
        if !output.status.success() {
            bail!(
                "{} {verb}: {}{}",
                self.binary.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(elapsed.as_secs_f64() * 1000.0)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "namespaces and clean-up by iproute2"
)]
fn run(command: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!(
            "{}: {}",
            command.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}
