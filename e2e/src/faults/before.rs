//! What the experiments change of weft and its lab beyond their own namespace, and how it is taken
//! back.

use std::{fs, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{contention::CONNTRACK_MAX, stage};
use crate::{Lab, WEFT_NAMESPACE, scenario::within};

/// Deployment of the operator, in [`WEFT_NAMESPACE`].
const OPERATOR: &str = "deployment/weft-operator";

/// As it was before the experiments.
pub(crate) struct Before {
    replicas: u32,
    backend: Value,
    conntrack_max: String,
}

impl Before {
    /// As it is now.
    pub(crate) async fn read(lab: &Lab) -> anyhow::Result<Self> {
        Ok(Self {
            replicas: replicas(lab)
                .await
                .context("no weft in the lab: install it with `make install`")?,
            backend: backend(lab).await?,
            conntrack_max: conntrack_max()?,
        })
    }

    /// Takes back what an experiment left when it ended early, and waits until weft is healthy.
    pub(crate) async fn mend(&self, lab: &Lab, name: &str) -> anyhow::Result<()> {
        if conntrack_max()? != self.conntrack_max {
            fs::write(CONNTRACK_MAX, &self.conntrack_max).context(CONNTRACK_MAX)?;
        }
        scale(lab, self.replicas).await?;
        set_backend(lab, &self.backend).await?;
        // A component that runs is not started again: the lab says so.
        let status: Value = serde_json::from_str(&lab.run(&["status", "--json"]).await?)?;
        for (node, part) in dead(&status) {
            lab.run(&["start", &part, &node]).await?;
        }
        within(
            Duration::from_secs(180),
            &format!("{name}_mended"),
            async |s| stage::settled(s).await,
        )
        .await
    }
}

/// Size of the connection table.
fn conntrack_max() -> anyhow::Result<String> {
    let text = fs::read_to_string(CONNTRACK_MAX).context(CONNTRACK_MAX)?;
    Ok(text.trim().to_owned())
}

/// Replicas of the operator.
pub(crate) async fn replicas(lab: &Lab) -> anyhow::Result<u32> {
    let path = "jsonpath={.spec.replicas}";
    let words = ["-n", WEFT_NAMESPACE, "get", OPERATOR, "-o", path];
    let text = lab.kubectl(&words).await?;
    text.trim().parse().context("replicas of the operator")
}

/// Sets the replicas of the operator.
pub(crate) async fn scale(lab: &Lab, replicas: u32) -> anyhow::Result<()> {
    let replicas = format!("--replicas={replicas}");
    let words = ["-n", WEFT_NAMESPACE, "scale", OPERATOR, &replicas];
    lab.kubectl(&words).await.map(drop)
}

/// `spec.policy.backend` of the WeftNetwork, null when it is not set.
pub(crate) async fn backend(lab: &Lab) -> anyhow::Result<Value> {
    let words = ["get", "weftnetwork", "default", "-o", "json"];
    let network: Value = serde_json::from_str(&lab.kubectl(&words).await?)?;
    Ok(network["spec"]["policy"]["backend"].clone())
}

/// Sets `spec.policy.backend`; null takes it away.
pub(crate) async fn set_backend(lab: &Lab, backend: &Value) -> anyhow::Result<()> {
    let patch = json!({"spec": {"policy": {"backend": backend}}}).to_string();
    let words = ["patch", "weftnetwork", "default", "--type=merge", "-p"];
    lab.kubectl(&[&words[..], &[&patch]].concat())
        .await
        .map(drop)
}

/// Kubelets and kube-proxies that do not run, as `lab status --json` has them.
fn dead(status: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for member in status["members"].as_array().into_iter().flatten() {
        let node = member["name"].as_str().unwrap_or_default();
        for (process, part) in [("kubelet", "kubelet"), ("kube-proxy", "proxy")] {
            let state = member["processes"][process].as_str();
            if state.is_some_and(|state| state != "running") {
                found.push((node.to_owned(), part.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_is_started_again() {
        let status = json!({"members": [
            {"name": "hub", "processes": {"etcd": "running"}},
            {"name": "n1", "processes": {"kubelet": "stopped", "kube-proxy": "running"}},
            {"name": "n2", "processes": {"kubelet": "running", "kube-proxy": "died"}},
        ]});
        assert_eq!(
            dead(&status),
            [
                ("n1".to_owned(), "kubelet".to_owned()),
                ("n2".to_owned(), "proxy".to_owned()),
            ]
        );
    }
}
