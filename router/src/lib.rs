//! The router of a node: makes the kernel hold the fabric that `weft-fabric` decides, gives pods
//! their addresses, and tells the cluster how it went.
//!
//! ```text
//!  API: Node WeftNode IPBlocks PeerSlices IPPools Pods   (stores)      router.sock (server) <- weft-cni
//!        |                                                                |  reserve / release
//!        +---> sync: Input -> fabric() -> diff -> apply <--- kick --------+  enforce: wait for a sync
//!        |        (kernel: netlink, sysctl, nft, iptables)                +--> npc.sock
//!        +---> claims: Pending block -> Confirmed
//!        <---- report: WeftNode status, on transitions only
//! ```
//!
//! Nothing is written before all first lists arrived (I5); on exit everything stays.

pub mod args;
pub mod cleanup;
pub mod install;
pub mod kernel;

mod announce;
mod attach;
mod claims;
mod clock;
mod conflist;
mod conntrack;
mod exec;
mod heartbeat;
mod input;
mod ipam;
mod leaks;
mod metrics;
mod npc;
mod report;
mod rules;
mod run;
mod server;
mod shared;
mod stores;
mod sync;
mod view;

pub use run::run;
