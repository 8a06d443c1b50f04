//! The two-phase claim of blocks, as decisions.
//!
//! ```text
//! operator                         node
//! decide_block -> create (Pending)
//!                                  confirm -> status Confirmed (node UID, epoch)
//!                                  decide_return -> status Releasing (empty twice)
//! decide_reclaim -> delete (UID and resourceVersion preconditions)
//! ```
//! A block that is not confirmed by the right Node at the current epoch counts as absent: it routes
//! nothing and allocates nothing. Who acts on a decision writes by compare-and-swap on the
//! resourceVersion the decision was made from; a conflict means: read again and decide again.

#[cfg(test)]
mod tests;

use ipnet::IpNet;

use crate::{
    pool::{Family, Pool, choose_free_block, family},
    sighting::{Patience, Sighting},
};

/// A Node by name and identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRef {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`. A Node that was deleted and made again has another.
    pub uid: String,
}

/// Phase of a block, as in the API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Granted, not confirmed.
    #[default]
    Pending,
    /// The node may allocate.
    Confirmed,
    /// On its way back.
    Releasing,
}

/// What a decision needs of an `IPBlock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockView {
    /// The block.
    pub cidr: IpNet,
    /// Its pool.
    pub pool: String,
    /// `spec.node`.
    pub node: NodeRef,
    /// `spec.epoch`.
    pub epoch: i64,
    /// `status.phase`.
    pub phase: Phase,
    /// `status.nodeUID`.
    pub confirmed_uid: String,
    /// `status.epoch`.
    pub confirmed_epoch: i64,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `status.used`.
    pub used: u32,
}

impl BlockView {
    /// Confirmed by the Node it was granted to, at the current epoch, and not being deleted.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        !self.deleting && self.phase == Phase::Confirmed && self.is_answered()
    }

    /// The status belongs to this grant, not to an earlier one.
    fn is_answered(&self) -> bool {
        self.confirmed_uid == self.node.uid && self.confirmed_epoch == self.epoch
    }

    /// The node may (still) have addresses of the block in use or could confirm it any moment.
    fn counts_for(&self, node: &NodeRef) -> bool {
        self.node == *node && !self.deleting && self.phase != Phase::Releasing
    }
}

/// What the operator does about one node, pool and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// The node has enough.
    Enough,
    /// Create this block, `Pending`. AlreadyExists means: lost the race, decide again.
    Create {
        /// The block.
        cidr: IpNet,
        /// Its epoch.
        epoch: i64,
    },
    /// The pool has no block left.
    Exhausted,
}

/// Decides whether `node` gets one more block of `pool` in `family`. Call again after each
/// `Create`, with the new block in `blocks`; for many nodes at once, the parts ([`holds_enough`],
/// [`crate::pool::FreeBlocks`], [`next_epoch`]) say the same at the cost of one look at `blocks`.
///
/// `wanted` is the number of addresses the node should be able to give out: its
/// `status.allocatable.pods`, one for the gateway, and the head room the caller wants. `blocks` are
/// **all** blocks of the cluster, whatever their pool and phase (static single-address grants too),
/// from a quorum list: none of them may overlap the new one.
#[must_use]
pub fn decide_block(
    pool: &Pool,
    family: Family,
    node: &NodeRef,
    wanted: u128,
    blocks: &[BlockView],
    now: u64,
) -> Grant {
    if holds_enough(pool, family, node, wanted, blocks) {
        return Grant::Enough;
    }
    let existing: Vec<IpNet> = blocks.iter().map(|b| b.cidr).collect();
    choose_free_block(pool, family, &existing).map_or(Grant::Exhausted, |cidr| Grant::Create {
        cidr,
        epoch: next_epoch(blocks, now),
    })
}

/// Whether the blocks that `node` has among `blocks` hold `wanted` addresses of a pool and family.
#[must_use]
pub fn holds_enough(
    pool: &Pool,
    family: Family,
    node: &NodeRef,
    wanted: u128,
    blocks: &[BlockView],
) -> bool {
    let held = blocks
        .iter()
        .filter(|b| b.pool == pool.name() && crate::pool::family(b.cidr) == family)
        .filter(|b| b.counts_for(node))
        .map(|b| pool.usable_in(b.cidr))
        .fold(0, u128::saturating_add);
    // A node keeps one block even if it wants nothing now.
    held >= wanted.max(1)
}

/// An epoch that is above those of every block that exists and, as long as the clock goes forward,
/// of every block that ever existed (in milliseconds of the clock: a deleted block leaves no trace).
#[must_use]
pub fn next_epoch(blocks: &[BlockView], now: u64) -> i64 {
    let highest = blocks.iter().map(|b| b.epoch).max().unwrap_or(0);
    let clock = i64::try_from(now.saturating_mul(1000)).unwrap_or(i64::MAX);
    highest.saturating_add(1).max(clock).max(1)
}

/// What a node does about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Write `status {phase: Confirmed, nodeUID, epoch}` with the resourceVersion seen. Allocate
    /// only after that was accepted.
    Confirm {
        /// Epoch to confirm.
        epoch: i64,
    },
    /// It is confirmed already: allocate.
    Held,
    /// Not ours, or on its way back: no new address from it.
    Ignore,
    /// Granted to another Node of our name: we are not who we think, or came back too late. Take
    /// down every pod port with an address of it, confirm nothing.
    Fenced,
}

/// Node side of the claim.
#[must_use]
pub fn confirm(block: &BlockView, me: &NodeRef) -> Claim {
    if block.node.name != me.name {
        return Claim::Ignore;
    }
    if block.node.uid != me.uid {
        return Claim::Fenced;
    }
    if block.deleting {
        return Claim::Ignore;
    }
    match block.phase {
        Phase::Confirmed if block.is_answered() => Claim::Held,
        Phase::Releasing if block.is_answered() => Claim::Ignore,
        Phase::Pending | Phase::Confirmed | Phase::Releasing => {
            Claim::Confirm { epoch: block.epoch }
        }
    }
}

/// Whether a node gives an empty block back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// It stays; forget earlier sightings.
    Keep,
    /// Empty; remember the sighting and look again.
    Watch(Sighting),
    /// Write `status.phase: Releasing` with the resourceVersion seen, after a last look that nobody
    /// took an address since.
    Give,
}

/// Decides about one block of the node. `used` counts addresses in use **and** cooling down;
/// `pinned` says that it holds a gateway; `spare` is what the node's other blocks of the same pool
/// and family have free, `low_water` what it should always have free.
#[must_use]
pub fn decide_return(
    used: u32,
    pinned: bool,
    spare: u128,
    low_water: u128,
    seen: Option<Sighting>,
    now: u64,
    patience: Patience,
) -> Return {
    if used > 0 || pinned || spare < low_water.max(1) {
        return Return::Keep;
    }
    let seen = Sighting::observe(seen, now, patience);
    if seen.is_ripe(now, patience) {
        Return::Give
    } else {
        Return::Watch(seen)
    }
}

/// What is known about a block whose owner may be gone. Unknown is `None` and counts as "in use".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// A Node with this name **and** UID exists.
    pub node_exists: Option<bool>,
    /// Pods in the API that are not terminated and have an address of the block, or run on the node
    /// and have none yet.
    pub live_pods: Option<u32>,
    /// Every live router reports a PeerSlice generation without the peer.
    pub peer_withdrawn: Option<bool>,
}

/// Whether the operator takes a block back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reclaim {
    /// It stays; forget earlier sightings.
    Keep,
    /// Looks orphaned; remember the sighting, look again.
    Watch(Sighting),
    /// Delete it, with UID and resourceVersion preconditions of the object this was decided on.
    Delete,
}

/// Decides about one block: given back by its node, or of a Node that is gone.
#[must_use]
pub fn decide_reclaim(
    block: &BlockView,
    evidence: Evidence,
    seen: Option<Sighting>,
    now: u64,
    patience: Patience,
) -> Reclaim {
    if block.deleting {
        return Reclaim::Keep;
    }
    if block.phase == Phase::Releasing && block.is_answered() && block.used == 0 {
        // The node that owns it says so, at this epoch: nothing to wait for.
        return Reclaim::Delete;
    }
    let orphaned = evidence.node_exists == Some(false)
        && evidence.live_pods == Some(0)
        && evidence.peer_withdrawn == Some(true);
    if !orphaned {
        return Reclaim::Keep;
    }
    let seen = Sighting::observe(seen, now, patience);
    if seen.is_ripe(now, patience) {
        Reclaim::Delete
    } else {
        Reclaim::Watch(seen)
    }
}

/// Blocks of `blocks` that make up the node's confirmed share of a pool and family.
pub fn confirmed_of<'a>(
    blocks: &'a [BlockView],
    node: &'a NodeRef,
    pool: &'a str,
    wanted: Family,
) -> impl Iterator<Item = &'a BlockView> {
    blocks
        .iter()
        .filter(move |b| b.node == *node && b.pool == pool && family(b.cidr) == wanted)
        .filter(|b| b.is_confirmed())
}
