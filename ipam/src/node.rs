//! The node's allocator: addresses of the node's confirmed blocks to attachments, durable.
//!
//! ```text
//! Allocator::open -> Ready                  the log was whole (a torn tail was cut)
//!                 -> NeedsRebuild(Damage)   reserve is refused until rebuild(endpoints, ..)
//! set_blocks, reserve, release, release_if, list, find, counts
//! ```
//! Reserve is on stable storage before it returns. Release takes effect even when the disk is full
//! (the address is then free in memory and would come back as used after a crash, for the garbage
//! collector to find). After a failed write the next one replaces the whole log, because what the
//! failed one left is unknown.

mod block;
mod reserve;
mod state;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, io, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use reserve::ReserveError;
use state::State;

use crate::{
    log::{self, Chain, Damage, Identity, LogStore, Record},
    pool::Family,
};

/// An attachment: one interface of one sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// The pod of an attachment. Empty fields: unknown (rebuilt from the kernel).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// Addresses of one attachment: all of them together are given and taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Grows with every reservation of the node; a release that was decided on carries it.
    pub seq: u64,
    /// Attachment.
    #[serde(flatten)]
    pub id: Attachment,
    /// Pod.
    pub pod: Pod,
    /// Pool.
    pub pool: String,
    /// Addresses, one per family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// When, seconds since the Unix epoch.
    pub at: u64,
}

/// A block of the node. Made from a confirmed `IPBlock` and its `IPPool`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBlock {
    /// The block.
    pub cidr: IpNet,
    /// Pool.
    pub pool: String,
    /// Range of the pool it is in (gives the prefix length in the pod).
    pub pool_cidr: IpNet,
    /// Confirmed epoch.
    pub epoch: i64,
    /// Seconds an address rests between two attachments.
    pub cooldown: u64,
    /// What is never given out (`Pool::reserved_in`).
    pub reserved: Vec<IpNet>,
    /// New addresses may be chosen from it: the pool is Active and the block is no single-address
    /// grant (that one only serves the pod that asks for the address). What is in use stays.
    pub active: bool,
}

/// What an ADD asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Attachment.
    pub id: Attachment,
    /// Pod.
    pub pod: Pod,
    /// Pools in order of preference; the first with room for all its families wins.
    pub pools: Vec<PoolWant>,
    /// Exactly these addresses (static); must be in blocks of the node and free.
    pub fixed: Vec<IpAddr>,
}

/// One pool an ADD may take from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolWant {
    /// Name.
    pub pool: String,
    /// Families of the pool: an attachment gets one address of each, or none at all.
    pub families: Vec<Family>,
}

/// Whether a change is on stable storage.
#[derive(Debug)]
pub enum Durability {
    /// It is.
    Durable,
    /// It is in force, and will be written with the next change; after a crash before that it is
    /// forgotten.
    Pending(io::Error),
}

/// What a release did.
#[derive(Debug)]
pub struct Released {
    /// What was taken back; `None` if the attachment was not known (which is success).
    pub reservation: Option<Reservation>,
    /// Whether it is on stable storage.
    pub durability: Durability,
}

/// Outcome of a change of blocks.
#[derive(Debug)]
pub struct BlocksChange {
    /// Reservations with an address in none of the node's blocks: their ports must be set down (a
    /// fenced node), or their block must come back.
    pub stranded: Vec<Reservation>,
    /// Whether it is on stable storage.
    pub durability: Durability,
}

/// Addresses of a block by state. `usable = used + cooling + free`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// May be given out in principle.
    pub usable: u32,
    /// Held by an attachment.
    pub used: u32,
    /// Released, resting.
    pub cooling: u32,
    /// Can be given out now.
    pub free: u32,
}

/// How the node starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The state is what it was.
    Ready {
        /// Bytes of a torn tail that were cut.
        cut: usize,
    },
    /// The state is lost: call [`Allocator::rebuild`] with what the kernel shows.
    NeedsRebuild(Damage),
}

/// The allocator of a node.
#[derive(Debug)]
pub struct Allocator<S> {
    store: S,
    identity: Identity,
    state: State,
    chain: Chain,
    /// The log is not what the state is: replace it before anything is appended.
    dirty: bool,
    /// Why reserve is refused.
    lost: Option<Damage>,
    /// Records in the log.
    records: usize,
}

impl<S: LogStore> Allocator<S> {
    /// Reads the log. Never fails: what cannot be used is reported in [`Start`].
    pub fn open(mut store: S, identity: Identity) -> (Self, Start) {
        let read = load(&mut store, &identity);
        let mut allocator = Self {
            store,
            identity,
            state: State::default(),
            chain: Chain::default(),
            dirty: true,
            lost: None,
            records: 0,
        };
        let start = match read {
            Ok(loaded) => {
                allocator.state = loaded.state;
                allocator.chain = loaded.chain;
                allocator.records = loaded.records;
                allocator.dirty = loaded.cut > 0;
                Start::Ready { cut: loaded.cut }
            }
            Err(damage) => {
                allocator.lost = Some(damage.clone());
                Start::NeedsRebuild(damage)
            }
        };
        (allocator, start)
    }

    /// Starts over from what the kernel shows: one reservation per pod port of ours (its `seq` is
    /// ignored; unknown fields are empty). Unless the log was merely missing and there are no pods
    /// (a new node), the history of addresses is lost and every free one rests for its cool-down.
    /// The damaged log is replaced.
    pub fn rebuild(&mut self, endpoints: Vec<Reservation>, now: u64) -> Durability {
        let fresh = matches!(self.lost, Some(Damage::Missing)) && endpoints.is_empty();
        let mut state = State::after(self.state.last_seq());
        state.set_blocks(self.state.blocks(), self.state.gateways().to_vec());
        if !fresh {
            state.quarantine(now);
        }
        for endpoint in endpoints {
            state.adopt(endpoint, now);
        }
        self.state = state;
        self.lost = None;
        self.flush()
    }

    /// Adds what the kernel shows and the state does not know (a release that was written and whose
    /// pod lives on, a reservation that a lost write forgot). Known attachments stay as they are.
    /// Returns what was added.
    pub fn adopt(
        &mut self,
        endpoints: Vec<Reservation>,
        now: u64,
    ) -> (Vec<Reservation>, Durability) {
        let added: Vec<Reservation> = endpoints
            .into_iter()
            .filter_map(|e| self.state.adopt(e, now))
            .collect();
        let durability = if added.is_empty() && !self.dirty {
            Durability::Durable
        } else {
            self.flush()
        };
        (added, durability)
    }

    /// The node's confirmed blocks and gateways from now on. Addresses in use in a block that went
    /// stay with their owners and are reported as stranded.
    pub fn set_blocks(&mut self, blocks: Vec<NodeBlock>, gateways: Vec<IpAddr>) -> BlocksChange {
        let changed = self.state.set_blocks(blocks, gateways);
        let durability = if !changed || self.lost.is_some() {
            Durability::Durable
        } else {
            self.write(&Record::Blocks {
                blocks: self.state.blocks(),
                gateways: self.state.gateways().to_vec(),
            })
        };
        BlocksChange {
            stranded: self.state.stranded(),
            durability,
        }
    }

    /// Gives an attachment its addresses. Asked again for the same attachment, answers the same.
    ///
    /// # Errors
    /// See [`ReserveError`]; nothing is reserved then.
    pub fn reserve(&mut self, request: &Request, now: u64) -> Result<Reservation, ReserveError> {
        if let Some(damage) = &self.lost {
            return Err(ReserveError::Lost(damage.clone()));
        }
        if let Some(held) = self.state.find(&request.id) {
            let held = held.clone();
            return self.again(held, request);
        }
        let reservation = self.state.choose(request, now)?;
        let record = Record::Reserve(reservation.clone());
        let rests = self.state.rests_of(&reservation);
        self.state.insert(reservation.clone());
        match self.write(&record) {
            Durability::Durable => Ok(reservation),
            Durability::Pending(source) => {
                // Not promised to anybody: forget it. The log may hold it; the next write replaces
                // the log.
                self.state.forget(&reservation.id, rests);
                Err(ReserveError::Storage(source))
            }
        }
    }

    /// Takes the addresses of an attachment back. Unknown is success.
    pub fn release(&mut self, id: &Attachment, now: u64) -> Released {
        let seq = self.state.find(id).map(|r| r.seq);
        self.release_seq(seq, now)
    }

    /// Takes back exactly the reservation that was decided on; if it is gone, does nothing.
    pub fn release_if(&mut self, seq: u64, now: u64) -> Released {
        self.release_seq(Some(seq), now)
    }

    /// Reservation of an attachment.
    #[must_use]
    pub fn find(&self, id: &Attachment) -> Option<&Reservation> {
        self.state.find(id)
    }

    /// Who holds an address.
    #[must_use]
    pub fn owner_of(&self, address: IpAddr) -> Option<&Reservation> {
        self.state.owner_of(address)
    }

    /// Every reservation, in order of attachment.
    pub fn list(&self) -> impl Iterator<Item = &Reservation> {
        self.state.list()
    }

    /// Blocks as last set, or as the log had them.
    #[must_use]
    pub fn blocks(&self) -> Vec<NodeBlock> {
        self.state.blocks()
    }

    /// Gateways as last set, or as the log had them.
    #[must_use]
    pub fn gateways(&self) -> &[IpAddr] {
        self.state.gateways()
    }

    /// The block holds a gateway and cannot be given back.
    #[must_use]
    pub fn is_pinned(&self, block: IpNet) -> bool {
        self.state.gateways().iter().any(|g| block.contains(g))
    }

    /// Addresses by state, per block.
    #[must_use]
    pub fn counts(&self, now: u64) -> BTreeMap<IpNet, Counts> {
        self.state.counts(now)
    }

    /// Why reserve is refused until [`Allocator::rebuild`]; `None` if it is not.
    #[must_use]
    pub fn lost(&self) -> Option<&Damage> {
        self.lost.as_ref()
    }

    /// Writes the state anew if an earlier write failed. Call from time to time.
    pub fn flush_if_pending(&mut self) -> Durability {
        if self.dirty && self.lost.is_none() {
            self.flush()
        } else {
            Durability::Durable
        }
    }

    fn again(&mut self, held: Reservation, request: &Request) -> Result<Reservation, ReserveError> {
        if held.pod.uid == request.pod.uid {
            return match self.flush_if_pending() {
                Durability::Durable => Ok(held),
                Durability::Pending(source) => Err(ReserveError::Storage(source)),
            };
        }
        if !held.pod.uid.is_empty() {
            return Err(ReserveError::OtherPod {
                id: held.id,
                pod: held.pod,
            });
        }
        // Rebuilt from the kernel: now its pod is known.
        let known = Reservation {
            pod: request.pod.clone(),
            ..held
        };
        self.state.insert(known.clone());
        match self.flush() {
            Durability::Durable => Ok(known),
            Durability::Pending(source) => Err(ReserveError::Storage(source)),
        }
    }

    fn release_seq(&mut self, seq: Option<u64>, now: u64) -> Released {
        let Some(reservation) = seq.and_then(|seq| self.state.remove(seq, now)) else {
            return Released {
                reservation: None,
                durability: Durability::Durable,
            };
        };
        let durability = if self.lost.is_some() {
            Durability::Durable
        } else {
            self.write(&Record::Release {
                seq: reservation.seq,
                at: now,
            })
        };
        Released {
            reservation: Some(reservation),
            durability,
        }
    }

    /// Makes the log hold `record`, which the state holds already.
    fn write(&mut self, record: &Record) -> Durability {
        if self.dirty || self.records > 256 + 4 * self.state.weight() {
            return self.flush();
        }
        let mut chain = self.chain;
        let written = log::encode(record, &mut chain).and_then(|frame| self.store.append(&frame));
        match written {
            Ok(()) => {
                self.chain = chain;
                self.records += 1;
                Durability::Durable
            }
            Err(source) => {
                self.dirty = true;
                Durability::Pending(source)
            }
        }
    }

    /// Replaces the log by the state.
    fn flush(&mut self) -> Durability {
        let mut chain = Chain::default();
        let mut bytes = Vec::new();
        let mut records = 0;
        let written = self
            .state
            .snapshot(&self.identity)
            .try_for_each(|record| {
                records += 1;
                bytes.extend(log::encode(&record, &mut chain)?);
                Ok(())
            })
            .and_then(|()| self.store.replace(&bytes));
        match written {
            Ok(()) => {
                self.chain = chain;
                self.records = records;
                self.dirty = false;
                Durability::Durable
            }
            Err(source) => {
                self.dirty = true;
                Durability::Pending(source)
            }
        }
    }
}

struct Loaded {
    state: State,
    chain: Chain,
    records: usize,
    cut: usize,
}

fn load<S: LogStore>(store: &mut S, identity: &Identity) -> Result<Loaded, Damage> {
    let bytes = store
        .read()
        .map_err(|e| Damage::Unreadable(e.to_string()))?
        .ok_or(Damage::Missing)?;
    if bytes.len() > log::MAX_BYTES {
        return Err(Damage::Oversized(bytes.len() as u64));
    }
    let decoded = log::decode(&bytes)?;
    let mut records = decoded.records.into_iter();
    let mut state = match records.next() {
        None => return Err(Damage::Empty),
        Some((_, Record::Header { format, .. })) if format != log::FORMAT => {
            return Err(Damage::Format(format));
        }
        Some((_, Record::Header { identity: of, .. })) if of != *identity => {
            return Err(Damage::Foreign(of));
        }
        Some((_, Record::Header { last_seq, .. })) => State::after(last_seq),
        Some(_) => return Err(Damage::NotALog),
    };
    let mut count = 1;
    for (at, record) in records {
        state
            .replay(record)
            .map_err(|why| Damage::Contradiction { at, why })?;
        count += 1;
    }
    Ok(Loaded {
        state,
        chain: decoded.chain,
        records: count,
        cut: bytes.len() - decoded.length,
    })
}
