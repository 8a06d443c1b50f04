//! One block: a bitmap of what is taken.

use std::net::IpAddr;

use ipnet::IpNet;

use super::NodeBlock;
use crate::pool::{Family, MAX_BLOCK_BITS, address_at, family};

/// A set of offsets in a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u32) -> Self {
        Self(vec![0; len.div_ceil(64) as usize])
    }

    fn set(&mut self, at: u32, value: bool) {
        if let Some(word) = self.0.get_mut((at / 64) as usize) {
            let bit = 1_u64 << (at % 64);
            if value {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    fn get(&self, at: u32) -> bool {
        self.0
            .get((at / 64) as usize)
            .is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

/// A block and what of it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockState {
    pub(super) block: NodeBlock,
    /// Excluded addresses and gateways.
    never: Bits,
    used: Bits,
    len: u32,
}

impl BlockState {
    pub(super) fn new(block: NodeBlock, gateways: &[IpAddr]) -> Self {
        let bits = family(block.cidr).bits() - block.cidr.prefix_len();
        // A block larger than the CRD allows is served up to the limit.
        let len = 1_u32 << bits.min(MAX_BLOCK_BITS);
        let mut state = Self {
            block,
            never: Bits::new(len),
            used: Bits::new(len),
            len,
        };
        for at in 0..len {
            let address = state.address(at);
            let never = gateways.contains(&address)
                || state.block.reserved.iter().any(|r| r.contains(&address));
            state.never.set(at, never);
        }
        state
    }

    pub(super) fn family(&self) -> Family {
        family(self.block.cidr)
    }

    fn address(&self, at: u32) -> IpAddr {
        let first = match self.block.cidr {
            IpNet::V4(net) => u128::from(u32::from(net.network())),
            IpNet::V6(net) => u128::from(net.network()),
        };
        address_at(self.family(), first + u128::from(at))
    }

    fn offset(&self, address: IpAddr) -> Option<u32> {
        let offset = match (self.block.cidr, address) {
            (IpNet::V4(net), IpAddr::V4(a)) => {
                u128::from(u32::from(a).checked_sub(net.network().into())?)
            }
            (IpNet::V6(net), IpAddr::V6(a)) => u128::from(a).checked_sub(net.network().into())?,
            (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => return None,
        };
        u32::try_from(offset).ok().filter(|at| *at < self.len)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.offset(address).is_some()
    }

    /// Marks an address used or not; outside the block nothing happens.
    pub(super) fn mark(&mut self, address: IpAddr, used: bool) {
        if let Some(at) = self.offset(address) {
            self.used.set(at, used);
        }
    }

    /// Excluded, or a gateway.
    pub(super) fn is_never(&self, address: IpAddr) -> bool {
        self.offset(address).is_none_or(|at| self.never.get(at))
    }

    /// Usable addresses that nobody holds, in order.
    pub(super) fn vacant(&self) -> impl Iterator<Item = IpAddr> + '_ {
        (0..self.len)
            .filter(|at| !self.never.get(*at) && !self.used.get(*at))
            .map(|at| self.address(at))
    }

    pub(super) fn usable(&self) -> u32 {
        (0..self.len).map(|at| u32::from(!self.never.get(at))).sum()
    }
}
