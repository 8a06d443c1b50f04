//! The network policy controller of a node: watches what NetworkPolicy speaks of, compiles it and
//! keeps it in the kernel.
//!
//! ```text
//! API (pods, namespaces, policies) --watch--+                       +--> events, metrics, health
//! router.sock (attachments, blocks) --------+--> State --> Sync ----+
//! npc.sock (Pod, PodGone, Blocks) ----------+      Index    compile, Backend (iptables or nft)
//!        ^                                                            |      ^
//!        +-------------- Pod is answered when its rules are in force -+      |
//!                                     drift: somebody else changed the rules +
//!                      flows: what was allowed before and is not now -> marks of connections
//! NFLOG -> denial: who was denied (or allowed) what, by which policies, why -> log, metrics
//! ```
//!
//! Rules that are in the kernel stay until every first list has arrived (invariant I5); a kernel
//! without any gets the last state from disk ([`early`], `snapshot`). Nothing is flushed at start,
//! and on exit the rules stay. What NetworkPolicy means is `weft-policy`'s, which rules say
//! so `weft-policy-compile`'s, how they get into the kernel `weft-netfilter`'s business.

pub mod args;
mod bridge;
mod cleanup;
mod config;
mod denial;
mod drift;
mod dump;
mod early;
mod events;
mod flows;
mod kernel;
mod metrics;
mod off;
mod pace;
mod query;
mod router;
mod run;
mod server;
mod slim;
mod snapshot;
mod state;
mod sync;
mod watch;

pub use cleanup::cleanup;
pub use config::{owned, owner};
pub use dump::dump;
pub use kernel::Kernel;
pub use query::query;
pub use run::run;
