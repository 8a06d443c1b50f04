//! Conformance: libcni's own `cnitool` drives the plugin through a conflist, in every version.

mod support;

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};
use support::{Node, Pod};

const CNITOOL: &str = "github.com/containernetworking/cni/cnitool@v1.3.0";

#[test]
#[ignore = "needs root, go and the Go module proxy"]
fn cnitool_adds_checks_and_deletes_in_every_version() {
    let cnitool = cnitool();
    let node = Node::new();
    let pod = Pod::new("cnitool");
    let conf_dir = node.dir.path().join("net.d");
    std::fs::create_dir_all(&conf_dir).unwrap();
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let mut plugin = node.conf();
        for key in ["cniVersion", "name"] {
            plugin.as_object_mut().unwrap().remove(key);
        }
        let list = json!({"cniVersion": version, "name": "weft", "plugins": [plugin]});
        std::fs::write(conf_dir.join("10-weft.conflist"), list.to_string()).unwrap();
        let latest = if version == "1.1.0" {
            "$tool status weft $ns &&"
        } else {
            ""
        };
        // The cache of results belongs to the script alone.
        let script = format!(
            "unshare -m sh -ec 'mount -t tmpfs cni /var/lib; \
             export NETCONFPATH={conf} CNI_PATH={bin}; tool={tool}; ns={ns}; \
             {latest} $tool add weft $ns && $tool check weft $ns && \
             ip netns exec {name} ping -c1 -W2 10.32.0.1 >&2 && \
             $tool del weft $ns && $tool del weft $ns'",
            conf = conf_dir.display(),
            bin = node.dir.path().display(),
            tool = cnitool.display(),
            ns = pod.ns.path(),
            name = pod.ns.name(),
        );
        // Waited for here, not on the namespace's thread: the router needs that one.
        let output = node.ns.spawn(&script).wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{version}: {log}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert_eq!(node.pod_links(), "", "{version}");
        assert_eq!(node.router.held(), 0, "{version}");
    }
}

/// Installed once per target directory.
#[allow(clippy::disallowed_methods, reason = "the test starts go")]
fn cnitool() -> PathBuf {
    let bin = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("gobin");
    let cnitool = bin.join("cnitool");
    if !cnitool.exists() {
        let status = Command::new("go")
            .args(["install", CNITOOL])
            .env("GOBIN", &bin)
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .status()
            .expect("run go");
        assert!(status.success(), "go install {CNITOOL}");
    }
    cnitool
}
