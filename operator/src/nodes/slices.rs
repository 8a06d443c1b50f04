//! The peer list in slices: who goes where, and which slices have to be written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::ResourceExt;
use weft_crds::{Peer, PeerSlice, PeerSliceSpec, WeftNode};
use weft_ipam::claim::{BlockView, NodeRef};

use crate::rows::NodeRow;

/// Peers in a slice at most (the schema's limit).
pub(crate) const PER_SLICE: usize = 100;

/// A slice to write. In this order: generations grow, and routers see them grow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Create(PeerSlice),
    /// With the resourceVersion that was read.
    Replace(PeerSlice),
}

/// The peers there are: nodes that exist, whose router reported its tunnel addresses. Blocks only
/// when confirmed by this very Node.
pub(crate) fn peers(
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[Arc<WeftNode>],
    blocks: &[BlockView],
) -> BTreeMap<String, Peer> {
    let mut own: BTreeMap<&NodeRef, Vec<&BlockView>> = BTreeMap::new();
    for block in blocks.iter().filter(|b| b.is_confirmed()) {
        own.entry(&block.node).or_default().push(block);
    }
    let alive: BTreeSet<&NodeRef> = nodes
        .iter()
        .filter(|n| !n.deleting)
        .map(|n| &n.id)
        .collect();
    let mut peers = BTreeMap::new();
    for object in weft_nodes {
        let id = NodeRef {
            name: object.name_any(),
            uid: object.spec.node_uid.clone(),
        };
        let Some(status) = object.status.as_ref().filter(|s| s.node_uid == id.uid) else {
            continue;
        };
        if !alive.contains(&id) || status.underlay_addresses.is_empty() {
            continue;
        }
        let mut cidrs: Vec<_> = own.get(&id).into_iter().flatten().map(|b| b.cidr).collect();
        cidrs.sort_unstable();
        let peer = Peer {
            node: id.name.clone(),
            underlay: status.underlay_addresses.clone(),
            gateways: object.spec.gateways.clone(),
            blocks: cidrs.iter().map(ToString::to_string).collect(),
        };
        peers.insert(id.name, peer);
    }
    peers
}

/// Places `peers` in slices. A peer stays in the slice it is in; a new one goes where there is
/// room; slices are never merged, and an empty one stays (deleting it would lose its generation).
pub(crate) fn writes(existing: &[Arc<PeerSlice>], peers: &BTreeMap<String, Peer>) -> Vec<Write> {
    let mut slices: Vec<Arc<PeerSlice>> = existing.to_vec();
    slices.sort_by_key(|s| s.name_any());
    let mut unplaced: BTreeMap<&String, &Peer> = peers.iter().collect();
    let mut contents: Vec<Vec<Peer>> = Vec::new();
    for slice in &slices {
        let stays = |old: &Peer| unplaced.remove(&old.node).cloned();
        contents.push(slice.spec.peers.iter().filter_map(stays).collect());
    }
    for peer in unplaced.into_values() {
        match contents.iter_mut().find(|c| c.len() < PER_SLICE) {
            Some(room) => room.push(peer.clone()),
            None => contents.push(vec![peer.clone()]),
        }
    }
    let newest = slices.iter().map(|s| s.spec.generation).max();
    let mut generation = newest.unwrap_or(0);
    let mut names: BTreeSet<String> = slices.iter().map(|s| s.name_any()).collect();
    let mut writes = Vec::new();
    for (index, mut peers) in contents.into_iter().enumerate() {
        peers.sort_by(|a, b| a.node.cmp(&b.node));
        match slices.get(index) {
            Some(old) if old.spec.peers == peers => {}
            Some(old) => {
                generation += 1;
                let mut new = PeerSlice::clone(old);
                new.spec = PeerSliceSpec { generation, peers };
                writes.push(Write::Replace(new));
            }
            None => {
                generation += 1;
                let name = free_name(&mut names);
                let spec = PeerSliceSpec { generation, peers };
                writes.push(Write::Create(PeerSlice::new(&name, spec)));
            }
        }
    }
    writes
}

fn free_name(names: &mut BTreeSet<String>) -> String {
    let mut number = names.len();
    loop {
        let name = format!("peers-{number:03}");
        if names.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}
