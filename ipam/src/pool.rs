//! Pool arithmetic: which blocks a pool has, which addresses of them are usable, which block is
//! free. One definition of "usable", shared by allocator, reports and operator.
//!
//! Nothing here enumerates a pool: an IPv6 pool may hold 2^74 blocks. Address sets are intervals.

mod free;
mod span;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use free::FreeBlocks;
use span::{Span, measure, merge};

/// IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Largest block a node can hold, as bits of host part (4,096 addresses: /20, /116).
pub const MAX_BLOCK_BITS: u8 = 12;

/// Why a pool's text is not a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not a CIDR.
    #[error("{0:?} is not a CIDR such as 10.32.0.0/12")]
    NotACidr(String),
    /// Not an address or CIDR.
    #[error("{0:?} is neither an address nor a CIDR")]
    NotAnAddress(String),
    /// Host bits set.
    #[error("{given} has host bits set: write {meant}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// As it should be.
        meant: IpNet,
    },
    /// No CIDR at all.
    #[error("the pool has no CIDR")]
    Empty,
    /// Two CIDRs of the pool overlap.
    #[error("{0} and {1} overlap")]
    Overlap(IpNet, IpNet),
    /// Block size does not fit the CIDR.
    #[error("blocks of /{block} do not fit in {cidr}: choose a size from /{} to /{bits}", cidr.prefix_len().max(bits - MAX_BLOCK_BITS))]
    BlockSize {
        /// The CIDR.
        cidr: IpNet,
        /// The size asked for.
        block: u8,
        /// Address bits of the family.
        bits: u8,
    },
}

/// Ranges that pod addresses come from, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    name: String,
    cidrs: Vec<IpNet>,
    block_v4: u8,
    block_v6: u8,
    exclude: Vec<IpNet>,
}

impl Pool {
    /// Reads a pool as the `IPPool` object spells it. Entries of `exclude` may be addresses; those
    /// that lie outside `cidrs` are kept and do nothing.
    ///
    /// # Errors
    /// The first entry that is wrong, with the remedy.
    pub fn parse(
        name: &str,
        cidrs: &[String],
        block_v4: u8,
        block_v6: u8,
        exclude: &[String],
    ) -> Result<Self, PoolError> {
        let mut ranges: Vec<IpNet> = Vec::new();
        for text in cidrs {
            let cidr = parse_cidr(text)?;
            if let Some(other) = ranges.iter().find(|o| overlaps(**o, cidr)) {
                return Err(PoolError::Overlap(*other, cidr));
            }
            let (block, bits) = match cidr {
                IpNet::V4(_) => (block_v4, 32),
                IpNet::V6(_) => (block_v6, 128),
            };
            if block < cidr.prefix_len() || block > bits || bits - block > MAX_BLOCK_BITS {
                return Err(PoolError::BlockSize { cidr, block, bits });
            }
            ranges.push(cidr);
        }
        if ranges.is_empty() {
            return Err(PoolError::Empty);
        }
        let exclude = exclude
            .iter()
            .map(|text| parse_address_or_cidr(text))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            cidrs: ranges,
            block_v4,
            block_v6,
            exclude,
        })
    }

    /// Name of the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ranges, in the order given.
    #[must_use]
    pub fn cidrs(&self) -> &[IpNet] {
        &self.cidrs
    }

    /// Addresses and ranges that are never given out.
    #[must_use]
    pub fn exclude(&self) -> &[IpNet] {
        &self.exclude
    }

    /// Families the pool has ranges of, IPv4 first.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        [Family::V4, Family::V6]
            .into_iter()
            .filter(|f| self.cidrs.iter().any(|c| family(*c) == *f))
            .collect()
    }

    /// Prefix length of the blocks of a family.
    #[must_use]
    pub fn block_prefix(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.block_v4,
            Family::V6 => self.block_v6,
        }
    }

    /// The pool CIDR an address is in. Its prefix length is the one pods get (everything on-link).
    #[must_use]
    pub fn cidr_of(&self, address: IpAddr) -> Option<IpNet> {
        self.cidrs.iter().copied().find(|c| c.contains(&address))
    }

    /// Whether a block lies inside one of the pool's ranges.
    #[must_use]
    pub fn contains(&self, block: IpNet) -> bool {
        self.cidrs.iter().any(|c| c.contains(&block))
    }

    /// Every block of a family in address order. Lazy: an IPv6 pool has more than can be counted.
    pub fn blocks(&self, family: Family) -> impl Iterator<Item = IpNet> + '_ {
        let prefix = self.block_prefix(family);
        self.cidrs
            .iter()
            .filter(move |c| self::family(**c) == family)
            .flat_map(move |c| {
                let all = Span::of(*c);
                let step = block_size(family, prefix);
                std::iter::successors(Some(all.first), move |at| {
                    at.checked_add(step).filter(|next| *next <= all.last)
                })
                .map(move |at| net_at(family, at, prefix))
            })
    }

    /// Number of blocks of a family.
    #[must_use]
    pub fn block_count(&self, family: Family) -> u128 {
        let prefix = self.block_prefix(family);
        self.cidrs
            .iter()
            .filter(|c| self::family(**c) == family)
            .map(|c| 1_u128 << u32::from(prefix - c.prefix_len()).min(127))
            .fold(0, u128::saturating_add)
    }

    /// Whether the address may be given to a pod: inside a range, not excluded, and neither network
    /// nor broadcast address of the range (the pod has the range's prefix length, so those of the
    /// block are ordinary addresses).
    #[must_use]
    pub fn is_usable(&self, address: IpAddr) -> bool {
        self.cidr_of(address)
            .is_some_and(|cidr| !reserved_ends(cidr).contains(&address))
            && !self.exclude.iter().any(|e| e.contains(&address))
    }

    /// What of `block` is never given out: the ends of the range and the excluded parts. Hand it to
    /// the node's allocator (`node::NodeBlock::reserved`).
    #[must_use]
    pub fn reserved_in(&self, block: IpNet) -> Vec<IpNet> {
        let ends = self
            .cidr_of(block.network())
            .map(reserved_ends)
            .unwrap_or_default()
            .into_iter()
            .map(IpNet::from);
        let mut reserved: Vec<IpNet> = ends
            .chain(self.exclude.iter().copied())
            .filter_map(|net| intersection(net, block))
            .collect();
        reserved.sort_unstable();
        reserved.dedup();
        reserved
    }

    /// Usable addresses of a block.
    #[must_use]
    pub fn usable_in(&self, block: IpNet) -> u128 {
        let reserved = merge(self.reserved_in(block).into_iter().map(Span::of));
        Span::of(block).len().saturating_sub(measure(&reserved))
    }

    /// Usable addresses of the pool in a family.
    #[must_use]
    pub fn capacity(&self, family: Family) -> u128 {
        self.cidrs
            .iter()
            .filter(|c| self::family(**c) == family)
            .map(|c| self.usable_in(*c))
            .fold(0, u128::saturating_add)
    }

    /// Usable addresses of a family in no block of `existing`: what can still be granted.
    #[must_use]
    pub fn ungranted(&self, family: Family, existing: &[IpNet]) -> u128 {
        let granted = existing
            .iter()
            .filter(|b| self::family(**b) == family && self.contains(**b))
            .map(|b| self.usable_in(*b))
            .fold(0, u128::saturating_add);
        self.capacity(family).saturating_sub(granted)
    }
}

/// The first of [`FreeBlocks`]. For more than one, ask those.
#[must_use]
pub fn choose_free_block(pool: &Pool, family: Family, existing: &[IpNet]) -> Option<IpNet> {
    FreeBlocks::new(pool, family, existing.iter().copied()).next()
}

/// The address `weave` gets from the node's first block: the first usable one of it. `exclude` is
/// what must not be taken ([`Pool::reserved_in`], other gateways).
#[must_use]
pub fn gateway_for(block: IpNet, exclude: &[IpNet]) -> Option<IpAddr> {
    let all = Span::of(block);
    let taken = merge(
        exclude
            .iter()
            .filter(|e| overlaps(**e, block))
            .map(|e| Span::of(*e)),
    );
    let mut at = all.first;
    for span in taken {
        if span.first > at {
            break;
        }
        at = at.max(span.last.checked_add(1)?);
    }
    (at <= all.last).then(|| address_at(family(block), at))
}

/// Whether two ranges share an address.
#[must_use]
pub fn overlaps(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Family of a range.
#[must_use]
pub fn family(net: IpNet) -> Family {
    Family::of(net.network())
}

/// Reads a CIDR without host bits.
///
/// # Errors
/// Not a CIDR, or host bits set.
pub fn parse_cidr(text: &str) -> Result<IpNet, PoolError> {
    let given: IpNet = text
        .trim()
        .parse()
        .map_err(|_| PoolError::NotACidr(text.to_owned()))?;
    if given == given.trunc() {
        Ok(given)
    } else {
        Err(PoolError::HostBits {
            given,
            meant: given.trunc(),
        })
    }
}

fn parse_address_or_cidr(text: &str) -> Result<IpNet, PoolError> {
    let text = text.trim();
    text.parse::<IpAddr>()
        .map(IpNet::from)
        .or_else(|_| text.parse::<IpNet>().map(|net| net.trunc()))
        .map_err(|_| PoolError::NotAnAddress(text.to_owned()))
}

/// Network and broadcast address; for IPv6 the subnet-router anycast address (RFC 4291 2.6.1).
/// Ranges of one or two addresses have neither (RFC 3021).
fn reserved_ends(cidr: IpNet) -> Vec<IpAddr> {
    match cidr {
        IpNet::V4(net) if net.prefix_len() <= 30 => {
            vec![net.network().into(), net.broadcast().into()]
        }
        IpNet::V6(net) if net.prefix_len() <= 126 => vec![net.network().into()],
        IpNet::V4(_) | IpNet::V6(_) => Vec::new(),
    }
}

fn intersection(a: IpNet, b: IpNet) -> Option<IpNet> {
    if b.contains(&a) {
        Some(a)
    } else if a.contains(&b) {
        Some(b)
    } else {
        None
    }
}

fn block_size(family: Family, prefix: u8) -> u128 {
    1_u128 << u32::from(family.bits() - prefix).min(127)
}

pub(crate) fn address_at(family: Family, at: u128) -> IpAddr {
    match family {
        // A span of IPv4 never leaves 32 bits.
        Family::V4 => IpAddr::V4(u32::try_from(at).unwrap_or(u32::MAX).into()),
        Family::V6 => IpAddr::V6(at.into()),
    }
}

fn net_at(family: Family, at: u128, prefix: u8) -> IpNet {
    IpNet::new_assert(address_at(family, at), prefix)
}
