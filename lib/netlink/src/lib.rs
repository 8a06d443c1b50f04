//! Network devices as values: links, addresses, routes, FDB entries and neighbours, the difference
//! between what is there and what shall be there, and the two places it can be applied to: the
//! kernel (feature `rtnetlink`) and a fake in memory (feature `fake`).
//!
//! ```text
//! Kernel::dump() -> Network --+
//!                             +-- diff(&Network, &Desired, &Owner) -> Plan -> Kernel::apply(Step)
//! weft-fabric    -> Desired --+
//! ```
//!
//! Only what is ours is ever changed: links whose alias is `weft/<cluster id>/...`, and what hangs
//! on them ([`Owner`]). The crate must not know Kubernetes or how a fabric is composed; types of
//! rtnetlink never leave it.

mod diff;
#[cfg(feature = "fake")]
mod fake;
#[cfg(feature = "rtnetlink")]
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's message and attribute types are open-ended"
)]
mod kernel;
mod link;
mod name;
mod network;
mod owner;
mod plan;

pub use diff::diff;
#[cfg(feature = "fake")]
pub use fake::Fake;
#[cfg(feature = "rtnetlink")]
pub use kernel::{Events, Kernel};
pub use link::{Bridge, Kind, Link, Port, Vxlan};
pub use name::{IfName, MacAddr, ParseError};
pub use network::{Address, Desired, FdbEntry, Neighbour, Network, Route};
pub use owner::{GROUP, Owner};
pub use plan::{Error, Foreign, Plan, Step};

use std::future::Future;

/// Something that holds network devices: the kernel of this node, or a fake.
pub trait Netlink: Send + Sync {
    /// Everything that is there.
    ///
    /// # Errors
    /// The kernel refused or the socket broke.
    fn dump(&self) -> impl Future<Output = Result<Network, Error>> + Send;

    /// One step of a plan.
    ///
    /// # Errors
    /// Names the step. The network may have changed since the plan was made: dump and plan again.
    fn apply(&self, step: &Step) -> impl Future<Output = Result<(), Error>> + Send;
}
