//! `cargo xtask install`: what a user does with helm, with the image that was built here.

use std::{ops::ControlFlow, path::Path, time::Duration};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{
    cluster::{helm, is_up, kubectl, load_image},
    command::{output, run},
    lab, wait,
};

/// Namespace of the release.
pub(crate) const NAMESPACE: &str = "kube-system";

/// The chart's default pool with the lab's IPv6 range beside it.
const DUAL_STACK: &str =
    r#"pools=[{"name":"default","spec":{"cidrs":["10.32.0.0/12","fd32::/48"]}}]"#;

/// What tells a person why something does not get ready.
pub(crate) const LOOK_AT: &str = "`kubectl get weftnetworks,weftnodes` and the pods of kube-system";

/// How long nodes may take to become Ready after helm is done.
const NODES: Duration = Duration::from_secs(120);

/// Loads the image into the lab and installs or upgrades the chart; waits until every node is
/// Ready.
///
/// # Errors
/// No lab, helm refused, or the nodes did not become Ready in time.
pub(crate) fn run_in_lab(archive: &Path) -> Result<()> {
    ensure!(is_up(), "no lab is up; start one with `make lab-up`");
    let again = is_installed();
    load_image(archive)?;
    println!("$ helm upgrade --install weft charts/weft -n {NAMESPACE} --wait");
    let mut line = vec![
        "upgrade",
        "--install",
        "weft",
        "charts/weft",
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
    ];
    if lab::option("--families")? == "dual" {
        println!("  --set-json '{DUAL_STACK}'   (the lab has both families)");
        line.extend(["--set-json", DUAL_STACK]);
    }
    run(helm(&line))?;
    if again {
        // Another build under the same tag: nothing in the objects changed, so nothing restarted.
        println!("weft was installed already: restarting its pods with the image of this build");
        for object in ["deployment/weft-operator", "daemonset/weft-node"] {
            for verb in [["restart", object], ["status", object]] {
                let mut line = vec!["rollout", "--namespace", NAMESPACE];
                line.extend(verb);
                if verb[0] == "status" {
                    line.push("--timeout=180s");
                }
                run(kubectl(&line))?;
            }
        }
    }
    wait_for_nodes()
}

/// Waits until every node is Ready.
///
/// # Errors
/// No lab, or a node did not become Ready in time.
pub(crate) fn wait_for_nodes() -> Result<()> {
    wait::until(NODES, LOOK_AT, || {
        let list: Value = serde_json::from_str(&output(kubectl(&["get", "nodes", "-o", "json"]))?)?;
        let (ready, waiting) = readiness(&list);
        let now = format!("{ready} of {} nodes are Ready", ready + waiting.len());
        Ok(if !waiting.is_empty() {
            ControlFlow::Continue(format!("{now}; waiting for {}", waiting.join(", ")))
        } else if ready == 0 {
            ControlFlow::Continue(now)
        } else {
            ControlFlow::Break(now)
        })
    })
}

/// How many nodes are Ready, and the names of the others.
fn readiness(list: &Value) -> (usize, Vec<String>) {
    let mut ready = 0;
    let mut waiting = Vec::new();
    for node in list["items"].as_array().into_iter().flatten() {
        let is_ready = node["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        if is_ready {
            ready += 1;
        } else {
            waiting.push(node["metadata"]["name"].as_str().unwrap_or("?").to_owned());
        }
    }
    (ready, waiting)
}

/// Whether the release is there.
pub(crate) fn is_installed() -> bool {
    output(helm(&["status", "weft", "--namespace", NAMESPACE])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_that_are_not_ready_are_named() {
        let node = |name: &str, ready: &str| {
            json!({
                "metadata": {"name": name},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            })
        };
        let list = json!({"items": [node("n1", "True"), node("n2", "Unknown"), {"metadata": {"name": "n3"}}]});
        assert_eq!(readiness(&list), (1, vec!["n2".into(), "n3".into()]));
    }
}
