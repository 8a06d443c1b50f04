//! `test`: connectivity test from inside a cluster, as `helm test` runs it.
//!
//! It makes a namespace that admits restricted pods only, tries pod to pod on one node and on two,
//! a Service, and a policy that denies and then allows, prints each answer as evidence, and deletes
//! the namespace whatever happened.

mod objects;
mod steps;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use tokio::time::{Instant, timeout};
use weft_probe::cluster::Cluster;

use crate::{duration, stop};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Image of the test pods: the one that this runs from.
    #[arg(long, env = "WEFT_IMAGE")]
    image: String,
    /// Pull policy of the test pods.
    #[arg(long, env = "WEFT_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pull_policy: String,
    /// How long the whole test may take.
    #[arg(long, default_value = "60s", value_parser = duration::parse)]
    timeout: Duration,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let client = Client::try_default()
        .await
        .context("find the API server (in-cluster or by KUBECONFIG)")?;
    let cluster = Cluster {
        client,
        image: arguments.image.clone(),
        pull_policy: arguments.pull_policy.clone(),
    };
    let start = Instant::now();
    let nodes = usable_nodes(&cluster.client).await?;
    let namespace = cluster
        .make_namespace(
            "weft-test",
            BTreeMap::from([(
                "pod-security.kubernetes.io/enforce".into(),
                "restricted".into(),
            )]),
        )
        .await?;
    say(&format!(
        "namespace {namespace}, nodes {}",
        nodes.join(", ")
    ));
    let result = tokio::select! {
        result = timeout(arguments.timeout, steps::run(&cluster, &namespace, &nodes)) => result
            .with_context(|| format!("the test took longer than {:?}", arguments.timeout))
            .and_then(|result| result),
        stopped = stop::requested() => stopped.and_then(|()| anyhow::bail!("told to stop")),
    };
    cluster.delete_namespace(&namespace).await?;
    match result {
        Ok(()) => {
            say(&format!("passed in {:.1?}", start.elapsed()));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&format!("FAILED: {error:#}"));
            say("next: kubectl get weftnetwork,weftnodes,ippools; \
                 kubectl logs -n <release namespace> -l app.kubernetes.io/name=weft-node --all-containers");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// One line for the person who runs `helm test --logs`.
#[allow(clippy::print_stdout, reason = "the evidence is the product")]
fn say(line: &str) {
    println!("{line}");
}

/// Names (host name labels) of up to two nodes that take pods, in the order of their names.
async fn usable_nodes(client: &Client) -> anyhow::Result<Vec<String>> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await
        .context("list the nodes")?;
    let mut names: Vec<String> = nodes.items.iter().filter_map(usable).collect();
    names.sort();
    names.truncate(2);
    anyhow::ensure!(
        !names.is_empty(),
        "no node is Ready and schedulable: kubectl get nodes; a node becomes Ready when weft has \
         written its CNI configuration there"
    );
    Ok(names)
}

/// The host name label of a Linux node that is Ready and schedulable.
fn usable(node: &Node) -> Option<String> {
    let labels = node.metadata.labels.as_ref()?;
    let linux = labels
        .get("kubernetes.io/os")
        .is_none_or(|system| system == "linux");
    let cordoned = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    let ready = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    (linux && ready && !cordoned)
        .then(|| labels.get("kubernetes.io/hostname").cloned())
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(ready: &str, cordoned: bool, system: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {
                "kubernetes.io/hostname": "host-1", "kubernetes.io/os": system,
            }},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("a node")
    }

    #[test]
    fn only_ready_schedulable_linux_nodes_are_used() {
        assert_eq!(
            usable(&node("True", false, "linux")),
            Some("host-1".to_owned())
        );
        assert_eq!(usable(&node("False", false, "linux")), None);
        assert_eq!(usable(&node("True", true, "linux")), None);
        assert_eq!(usable(&node("True", false, "windows")), None);
    }
}
