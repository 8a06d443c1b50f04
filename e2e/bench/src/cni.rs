//! CNI ADD and DEL: weft's plugin with its router and npc, against `bridge` + `host-local`.
//!
//! The plugins are executed as the runtime does it, from inside the node's namespaces: one process
//! per call, configuration on standard input. weft's calls carry the UID of a static pod (32 hex
//! digits), which npc answers without a Pod object (it starts closed); everything else is the
//! ordinary path, policy gate included.

use std::{
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

/// Arguments of the part that runs inside the node.
#[derive(clap::Args)]
pub(crate) struct InNode {
    #[arg(long)]
    plugins: PathBuf,
    #[arg(long)]
    attachments: usize,
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
    let text = lab.run(
        NODE,
        &[
            &me.display().to_string(),
            "cni",
            "--plugins",
            &plugins.display().to_string(),
            "--attachments",
            &attachments.to_string(),
        ],
    )?;
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
    let result = (0..arguments.attachments + 3).try_for_each(|i| -> anyhow::Result<()> {
        // Three rounds warm caches and are not counted.
        let counted = i >= 3;
        let mut order: Vec<(&Plugin, u8)> = vec![(&weft, 0), (&bridge, 1), (&bridge, 2)];
        if i % 2 == 1 {
            order.reverse();
        }
        for (plugin, slot) in order {
            let (add, del) = plugin.round(i, slot)?;
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

struct Plugin {
    binary: PathBuf,
    path: PathBuf,
    conf: serde_json::Value,
}

impl Plugin {
    /// One ADD and one DEL in a fresh namespace; milliseconds of each.
    fn round(&self, i: usize, slot: u8) -> anyhow::Result<(f64, f64)> {
        let netns = format!("weftbench-{i}-{slot}");
        run(&["ip", "netns", "add", &netns])?;
        let result = (|| {
            let add = self.call("ADD", &netns, i, slot)?;
            let del = self.call("DEL", &netns, i, slot)?;
            Ok((add, del))
        })();
        run(&["ip", "netns", "del", &netns])?;
        result
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "executing a plugin is what is measured"
    )]
    fn call(&self, verb: &str, netns: &str, i: usize, slot: u8) -> anyhow::Result<f64> {
        let id = format!("{:07x}{slot}beef{i:052x}", i * 8 + usize::from(slot));
        let uid = format!("{:032x}", 0xbe9c_0000_u64 + i as u64 * 8 + u64::from(slot));
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
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=weft-bench-{i}-{slot};\
                     K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}"
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
