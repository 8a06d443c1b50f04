//! The state of the allocator without its storage. Replaying a log and serving requests go through
//! the same functions, so the state after a restart is the state before it.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{Attachment, Counts, NodeBlock, Reservation, block::BlockState};
use crate::{
    log::{FORMAT, Identity, Record},
    pool::Family,
};

/// The longest cool-down the API allows, in seconds: what is remembered of addresses that are in
/// none of our blocks.
const MAX_COOLDOWN: u64 = 1200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// When it was released.
    at: u64,
    /// Order of release.
    order: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    blocks: BTreeMap<IpNet, BlockState>,
    gateways: Vec<IpAddr>,
    held: BTreeMap<Attachment, Reservation>,
    by_seq: BTreeMap<u64, Attachment>,
    by_address: BTreeMap<IpAddr, Attachment>,
    resting: BTreeMap<IpAddr, Rest>,
    quarantine: Option<u64>,
    last_seq: u64,
    last_order: u64,
}

impl State {
    /// Returns whether anything changed.
    pub(super) fn set_blocks(&mut self, blocks: Vec<NodeBlock>, mut gateways: Vec<IpAddr>) -> bool {
        gateways.sort_unstable();
        gateways.dedup();
        let wanted: BTreeMap<IpNet, NodeBlock> =
            blocks.into_iter().map(|b| (b.cidr.trunc(), b)).collect();
        let same = gateways == self.gateways
            && wanted.len() == self.blocks.len()
            && wanted
                .iter()
                .all(|(cidr, b)| self.blocks.get(cidr).is_some_and(|s| s.block == *b));
        if same {
            return false;
        }
        self.blocks = wanted
            .into_iter()
            .map(|(cidr, block)| (cidr, BlockState::new(block, &gateways)))
            .collect();
        self.gateways = gateways;
        for address in self.by_address.keys() {
            for block in self.blocks.values_mut() {
                block.mark(*address, true);
            }
        }
        true
    }

    pub(super) fn blocks(&self) -> Vec<NodeBlock> {
        self.blocks.values().map(|b| b.block.clone()).collect()
    }

    pub(super) fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    pub(super) fn active_blocks(
        &self,
        pool: &str,
        family: Family,
    ) -> impl Iterator<Item = &BlockState> {
        self.blocks
            .values()
            .filter(move |b| b.block.active && b.block.pool == pool && b.family() == family)
    }

    pub(super) fn block_of(&self, address: IpAddr) -> Option<&BlockState> {
        self.blocks.values().find(|b| b.contains(address))
    }

    pub(super) fn find(&self, id: &Attachment) -> Option<&Reservation> {
        self.held.get(id)
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<&Reservation> {
        self.held.get(self.by_address.get(&address)?)
    }

    pub(super) fn list(&self) -> impl Iterator<Item = &Reservation> {
        self.held.values()
    }

    pub(super) fn stranded(&self) -> Vec<Reservation> {
        let homeless = |address: &IpAddr| self.block_of(*address).is_none();
        self.list()
            .filter(|r| r.addresses.iter().any(homeless))
            .cloned()
            .collect()
    }

    /// The state a log with this header starts from.
    pub(super) fn after(last_seq: u64) -> Self {
        Self {
            last_seq,
            ..Self::default()
        }
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// Puts a reservation in place, or replaces the one of the same attachment.
    pub(super) fn insert(&mut self, reservation: Reservation) {
        self.last_seq = self.last_seq.max(reservation.seq);
        self.take_out(&reservation.id);
        for address in &reservation.addresses {
            self.by_address.insert(*address, reservation.id.clone());
            self.resting.remove(address);
            self.mark(*address, true);
        }
        self.by_seq.insert(reservation.seq, reservation.id.clone());
        self.held.insert(reservation.id.clone(), reservation);
    }

    /// Takes a reservation back; its addresses rest from `now`.
    pub(super) fn remove(&mut self, seq: u64, now: u64) -> Option<Reservation> {
        let id = self.by_seq.get(&seq)?.clone();
        let reservation = self.take_out(&id)?;
        for address in &reservation.addresses {
            self.rest(*address, now);
        }
        Some(reservation)
    }

    /// Undoes an [`State::insert`] that was promised to nobody: `rests` is what
    /// [`State::rests_of`] said before.
    pub(super) fn forget(&mut self, id: &Attachment, rests: Rests) {
        self.take_out(id);
        self.resting.extend(rests.0);
    }

    /// What the state knows about resting addresses of a reservation not yet inserted.
    pub(super) fn rests_of(&self, reservation: &Reservation) -> Rests {
        let known = |a: &IpAddr| self.resting.get(a).map(|rest| (*a, *rest));
        Rests(reservation.addresses.iter().filter_map(known).collect())
    }

    /// Adds an attachment found in the kernel. Addresses that somebody else holds, and gateways, are
    /// left out; nothing left: nothing added.
    pub(super) fn adopt(&mut self, endpoint: Reservation, now: u64) -> Option<Reservation> {
        if self.held.contains_key(&endpoint.id) {
            return None;
        }
        let mut addresses: Vec<IpAddr> = endpoint
            .addresses
            .into_iter()
            .filter(|a| !self.by_address.contains_key(a) && !self.gateways.contains(a))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return None;
        }
        let pool = addresses
            .first()
            .and_then(|a| self.block_of(*a))
            .map_or(endpoint.pool, |b| b.block.pool.clone());
        let adopted = Reservation {
            seq: self.next_seq(),
            pool,
            addresses,
            at: now,
            ..endpoint
        };
        self.insert(adopted.clone());
        Some(adopted)
    }

    pub(super) fn quarantine(&mut self, at: u64) {
        self.quarantine = Some(at);
    }

    /// Whether the address has rested for `cooldown` seconds.
    pub(super) fn is_rested(&self, address: IpAddr, cooldown: u64, now: u64) -> bool {
        let since = match self.resting.get(&address) {
            Some(rest) => rest.at,
            None => match self.quarantine {
                Some(at) => at,
                None => return true,
            },
        };
        // A release in the future: the clock went back, and `settle` has not been here yet.
        now.checked_sub(since)
            .is_some_and(|passed| passed >= cooldown)
    }

    /// Position in the order of releases; `None` if it was never released.
    pub(super) fn rest_order(&self, address: IpAddr) -> Option<u64> {
        self.resting.get(&address).map(|rest| rest.order)
    }

    /// Takes notice of the time. When the clock went back (it was wrong once, in the future), how
    /// long an address rested is unknown: it rests from now, not until that future.
    pub(super) fn settle(&mut self, now: u64) {
        for rest in self.resting.values_mut() {
            rest.at = rest.at.min(now);
        }
        self.quarantine = self.quarantine.map(|at| at.min(now));
        let blocks = &self.blocks;
        self.resting.retain(|address, rest| {
            now - rest.at <= MAX_COOLDOWN || blocks.values().any(|b| b.contains(*address))
        });
        if self.quarantine.is_some_and(|at| now - at > MAX_COOLDOWN) {
            self.quarantine = None;
        }
    }

    pub(super) fn counts(&self, now: u64) -> BTreeMap<IpNet, Counts> {
        let count = |block: &BlockState| {
            let usable = block.usable();
            let mut vacant = 0;
            let mut free = 0;
            for address in block.vacant() {
                vacant += 1;
                free += u32::from(self.is_rested(address, block.block.cooldown, now));
            }
            Counts {
                usable,
                used: usable - vacant,
                cooling: vacant - free,
                free,
            }
        };
        self.blocks
            .iter()
            .map(|(cidr, b)| (*cidr, count(b)))
            .collect()
    }

    /// Records of the state, about: what a log may grow to is measured by it.
    pub(super) fn weight(&self) -> usize {
        self.held.len() + self.resting.len()
    }

    /// The shortest log that replays to this state.
    pub(super) fn snapshot(&self, identity: &Identity) -> impl Iterator<Item = Record> {
        let mut cold: Vec<(IpAddr, Rest)> = self.resting.iter().map(|(a, r)| (*a, *r)).collect();
        cold.sort_unstable_by_key(|(_, rest)| rest.order);
        let header = Record::Header {
            format: FORMAT,
            identity: identity.clone(),
            last_seq: self.last_seq,
        };
        let blocks = Record::Blocks {
            blocks: self.blocks(),
            gateways: self.gateways.clone(),
        };
        let quarantine = self.quarantine.map(|at| Record::Quarantine { at });
        let held = self.by_seq.values().filter_map(|id| self.held.get(id));
        [header, blocks]
            .into_iter()
            .chain(quarantine)
            .chain(held.cloned().map(Record::Reserve))
            .chain(cold.into_iter().map(|(address, rest)| Record::Cold {
                address,
                at: rest.at,
            }))
    }

    /// Applies a record of a log; what contradicts the state is an error.
    pub(super) fn replay(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Header { .. } => return Err("a second header".into()),
            Record::Blocks { blocks, gateways } => {
                self.set_blocks(blocks, gateways);
            }
            Record::Reserve(reservation) => {
                if self.held.contains_key(&reservation.id)
                    || self.by_seq.contains_key(&reservation.seq)
                {
                    return Err(format!("reservation {} twice", reservation.seq));
                }
                if let Some(a) = reservation
                    .addresses
                    .iter()
                    .find(|a| self.by_address.contains_key(a))
                {
                    return Err(format!("{a} given out twice"));
                }
                self.insert(reservation);
            }
            Record::Release { seq, at } => {
                self.remove(seq, at)
                    .ok_or_else(|| format!("release of unknown reservation {seq}"))?;
            }
            Record::Cold { address, at } => {
                if self.by_address.contains_key(&address) {
                    return Err(format!("{address} rests and is in use"));
                }
                self.rest(address, at);
            }
            Record::Quarantine { at } => self.quarantine(at),
        }
        Ok(())
    }

    fn take_out(&mut self, id: &Attachment) -> Option<Reservation> {
        let reservation = self.held.remove(id)?;
        self.by_seq.remove(&reservation.seq);
        for address in &reservation.addresses {
            self.by_address.remove(address);
            self.mark(*address, false);
        }
        Some(reservation)
    }

    fn rest(&mut self, address: IpAddr, at: u64) {
        self.last_order += 1;
        let order = self.last_order;
        self.resting.insert(address, Rest { at, order });
    }

    fn mark(&mut self, address: IpAddr, used: bool) {
        for block in self.blocks.values_mut() {
            block.mark(address, used);
        }
    }
}

/// Saved rest times, see [`State::forget`].
#[derive(Debug)]
pub(super) struct Rests(Vec<(IpAddr, Rest)>);
