//! `cargo xtask install`: what a user does with helm, with the image that was built here.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{
    cluster::{helm, is_up, kubectl, load_image},
    command::{output, run},
};

/// Namespace of the release.
pub(crate) const NAMESPACE: &str = "kube-system";

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
    run(helm(&[
        "upgrade",
        "--install",
        "weft",
        "charts/weft",
        "--namespace",
        NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
    ]))?;
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
    println!("waiting until every node is Ready");
    run(kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=120s",
    ]))?;
    Ok(())
}

/// Whether the release is there.
pub(crate) fn is_installed() -> bool {
    output(helm(&["status", "weft", "--namespace", NAMESPACE])).is_ok()
}
