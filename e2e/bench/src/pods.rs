//! Pods of a measurement, each bound to a node, in a namespace of their own.

use std::net::IpAddr;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::node::Lab;

/// Pods that wait; the namespace goes when this is dropped.
pub(crate) struct Pods<'a> {
    lab: &'a Lab,
    namespace: &'static str,
}

impl<'a> Pods<'a> {
    /// Starts pods by name and node in a namespace that is made for them, and waits until they are
    /// Ready. The name is also the label `app`.
    pub(crate) fn create(
        lab: &'a Lab,
        namespace: &'static str,
        pods: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        // A rest of a run that was killed.
        let _ = lab.kubectl(&[
            "delete",
            "namespace",
            namespace,
            "--ignore-not-found",
            "--wait=true",
        ]);
        let image = lab.kubectl(&[
            "-n",
            "kube-system",
            "get",
            "daemonset",
            "weft-node",
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])?;
        lab.kubectl(&["create", "namespace", namespace])?;
        let made = Self { lab, namespace };
        let pods: Vec<Value> = pods
            .iter()
            .map(|(name, node)| {
                json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
                    "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
                        "containers": [{"name": "wait", "image": image.trim(),
                            "imagePullPolicy": "IfNotPresent", "command": ["weft-probe", "wait"]}]}})
            })
            .collect();
        lab.kubectl_with_input(
            &["create", "-f", "-"],
            &json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string(),
        )?;
        lab.kubectl(&[
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "pod",
            "--all",
        ])?;
        Ok(made)
    }

    /// Address of one of them.
    pub(crate) fn address(&self, name: &str) -> anyhow::Result<IpAddr> {
        let words = ["-n", self.namespace, "get", "pod", name];
        let path = ["-o", "jsonpath={.status.podIP}"];
        let address = self.lab.kubectl(&[&words[..], &path].concat())?;
        address
            .trim()
            .parse()
            .with_context(|| format!("the address of pod {name} is {address:?}"))
    }
}

impl Drop for Pods<'_> {
    fn drop(&mut self) {
        let words = ["delete", "namespace", self.namespace, "--wait=false"];
        if let Err(error) = self.lab.kubectl(&words) {
            println!("namespace {} is left: {error:#}", self.namespace);
        }
    }
}
