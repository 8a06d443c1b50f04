//! Address management: pool arithmetic, the choice of a pool, the two-phase claim of blocks, the
//! node's allocator with its durable log, and the garbage collector's decisions.
//!
//! ```text
//! operator:  pool::FreeBlocks -> claim::decide_block          (IPBlock Pending)
//! node:      claim::confirm                                   (IPBlock Confirmed)
//!            node::Allocator::set_blocks -> reserve/release   (log::LogStore, durable)
//!            gc::sweep -> gc::recheck -> Allocator::release_if
//! ```
//!
//! Everything here is pure: time is an argument (`now`, whole seconds since the Unix epoch: the
//! cool-down of an address outlives a restart, so it cannot be a monotonic clock), durable storage
//! is the trait [`log::LogStore`]. The crate must not know Kubernetes, netlink, a clock or the
//! environment. The directory adapter stands behind the feature `file`, reading an `IPBlock` behind
//! `api`.

#[cfg(feature = "api")]
mod api;
pub mod choice;
pub mod claim;
#[cfg(feature = "file")]
pub mod file;
pub mod gc;
pub mod log;
pub mod node;
pub mod pool;
pub mod sighting;
