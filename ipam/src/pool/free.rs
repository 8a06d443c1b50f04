//! Free blocks of a pool, one after the other.

use ipnet::IpNet;

use super::{
    Family, Pool, block_size, family, net_at,
    span::{Span, merge},
};

/// The blocks of a pool in one family, in the order of its CIDRs and then of addresses, that overlap
/// no existing block and have a usable address. Whoever grants one after the other takes them from
/// here: each is found where the search for the one before ended.
///
/// Cost: a sort of the existing blocks at first, then a step for each block and each run of taken
/// addresses that is passed, whatever the pool's size.
#[derive(Debug, Clone)]
pub struct FreeBlocks<'a> {
    pool: &'a Pool,
    family: Family,
    taken: Vec<Span>,
    /// The first of `taken` that does not lie before the next candidate.
    ahead: usize,
    /// Index of the CIDR.
    cidr: usize,
    /// First address of the next candidate in it; `None`: the first.
    at: Option<u128>,
}

impl<'a> FreeBlocks<'a> {
    /// `existing` may hold blocks of any size and of other pools, and single-address grants.
    #[must_use]
    pub fn new(pool: &'a Pool, family: Family, existing: impl IntoIterator<Item = IpNet>) -> Self {
        let prefix = pool.block_prefix(family);
        // An exclusion smaller than a block leaves the block usable; existing ones never do.
        let excluded = pool.exclude.iter().filter(|e| e.prefix_len() <= prefix);
        let taken = existing
            .into_iter()
            .chain(excluded.copied())
            .filter(|net| super::family(*net) == family)
            .map(Span::of);
        Self {
            pool,
            family,
            taken: merge(taken),
            ahead: 0,
            cidr: 0,
            at: None,
        }
    }

    /// The candidate at `at`, if it is free, and what it or the addresses in its way end with.
    fn look(&mut self, at: u128, step: u128) -> (Option<IpNet>, u128) {
        let end = at + (step - 1);
        while self.taken.get(self.ahead).is_some_and(|s| s.last < at) {
            self.ahead += 1;
        }
        match self.taken.get(self.ahead) {
            Some(span) if span.first <= end => (None, span.last.max(end)),
            _ => {
                let prefix = self.pool.block_prefix(self.family);
                let block = net_at(self.family, at, prefix);
                (Some(block).filter(|b| self.pool.usable_in(*b) > 0), end)
            }
        }
    }
}

impl Iterator for FreeBlocks<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let step = block_size(self.family, self.pool.block_prefix(self.family));
        while let Some(cidr) = self.pool.cidrs.get(self.cidr) {
            let all = Span::of(*cidr);
            let mut next = Some(self.at.unwrap_or_else(|| {
                // The CIDRs are in the user's order, so this may lead back.
                self.ahead = self.taken.partition_point(|s| s.last < all.first);
                all.first
            }));
            if family(*cidr) != self.family {
                next = None;
            }
            while let Some(at) = next.filter(|at| *at <= all.last) {
                let (found, end) = self.look(at, step);
                // Up to the block that starts behind `end`.
                next = (end / step)
                    .checked_add(1)
                    .and_then(|n| n.checked_mul(step));
                if found.is_some() {
                    (self.cidr, self.at) = match next {
                        Some(at) => (self.cidr, Some(at)),
                        None => (self.cidr + 1, None),
                    };
                    return found;
                }
            }
            (self.cidr, self.at) = (self.cidr + 1, None);
        }
        None
    }
}
