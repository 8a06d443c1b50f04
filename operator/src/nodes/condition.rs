//! What WeftNodes mean for their Nodes: condition NetworkUnavailable, and nodes without address.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;
use weft_crds::{Condition, ConditionStatus, WeftNode, condition, set_condition};

use crate::rows::NodeRow;

/// Type of the condition on a Node.
pub(crate) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// Reasons of it that we write, while it is `False` and `True`: by them we know it as ours.
pub(crate) const REASONS: [&str; 2] = ["WeftIsUp", "WeftNotReady"];

/// Type of the condition on a WeftNode whose Node has no InternalIP.
pub(crate) const ADDRESSES: &str = "Addresses";

/// Nodes whose condition NetworkUnavailable must be written, and its value. A WeftNode that says
/// nothing yet changes nothing: the taint stays where a cloud put it, and no node gets one because
/// its router restarts.
pub(crate) fn network_unavailable(
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[Arc<WeftNode>],
) -> Vec<(Arc<NodeRow>, bool)> {
    let by_name: BTreeMap<String, &Arc<WeftNode>> =
        weft_nodes.iter().map(|w| (w.name_any(), w)).collect();
    let mut writes = Vec::new();
    for node in nodes.iter().filter(|n| !n.deleting) {
        let ready = by_name
            .get(&node.id.name)
            .filter(|w| w.spec.node_uid == node.id.uid)
            .and_then(|w| w.status.as_ref())
            .filter(|s| s.node_uid == node.id.uid)
            .and_then(|s| condition(&s.conditions, "Ready"));
        let unavailable = match ready.map(|c| c.status) {
            Some(ConditionStatus::True) => false,
            Some(ConditionStatus::False) => true,
            Some(ConditionStatus::Unknown) | None => continue,
        };
        if node.network_unavailable != Some(unavailable) {
            writes.push((Arc::clone(node), unavailable));
        }
    }
    writes
}

/// WeftNodes whose condition `Addresses` must change, with their new conditions.
pub(crate) fn addresses(
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[Arc<WeftNode>],
    now: &str,
) -> Vec<(Arc<WeftNode>, Vec<Condition>)> {
    let by_name: BTreeMap<&str, &Arc<NodeRow>> =
        nodes.iter().map(|n| (n.id.name.as_str(), n)).collect();
    let mut writes = Vec::new();
    for object in weft_nodes {
        let name = object.name_any();
        let Some(node) = by_name
            .get(name.as_str())
            .filter(|n| n.id.uid == object.spec.node_uid)
        else {
            continue;
        };
        let mut conditions = object.status.clone().unwrap_or_default().conditions;
        let missing = node.addresses.is_empty();
        if !missing && condition(&conditions, ADDRESSES).is_none() {
            continue;
        }
        let new = Condition {
            type_: ADDRESSES.into(),
            status: ConditionStatus::from(!missing),
            reason: if missing {
                "NoInternalIP"
            } else {
                "InternalIP"
            }
            .into(),
            message: if missing {
                no_address(&name)
            } else {
                String::new()
            },
            observed_generation: object.metadata.generation,
            last_transition_time: None,
        };
        let same = |c: &Condition| c.status == new.status && c.message == new.message;
        if !condition(&conditions, ADDRESSES).is_some_and(same) {
            set_condition(&mut conditions, new, now);
            writes.push((Arc::clone(object), conditions));
        }
    }
    writes
}

/// What is wrong with a Node without InternalIP and what to do.
pub(crate) fn no_address(node: &str) -> String {
    format!(
        "Node {node} has no InternalIP, so other nodes cannot reach its pods and it gets no address \
         block: start its kubelet with --node-ip, or let the cloud provider set the address"
    )
}
