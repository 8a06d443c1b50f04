//! Blocks that come back: given back by their node, or of a Node that is gone.

use std::{collections::BTreeMap, sync::Arc};

use weft_crds::{PeerSlice, WeftNode};
use weft_ipam::{
    claim::{BlockView, Evidence, NodeRef, Phase, Reclaim, decide_reclaim},
    sighting::{Patience, Sighting},
};

use crate::rows::{NodeRow, PodRow};

/// What was seen of an orphaned block so far. In memory: another leader starts over, which is only
/// slower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orphan {
    seen: Option<Sighting>,
    /// Generation of the slices when no slice had the block any more.
    fence: Option<i64>,
}

/// By canonical CIDR.
pub(crate) type Memory = BTreeMap<String, Orphan>;

/// What the decision looks at.
pub(crate) struct World<'a> {
    pub(crate) nodes: &'a [Arc<NodeRow>],
    pub(crate) pods: &'a [Arc<PodRow>],
    pub(crate) slices: &'a [Arc<PeerSlice>],
    pub(crate) weft_nodes: &'a [Arc<WeftNode>],
    pub(crate) now: u64,
    pub(crate) patience: Patience,
}

/// Blocks to take back now. `memory` keeps what has to be seen again; it forgets blocks that are
/// not orphans any more.
pub(crate) fn reclaim(
    blocks: &[BlockView],
    world: &World<'_>,
    memory: &mut Memory,
) -> Vec<BlockView> {
    let mut next = Memory::new();
    let mut ripe = Vec::new();
    for block in blocks {
        let exists = world.nodes.iter().any(|n| n.id == block.node);
        if exists && block.phase != Phase::Releasing {
            continue;
        }
        let key = block.cidr.to_string();
        let mut orphan = memory.get(&key).copied().unwrap_or_default();
        let evidence = Evidence {
            node_exists: Some(exists),
            live_pods: Some(live_pods(block, world)),
            peer_withdrawn: Some(withdrawn(block, world, &mut orphan)),
        };
        match decide_reclaim(block, evidence, orphan.seen, world.now, world.patience) {
            Reclaim::Delete => {
                ripe.push(block.clone());
                next.insert(key, orphan);
            }
            Reclaim::Watch(seen) => {
                orphan.seen = Some(seen);
                next.insert(key, orphan);
            }
            Reclaim::Keep => {
                orphan.seen = None;
                if !exists {
                    next.insert(key, orphan);
                }
            }
        }
    }
    *memory = next;
    ripe
}

/// Live pods with an address of the block, or on a node of that name and without address yet. (A
/// Node that came back with the same name has new pods there: they delay the reclaim until they
/// have addresses, of other blocks.)
fn live_pods(block: &BlockView, world: &World<'_>) -> u32 {
    let holds = |pod: &PodRow| {
        pod.live
            && !pod.host_network
            && if pod.addresses.is_empty() {
                pod.node == block.node.name
            } else {
                pod.addresses.iter().any(|a| block.cidr.contains(a))
            }
    };
    let count = world.pods.iter().filter(|p| holds(p)).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether every router that can report has programmed slices without the block.
fn withdrawn(block: &BlockView, world: &World<'_>, orphan: &mut Orphan) -> bool {
    let cidr = block.cidr.to_string();
    let published = world
        .slices
        .iter()
        .flat_map(|s| &s.spec.peers)
        .any(|p| p.blocks.contains(&cidr));
    if published {
        orphan.fence = None;
        return false;
    }
    let newest = world.slices.iter().map(|s| s.spec.generation).max();
    let fence = *orphan.fence.get_or_insert(newest.unwrap_or(0));
    let live = |id: &NodeRef| {
        let mut nodes = world.nodes.iter();
        nodes.any(|n| n.id == *id && n.ready && !n.deleting)
    };
    world.weft_nodes.iter().all(|w| {
        let id = NodeRef {
            name: w.metadata.name.clone().unwrap_or_default(),
            uid: w.spec.node_uid.clone(),
        };
        // A router that never reported has nothing in the kernel that it could have kept.
        let Some(status) = w.status.as_ref().filter(|s| s.node_uid == id.uid) else {
            return true;
        };
        !live(&id) || status.peers_generation >= fence
    })
}
