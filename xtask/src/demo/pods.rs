//! The pods of the demo and the policy on them.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    cluster::kubectl,
    command::{at, output},
    image::REFERENCE,
};

/// Namespace of the demo.
pub(super) const NAMESPACE: &str = "weft-demo";
/// TCP port that every pod serves.
pub(super) const PORT: u16 = 8080;
/// Names of the pods; they are spread over the nodes in this order.
const NAMES: [&str; COUNT] = ["web", "shop", "database", "stranger"];
/// How many there are.
pub(super) const COUNT: usize = 4;
/// The pod that the policy protects, and the one that it lets in.
pub(super) const GUARDED: &str = "database";
pub(super) const ADMITTED: &str = "web";

/// The policy, as a user would write it.
pub(super) const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: database
  namespace: weft-demo
spec:
  podSelector:
    matchLabels: {app: database}
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector:
            matchLabels: {app: web}
";

/// A pod of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    /// Name.
    pub(super) name: String,
    /// Node it runs on.
    pub(super) node: String,
    /// Its address; empty until it has one.
    pub(super) address: String,
    /// Condition `Ready`.
    pub(super) ready: bool,
}

/// Whether the demo's pods are in the cluster.
pub(super) fn exist() -> bool {
    list().is_ok_and(|pods| pods.len() == COUNT && pods.iter().all(|pod| pod.ready))
}

/// Makes namespace and pods, one after the other on each node.
pub(super) fn apply(nodes: &[String]) -> Result<()> {
    let mut items = vec![json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE},
    })];
    items.extend(
        NAMES
            .iter()
            .zip(nodes.iter().cycle())
            .map(|(name, node)| pod(name, node)),
    );
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    apply_file("pods.json", &list.to_string())
}

fn pod(name: &str, node: &str) -> Value {
    let port = PORT.to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "probe",
                "image": REFERENCE,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/usr/bin/weft-probe", "serve", "--tcp", port, "--udp", port],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
            }],
        },
    })
}

/// The pods, in the order of their names here.
pub(super) fn list() -> Result<Vec<Pod>> {
    let text = output(kubectl(&["get", "pods", "-n", NAMESPACE, "-o", "json"]))?;
    let list: Value = serde_json::from_str(&text).context("parse the list of pods")?;
    let mut pods: Vec<Pod> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(read)
        .collect();
    pods.retain(|pod| NAMES.contains(&pod.name.as_str()));
    pods.sort_by_key(|pod| NAMES.iter().position(|name| *name == pod.name));
    Ok(pods)
}

fn read(pod: &Value) -> Pod {
    let text = |pointer: &str| {
        pod.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Pod {
        name: text("/metadata/name"),
        node: text("/spec/nodeName"),
        address: text("/status/podIP"),
        ready: pod["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
    }
}

/// Applies the policy.
pub(super) fn apply_policy() -> Result<()> {
    apply_file("policy.yaml", POLICY)
}

/// Removes it; it need not be there.
pub(super) fn remove_policy() -> Result<()> {
    output(kubectl(&[
        "delete",
        "networkpolicy",
        "database",
        "-n",
        NAMESPACE,
        "--ignore-not-found",
    ]))
    .map(drop)
}

fn apply_file(name: &str, content: &str) -> Result<()> {
    let path: PathBuf = at("target/demo").join(name);
    fs::create_dir_all(at("target/demo"))?;
    fs::write(&path, content)?;
    output(kubectl(&["apply", "-f", &path.to_string_lossy()])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_read_with_address_and_readiness() {
        let value = json!({
            "metadata": {"name": "web"},
            "spec": {"nodeName": "n1"},
            "status": {"podIP": "10.32.0.2", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        assert_eq!(
            read(&value),
            Pod {
                name: "web".into(),
                node: "n1".into(),
                address: "10.32.0.2".into(),
                ready: true
            }
        );
    }

    #[test]
    fn policy_is_about_the_pods_that_the_demo_expects() {
        assert!(POLICY.contains(&format!(
            "podSelector:\n    matchLabels: {{app: {GUARDED}}}"
        )));
        assert!(POLICY.contains(&format!("            matchLabels: {{app: {ADMITTED}}}")));
        assert!(POLICY.contains(&format!("namespace: {NAMESPACE}\n")));
        assert!(NAMES.contains(&GUARDED) && NAMES.contains(&ADMITTED));
    }
}
