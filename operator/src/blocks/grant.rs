//! Which node gets which block.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;
use weft_crds::DEFAULT_NAME;
use weft_ipam::{
    claim::{BlockView, NodeRef, Phase, holds_enough, next_epoch},
    pool::{Family, FreeBlocks, Pool, family},
};

use super::verdict::Verdict;
use crate::rows::NodeRow;

/// Blocks of one pool and family a node gets at most: with four pools and two families, a peer's
/// entry stays within the 256 blocks that a PeerSlice allows.
pub(crate) const MAX_BLOCKS: u128 = 32;

/// A block to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewBlock {
    pub(crate) pool: String,
    pub(crate) node: NodeRef,
    pub(crate) cidr: IpNet,
    pub(crate) epoch: i64,
}

/// What to grant now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    pub(crate) create: Vec<NewBlock>,
    /// Pool -> nodes that have no block of it in some family and get none: it is used up.
    pub(crate) without: BTreeMap<String, BTreeSet<String>>,
    /// Pool -> nodes that have fewer addresses than they can run pods.
    pub(crate) short: BTreeMap<String, BTreeSet<String>>,
}

/// Decides all grants. First every node gets one block of every pool it may use, then those get
/// more that need more: a small pool serves all nodes a little rather than a few nodes fully.
pub(crate) fn grants(
    verdicts: &BTreeMap<String, Verdict>,
    nodes: &[Arc<NodeRow>],
    blocks: &[BlockView],
    now: u64,
) -> Grants {
    let mut round = Round {
        by_node: BTreeMap::new(),
        all: blocks,
        free: BTreeMap::new(),
        grants: Grants::default(),
        epoch: next_epoch(blocks, now),
    };
    for block in blocks {
        let own = round.by_node.entry(block.node.clone()).or_default();
        own.push(block.clone());
    }
    for first in [true, false] {
        for (name, verdict) in verdicts {
            let (Some(pool), None) = (&verdict.pool, &verdict.refusal) else {
                continue;
            };
            for node in nodes.iter().filter(|n| may_hold(n, verdict)) {
                for family in pool.families() {
                    round.fill(name, pool, family, node, first);
                }
            }
        }
    }
    round.grants
}

/// A node without address cannot be reached by others: it gets no block until it has one.
fn may_hold(node: &NodeRow, verdict: &Verdict) -> bool {
    !node.deleting && !node.addresses.is_empty() && verdict.nodes.matches(&node.labels)
}

struct Round<'a> {
    by_node: BTreeMap<NodeRef, Vec<BlockView>>,
    /// As they were before this round.
    all: &'a [BlockView],
    /// What each pool still has, by name and family. Pools that give out do not overlap, so what one
    /// of them grants is not in another's way.
    free: BTreeMap<(&'a str, Family), FreeBlocks<'a>>,
    grants: Grants,
    /// Of the next block.
    epoch: i64,
}

impl<'a> Round<'a> {
    fn fill(&mut self, name: &'a str, pool: &'a Pool, family: Family, node: &NodeRow, first: bool) {
        let own = self.by_node.entry(node.id.clone()).or_default();
        loop {
            let wanted = if first {
                1
            } else {
                wanted(pool, family, node, own)
            };
            if holds_enough(pool, family, &node.id, wanted, own) {
                return;
            }
            let all = self.all;
            let free = self.free.entry((name, family));
            let free =
                free.or_insert_with(|| FreeBlocks::new(pool, family, all.iter().map(|b| b.cidr)));
            let Some(cidr) = free.next() else {
                let list = if first {
                    &mut self.grants.without
                } else {
                    &mut self.grants.short
                };
                let names = list.entry(name.to_owned()).or_default();
                names.insert(node.id.name.clone());
                return;
            };
            let epoch = self.epoch;
            self.epoch = epoch.saturating_add(1);
            own.push(BlockView {
                cidr,
                pool: name.to_owned(),
                node: node.id.clone(),
                epoch,
                phase: Phase::Pending,
                confirmed_uid: String::new(),
                confirmed_epoch: 0,
                deleting: false,
                used: 0,
            });
            self.grants.create.push(NewBlock {
                pool: name.to_owned(),
                node: node.id.clone(),
                cidr,
                epoch,
            });
        }
    }
}

/// Addresses of a pool and family the node should have. From the pool `default`: one for every pod
/// it can run, and one for the gateway. From other pools: one block, and one more while three
/// quarters of what it has are in use.
fn wanted(pool: &Pool, of: Family, node: &NodeRow, own: &[BlockView]) -> u128 {
    let mine = || {
        own.iter()
            .filter(|b| b.pool == pool.name() && family(b.cidr) == of && b.node == node.id)
            .filter(|b| !b.deleting && b.phase != Phase::Releasing)
    };
    let full = u128::from(node.pods) + 1;
    let need = if pool.name() == DEFAULT_NAME {
        full
    } else {
        let held: u128 = mine().map(|b| pool.usable_in(b.cidr)).sum();
        let used: u128 = mine().map(|b| u128::from(b.used)).sum();
        if used * 4 >= held * 3 { held + 1 } else { held }.min(full)
    };
    // The cap is on blocks: with it reached, what is held is what is wanted.
    let count = mine().count() as u128;
    if count >= MAX_BLOCKS { 1 } else { need }
}
