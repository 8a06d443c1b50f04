//! Which WeftNodes there should be, and what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use weft_crds::{DEFAULT_NAME, WeftNode, WeftNodeSpec};
use weft_ipam::{
    claim::{BlockView, Phase},
    pool::{Family, Pool, family, gateway_for},
};

use crate::rows::NodeRow;

/// What to do about one WeftNode.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    Create(WeftNode),
    /// Write with the resourceVersion that was read.
    Replace(WeftNode),
    /// Its Node is gone, or is another one of the same name.
    Delete(Arc<WeftNode>),
}

/// Compares what is with what should be.
pub(crate) fn steps(
    nodes: &[Arc<NodeRow>],
    existing: &[Arc<WeftNode>],
    blocks: &[BlockView],
    pools: &BTreeMap<String, Pool>,
) -> Vec<Step> {
    let by_name: BTreeMap<String, &Arc<WeftNode>> =
        existing.iter().map(|w| (w.name_any(), w)).collect();
    let mut own: BTreeMap<_, Vec<&BlockView>> = BTreeMap::new();
    for block in blocks {
        own.entry(&block.node).or_default().push(block);
    }
    let mut steps = Vec::new();
    for node in nodes.iter().filter(|n| !n.deleting) {
        let blocks = own.get(&node.id).map_or(&[][..], Vec::as_slice);
        match by_name.get(&node.id.name) {
            None => {
                let spec = spec(node, &WeftNodeSpec::default(), blocks, pools);
                let mut object = WeftNode::new(&node.id.name, spec);
                object.metadata.owner_references = Some(vec![owner(node)]);
                steps.push(Step::Create(object));
            }
            Some(old) if old.metadata.deletion_timestamp.is_some() => {}
            Some(old) if old.spec.node_uid != node.id.uid => {
                steps.push(Step::Delete(Arc::clone(old)));
            }
            Some(old) => {
                let spec = spec(node, &old.spec, blocks, pools);
                let owners = vec![owner(node)];
                if spec != old.spec || old.owner_references() != owners {
                    let mut object = WeftNode::clone(old);
                    object.spec = spec;
                    object.metadata.owner_references = Some(owners);
                    steps.push(Step::Replace(object));
                }
            }
        }
    }
    let names: BTreeSet<&str> = nodes.iter().map(|n| n.id.name.as_str()).collect();
    let gone = |w: &&Arc<WeftNode>| {
        w.metadata.deletion_timestamp.is_none() && !names.contains(w.name_any().as_str())
    };
    steps.extend(existing.iter().filter(gone).cloned().map(Step::Delete));
    steps
}

fn spec(
    node: &NodeRow,
    old: &WeftNodeSpec,
    blocks: &[&BlockView],
    pools: &BTreeMap<String, Pool>,
) -> WeftNodeSpec {
    WeftNodeSpec {
        node_uid: node.id.uid.clone(),
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        gateways: gateways(&old.gateways, blocks, pools),
        relays: old.relays.clone(),
    }
}

/// A gateway that was granted stays for the node's life: pods have it as their route. A family
/// without one gets the first usable address of the node's first block.
fn gateways(
    granted: &[String],
    blocks: &[&BlockView],
    pools: &BTreeMap<String, Pool>,
) -> Vec<String> {
    let mut gateways = granted.to_vec();
    for wanted in [Family::V4, Family::V6] {
        let has = gateways
            .iter()
            .filter_map(|g| g.parse::<IpAddr>().ok())
            .any(|g| Family::of(g) == wanted);
        if has {
            continue;
        }
        let usable = blocks
            .iter()
            .filter(|b| family(b.cidr) == wanted && !b.deleting && b.phase != Phase::Releasing);
        // The pool `default` first: its blocks are the ones a node keeps.
        let first = usable.min_by_key(|b| (b.pool != DEFAULT_NAME, b.epoch, b.cidr));
        if let Some(block) = first
            && let Some(pool) = pools.get(&block.pool)
            && let Some(gateway) = gateway_for(block.cidr, &pool.reserved_in(block.cidr))
        {
            gateways.push(gateway.to_string());
        }
    }
    gateways
}

fn owner(node: &NodeRow) -> OwnerReference {
    OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.id.name.clone(),
        uid: node.id.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}
