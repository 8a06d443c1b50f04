//! What the operator keeps of Nodes, Pods and DaemonSets. Rows are small and comparable: an update
//! that changes nothing we look at (image lists, heartbeats) wakes nobody.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::apps::v1::DaemonSet;
use weft_ipam::claim::NodeRef;

use crate::{
    nodes::condition::NETWORK_UNAVAILABLE,
    slim::{Node, Pod},
};

/// Pods of a node that does not say how many it can run (the kubelet's default).
const DEFAULT_PODS: u32 = 110;

/// A Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// Name and UID.
    pub(crate) id: NodeRef,
    pub(crate) labels: BTreeMap<String, String>,
    /// InternalIPs, in the Node's order.
    pub(crate) addresses: Vec<IpAddr>,
    /// `status.allocatable.pods`.
    pub(crate) pods: u32,
    /// The kubelet reports.
    pub(crate) ready: bool,
    /// Condition NetworkUnavailable: its status, if the Node has it.
    pub(crate) network_unavailable: Option<bool>,
    pub(crate) deleting: bool,
}

impl NodeRow {
    pub(crate) fn from_node(node: &Node) -> Self {
        let status = &node.status;
        let condition = |type_: &str| {
            let list = status.conditions.iter().flatten();
            list.filter(|c| c.type_ == type_)
                .map(|c| c.status == "True")
                .next()
        };
        let addresses = status.addresses.iter().flatten();
        Self {
            id: NodeRef {
                name: node.metadata.name.clone().unwrap_or_default(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
            },
            labels: node.metadata.labels.clone().unwrap_or_default(),
            addresses: addresses
                .filter(|a| a.type_ == "InternalIP")
                .filter_map(|a| a.address.parse().ok())
                .collect(),
            pods: status
                .allocatable
                .as_ref()
                .and_then(|a| a.pods.as_ref()?.parse().ok())
                .unwrap_or(DEFAULT_PODS),
            ready: condition("Ready") == Some(true),
            network_unavailable: condition(NETWORK_UNAVAILABLE),
            deleting: node.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A Pod, as far as its addresses go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodRow {
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Neither Succeeded nor Failed: it may use its addresses.
    pub(crate) live: bool,
    pub(crate) host_network: bool,
}

impl PodRow {
    pub(crate) fn from_pod(pod: &Pod) -> Self {
        let phase = pod.status.phase.as_deref();
        let addresses = pod.status.pod_ips.iter().flatten();
        Self {
            node: pod.spec.node_name.clone().unwrap_or_default(),
            addresses: addresses.filter_map(|a| a.ip.parse().ok()).collect(),
            live: !matches!(phase, Some("Succeeded" | "Failed")),
            host_network: pod.spec.host_network.unwrap_or_default(),
        }
    }
}

/// A DaemonSet's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DaemonSetRow {
    /// The status is about the current spec.
    pub(crate) observed: bool,
    pub(crate) desired: u32,
    pub(crate) updated: u32,
    pub(crate) ready: u32,
}

impl DaemonSetRow {
    pub(crate) fn from_daemon_set(set: &DaemonSet) -> Self {
        let status = set.status.clone().unwrap_or_default();
        let count = |n: i32| u32::try_from(n).unwrap_or_default();
        Self {
            observed: status.observed_generation >= set.metadata.generation,
            desired: count(status.desired_number_scheduled),
            updated: count(status.updated_number_scheduled.unwrap_or_default()),
            ready: count(status.number_ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_node_row_keeps_internal_addresses_in_order_and_the_pod_count() {
        let node = from_value(json!({
            "metadata": {"name": "n1", "uid": "u1", "labels": {"zone": "a"}},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "172.30.0.11"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "InternalIP", "address": "fd00::11"}
                ],
                "allocatable": {"pods": "30", "cpu": "2"},
                "conditions": [{"type": "Ready", "status": "True"}]
            }
        }))
        .unwrap();
        let row = NodeRow {
            id: NodeRef {
                name: "n1".into(),
                uid: "u1".into(),
            },
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            addresses: vec!["172.30.0.11".parse().unwrap(), "fd00::11".parse().unwrap()],
            pods: 30,
            ready: true,
            network_unavailable: None,
            deleting: false,
        };
        assert_eq!(NodeRow::from_node(&node), row);
    }

    #[test]
    fn a_node_that_says_nothing_counts_as_110_pods_and_not_ready() {
        let row = NodeRow::from_node(&Node::default());
        assert_eq!((row.pods, row.ready), (110, false));
    }

    #[test]
    fn a_finished_pod_is_not_live() {
        let pod = |phase: &str| {
            PodRow::from_pod(
                &from_value(json!({
                    "spec": {"nodeName": "n1", "containers": []},
                    "status": {"phase": phase, "podIPs": [{"ip": "10.32.0.5"}]}
                }))
                .unwrap(),
            )
        };
        assert!(pod("Running").live && pod("Pending").live);
        assert!(!pod("Succeeded").live && !pod("Failed").live);
        assert_eq!(
            pod("Running").addresses,
            ["10.32.0.5".parse::<IpAddr>().unwrap()]
        );
    }
}
