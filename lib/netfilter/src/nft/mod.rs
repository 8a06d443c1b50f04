//! The same ruleset for nftables: two tables of our own, written in one transaction.
//!
//! ```text
//! Ruleset (the IR) -> lower -> Tables -> diff(Observed, Tables) -> Script -> nft -f -
//!                                 |                  ^
//!                                 +-> tracer         +--- read(nft -n list table ...)
//! ```
//!
//! What differs from iptables and ipset:
//! - Both families share `table inet`, so chains carry `-4` or `-6` behind their names. Sets differ
//!   by name already.
//! - A tree of prefixes that leads to one chain per address is one verdict map ([`Tables`] has no
//!   tree; see `dispatch`).
//! - Rules of one verdict that differ by network and ports alone are one lookup in a set of
//!   `address . protocol . ports` (see `pack`).
//! - A port of departure is not visible in `inet`. `table bridge` sees it: there the frame gets a
//!   mark that says which port it leaves by, and `inet` dispatches by the mark (see `ports`).
//! - All of it changes in one transaction: there is no order of steps to find, no twin and no gate.
//!
//! What is written is, word for word, what `nft -n list` prints, so rules are compared as text.
//!
//! Base chains have priority -10: behind conntrack (-200) and destination NAT (-100), so that
//! addresses are those of pods, and before `filter` (0), where iptables, firewalls and flowtables
//! stand. A drop is final whatever others accept; what is not dropped is judged by them as before.

mod compare;
mod diff;
mod dispatch;
mod element;
mod lower;
mod pack;
mod ports;
mod read;
mod table;
mod write;

pub use diff::{Observed, Script, diff};
pub use element::{AddrRange, Data, Element, Go, Kind};
pub use lower::lower;
pub use read::{ListedChain, Listing, ReadError, read};
pub use table::{Base, Chain, End, Key, Match, Objects, Owned, Rule, Set, Tables, Verdict};

#[cfg(feature = "fake")]
pub(crate) use read::{elements, split_elements};
pub(crate) use write::rule as write_rule;

#[cfg(test)]
mod tests;
