//! Pods and nodes that many tests begin with.

use std::time::Duration;

use anyhow::Context as _;
use kube::{Api, api::ListParams};
use weft_crds::IPBlock;
use weft_probe::cluster::{Plan, Running, eventually};

use crate::{Lab, Scenario};

/// Containerd, kubelet and weft on a new node.
const NEW_NODE: Duration = Duration::from_secs(90);

impl Scenario {
    /// Starts `first` and `near` on the first node, and `far` on the second.
    ///
    /// # Errors
    /// One of them does not become ready; the message has its state.
    pub async fn start_near_and_far(&self, first: &str) -> anyhow::Result<[Running; 3]> {
        let [n1, n2] = self.two_nodes().await?;
        self.start([
            Plan::new(first).on(&n1),
            Plan::new("near").on(&n1),
            Plan::new("far").on(&n2),
        ])
        .await
    }

    /// Starts a pod on the first node and one on the second.
    ///
    /// # Errors
    /// One of them does not become ready; the message has its state.
    pub async fn start_on_two_nodes(&self, names: [&str; 2]) -> anyhow::Result<[Running; 2]> {
        let [n1, n2] = self.two_nodes().await?;
        self.start([Plan::new(names[0]).on(&n1), Plan::new(names[1]).on(&n2)])
            .await
    }

    /// Whether pods of this cluster get IPv6 addresses.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods_have_ipv6(&self) -> anyhow::Result<bool> {
        let blocks = Api::<IPBlock>::all(self.cluster.client.clone())
            .list(&ListParams::default())
            .await?;
        Ok(blocks
            .items
            .iter()
            .any(|block| block.spec.cidr.contains(':')))
    }

    /// Adds a node to the lab and waits until it is Ready; returns its name.
    ///
    /// # Errors
    /// The lab cannot, or the node does not become Ready.
    pub async fn add_node(&self, lab: &Lab) -> anyhow::Result<String> {
        let before = self.nodes().await?;
        lab.run(&["add-node"]).await?;
        eventually(NEW_NODE, "the new node is Ready", async || {
            self.nodes()
                .await?
                .into_iter()
                .find(|name| !before.contains(name))
                .context("no new Ready node")
        })
        .await
    }
}
