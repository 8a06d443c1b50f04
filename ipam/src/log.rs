//! The node's durable log: records, their encoding, and the storage it is kept in.
//!
//! ```text
//! frame := length (u32 LE) | crc of chain and length (u32 LE) | payload (JSON) | crc of payload (u32 LE)
//! ```
//! The chain is the payload checksum of the frame before, so a frame that was dropped, repeated or
//! moved is noticed. Every append is synced before the next, so a crash can cut at most the end of
//! the last frame: that, and a tail of zeros (a file system that grew the file before it wrote), is
//! a *torn tail* and is cut. Anything else is [`Damage`]: the state must be rebuilt from what the
//! kernel shows, never guessed.

mod codec;
mod store;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use codec::{Chain, Decoded, decode, encode};
pub use store::{Fault, LogStore, MemoryStore};

use crate::node::{NodeBlock, Reservation};

/// Version of the format.
pub const FORMAT: u32 = 1;
/// Largest log that is read, in bytes; compaction keeps it far below.
pub const MAX_BYTES: usize = 16 << 20;
/// Largest payload of one record, in bytes.
pub const MAX_RECORD: usize = 1 << 20;

/// Whose log it is. A log of another cluster or node is foreign.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Cluster id (UID of the Namespace `kube-system`).
    pub cluster: String,
    /// Name of the Node.
    pub node: String,
}

/// One change of the node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "r", rename_all = "snake_case")]
pub enum Record {
    /// First record of every log.
    Header {
        /// [`FORMAT`].
        format: u32,
        /// Whose log it is.
        #[serde(flatten)]
        identity: Identity,
        /// Sequence numbers up to this were given before: they are never given again.
        last_seq: u64,
    },
    /// The blocks and gateways from now on.
    Blocks {
        /// Confirmed blocks.
        blocks: Vec<NodeBlock>,
        /// Gateway addresses of the node.
        gateways: Vec<IpAddr>,
    },
    /// Addresses were given out.
    Reserve(Reservation),
    /// The attachment is gone.
    Release {
        /// Sequence number of the reservation.
        seq: u64,
        /// When, seconds since the Unix epoch.
        at: u64,
    },
    /// An address rests (written by compaction in place of the history).
    Cold {
        /// The address.
        address: IpAddr,
        /// When it was released.
        at: u64,
    },
    /// The history was lost: every free address counts as released at this time.
    Quarantine {
        /// When.
        at: u64,
    },
}

/// Why a log cannot be used. The remedy is always the same: rebuild from kernel devices and blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No log: a new node, or somebody removed it.
    #[error("there is no address log")]
    Missing,
    /// A log without a single record.
    #[error("the address log is empty")]
    Empty,
    /// Larger than [`MAX_BYTES`].
    #[error("the address log has {0} bytes, more than {MAX_BYTES}")]
    Oversized(u64),
    /// Does not start with a header.
    #[error("the address log does not start with a header of ours")]
    NotALog,
    /// Written by a later version.
    #[error("the address log has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// Of another cluster or node.
    #[error("the address log belongs to node {} of cluster {}", .0.node, .0.cluster)]
    Foreign(Identity),
    /// A checksum is wrong.
    #[error("the address log is corrupt at byte {0}")]
    Corrupt(usize),
    /// The records contradict each other.
    #[error("the address log contradicts itself at byte {at}: {why}")]
    Contradiction {
        /// Offset of the record.
        at: usize,
        /// What does not fit.
        why: String,
    },
    /// It cannot be read at all.
    #[error("the address log cannot be read: {0}")]
    Unreadable(String),
}
