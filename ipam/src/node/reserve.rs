//! Which addresses an attachment gets.
//!
//! Addresses that were never used come first, lowest first; then released ones, the longest rested
//! first, once their cool-down is over. One address of every family, or none.

use std::{io, net::IpAddr};

use super::{Attachment, Pod, PoolWant, Request, Reservation, state::State};
use crate::{log::Damage, pool::Family};

/// Why an attachment gets no address.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The state is lost and not rebuilt yet.
    #[error("the node's addresses are being rebuilt: {0}")]
    Lost(Damage),
    /// The reservation could not be made durable.
    #[error("cannot write the address log: {0}")]
    Storage(#[source] io::Error),
    /// The request names no pool and no address.
    #[error("neither a pool nor an address was asked for")]
    NothingAsked,
    /// No pool of the list could serve; one reason each.
    #[error("no address: {}", reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    NoRoom {
        /// Why, per pool.
        reasons: Vec<Shortage>,
    },
    /// A static address cannot be had.
    #[error("address {address} cannot be had: {why}")]
    Fixed {
        /// The address.
        address: IpAddr,
        /// Why.
        why: FixedProblem,
    },
    /// The container is known with another pod.
    #[error("container {} has interface {} already, for pod {}/{} ({})", id.container_id, id.ifname, pod.namespace, pod.name, pod.uid)]
    OtherPod {
        /// Attachment.
        id: Attachment,
        /// The pod that has it.
        pod: Pod,
    },
}

/// Why a pool has no room on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The pool is not known to have a range of any family.
    #[error("pool {0:?} has no ranges")]
    NoFamily(String),
    /// The node has no confirmed block.
    #[error("the node has no confirmed {family:?} block of pool {pool:?} that gives out addresses")]
    NoBlock {
        /// Pool.
        pool: String,
        /// Family.
        family: Family,
    },
    /// Every address is in use or rests.
    #[error(
        "every {family:?} address of pool {pool:?} on this node is in use ({used}) or resting ({cooling})"
    )]
    Full {
        /// Pool.
        pool: String,
        /// Family.
        family: Family,
        /// In use.
        used: u32,
        /// Resting.
        cooling: u32,
    },
}

/// Why a static address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FixedProblem {
    /// In no block of the node.
    #[error("it is in no confirmed block of this node yet")]
    NotHere,
    /// Excluded or a gateway.
    #[error("it is excluded from its pool or a gateway")]
    Never,
    /// In use.
    #[error("pod {}/{} has it", .0.namespace, .0.name)]
    Taken(Pod),
    /// Resting.
    #[error("it was released less than the cool-down ago")]
    Cooling,
    /// Two addresses of one family.
    #[error("a pod has at most one address per family")]
    SecondOfFamily,
}

impl State {
    /// Chooses; changes nothing but the marks of a clock that went back.
    pub(super) fn choose(
        &mut self,
        request: &Request,
        now: u64,
    ) -> Result<Reservation, ReserveError> {
        self.settle(now);
        let (pool, mut addresses) = if request.fixed.is_empty() {
            self.choose_pool(&request.pools, now)?
        } else {
            self.take_fixed(&request.fixed, now)?
        };
        addresses.sort_unstable();
        Ok(Reservation {
            seq: self.next_seq(),
            id: request.id.clone(),
            pod: request.pod.clone(),
            pool,
            addresses,
            at: now,
        })
    }

    fn choose_pool(
        &self,
        pools: &[PoolWant],
        now: u64,
    ) -> Result<(String, Vec<IpAddr>), ReserveError> {
        let mut reasons = Vec::new();
        for want in pools {
            if want.families.is_empty() {
                reasons.push(Shortage::NoFamily(want.pool.clone()));
                continue;
            }
            let all: Result<Vec<IpAddr>, Shortage> = want
                .families
                .iter()
                .map(|family| self.choose_address(&want.pool, *family, now))
                .collect();
            match all {
                Ok(addresses) => return Ok((want.pool.clone(), addresses)),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(if reasons.is_empty() {
            ReserveError::NothingAsked
        } else {
            ReserveError::NoRoom { reasons }
        })
    }

    fn choose_address(&self, pool: &str, family: Family, now: u64) -> Result<IpAddr, Shortage> {
        let mut blocks = 0;
        let mut rested: Option<(u64, IpAddr)> = None;
        for block in self.active_blocks(pool, family) {
            blocks += 1;
            for address in block.vacant() {
                if !self.is_rested(address, block.block.cooldown, now) {
                    continue;
                }
                match self.rest_order(address) {
                    None => return Ok(address),
                    Some(order) if rested.is_none_or(|(best, _)| order < best) => {
                        rested = Some((order, address));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Some((_, address)) = rested {
            return Ok(address);
        }
        if blocks == 0 {
            return Err(Shortage::NoBlock {
                pool: pool.to_owned(),
                family,
            });
        }
        let counts = self.counts(now);
        let sum = |of: fn(&super::Counts) -> u32| {
            self.active_blocks(pool, family)
                .filter_map(|b| counts.get(&b.block.cidr))
                .map(of)
                .sum()
        };
        Err(Shortage::Full {
            pool: pool.to_owned(),
            family,
            used: sum(|c| c.used),
            cooling: sum(|c| c.cooling),
        })
    }

    fn take_fixed(
        &self,
        fixed: &[IpAddr],
        now: u64,
    ) -> Result<(String, Vec<IpAddr>), ReserveError> {
        let mut pool = None;
        for (index, address) in fixed.iter().enumerate() {
            let problem = |why| ReserveError::Fixed {
                address: *address,
                why,
            };
            let twice = fixed
                .iter()
                .take(index)
                .any(|earlier| Family::of(*earlier) == Family::of(*address));
            if twice {
                return Err(problem(FixedProblem::SecondOfFamily));
            }
            let block = self
                .block_of(*address)
                .ok_or_else(|| problem(FixedProblem::NotHere))?;
            if let Some(owner) = self.owner_of(*address) {
                return Err(problem(FixedProblem::Taken(owner.pod.clone())));
            }
            if block.is_never(*address) {
                return Err(problem(FixedProblem::Never));
            }
            if !self.is_rested(*address, block.block.cooldown, now) {
                return Err(problem(FixedProblem::Cooling));
            }
            pool.get_or_insert_with(|| block.block.pool.clone());
        }
        Ok((pool.unwrap_or_default(), fixed.to_vec()))
    }
}
