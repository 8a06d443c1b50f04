//! Netfilter rules as values: what a node's rules should be ([`Ruleset`]), what must be done to
//! get there, how that is written for `ipset restore` and `iptables-restore` or for `nft -f`, and the
//! adapters that run it.
//!
//! ```text
//! compile (npc/compile, router/fabric)          read back (feature exec)
//!        | Ruleset                                   | Observed
//!        +------------------> diff <-----------------+
//!                              | Plan (prints; its text is the log line and the dry run)
//!                              v
//!          ipset restore, iptables-restore --noflush, netlink for elements of sets (feature exec),
//!          or the fake kernel
//! ```
//!
//! For nftables the same ruleset is lowered first and written in one transaction ([`nft`]).
//!
//! The crate must not know Kubernetes, policies, pods or peers: those who fill a [`Ruleset`] do.
//! Without features it does no I/O. Features: `fake` (a stateful kernel in memory with failure
//! injection), `trace` (judges a packet by a [`Ruleset`]), `exec` (the real tools, on tokio, and a
//! socket to netfilter).

pub mod backend;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "fake")]
pub mod fake;
mod ir;
pub mod nfnetlink;
pub mod nft;
pub mod plan;
pub mod text;
#[cfg(feature = "trace")]
pub mod trace;

pub use ir::{
    Chain, ChainName, CtState, CtStates, Element, Family, Hook, HookJump, IfName, IfPattern,
    Invalid, Match, NameError, PktType, PortRange, Position, Protocol, Rule, Ruleset, Set, SetKind,
    SetName, SetRole, Table, TableName, Verdict,
};
