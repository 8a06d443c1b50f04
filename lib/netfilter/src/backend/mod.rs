//! The seam between those who want a ruleset in the kernel and the kernel interface that holds it.
//!
//! [`Iptables`] is one implementation, [`Nftables`] the other, whose plan is one transaction. Both
//! take the same [`Ruleset`], so what a backend needs to remember stays inside it.

mod iptables;
mod nftables;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future};

pub use iptables::{Iptables, Tools};
pub use nftables::{Nft, Nftables, nft_text};

#[cfg(feature = "trace")]
use crate::trace::{Packet, Pass};
use crate::{Invalid, Ruleset};

/// Why the kernel does not hold what it should. Nothing is known about what it holds then; the next
/// [`Backend::sync`] reads it back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The ruleset is impossible: a bug of whoever compiled it.
    #[error("refused a ruleset that cannot be: {0}; this is a bug, please report it")]
    Invalid(#[from] Invalid),
    /// A tool failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// What a tool said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tool}: {message}{}", line.as_ref().map(|l| format!(" (at: {l})")).unwrap_or_default())]
pub struct ToolError {
    /// The tool, with what it was to do.
    pub tool: String,
    /// Class of the failure, for metrics: `missing` (there is no such tool), `start` (it could not be
    /// started), `timeout`, `lock`, `exit`, `output`.
    pub class: &'static str,
    /// What it printed, or why it could not run.
    pub message: String,
    /// The line of its input that it complained about.
    pub line: Option<String>,
    /// Number of that line, from 1.
    pub line_number: Option<usize>,
}

impl Error {
    /// Class of the failure, for metrics.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Tool(error) => error.class,
        }
    }
}

/// What tools say (in the C locale) where the kernel lacks what they work on.
const ABSENT: [&str; 8] = [
    // Legacy iptables: no such table, no ip_tables, no such family, no netfilter at all.
    "Table does not exist",
    "Protocol not available",
    "Address family not supported by protocol",
    "Protocol not supported",
    // nft and iptables-nft: no nf_tables, or not for this family.
    "cache initialization failed: Invalid argument",
    "Could not fetch rule set generation id: Invalid argument",
    "Operation not supported",
    // ipset: no ip_set.
    "Cannot open session to kernel",
];

impl ToolError {
    /// There is no such tool here, or the kernel lacks what it works on: nothing can be held there.
    /// After any other failure (a tool that was too slow, or had no memory) nobody knows.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self.class {
            "missing" => true,
            "exit" => ABSENT.iter().any(|words| self.message.contains(words)),
            _ => false,
        }
    }
}

#[cfg(feature = "trace")]
impl ToolError {
    /// Packets cannot be taken through what this backend holds.
    fn untraceable(backend: &str, why: &impl std::fmt::Display) -> Self {
        Self {
            tool: format!("trace of what {backend} holds"),
            class: "output",
            message: why.to_string(),
            line: None,
            line_number: None,
        }
    }
}

/// What a sync did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The plan that was carried out, as text; empty if nothing was to do.
    pub plan: String,
    /// Runs of tools that changed what packets meet (freeing a set that nothing looks up is none).
    pub steps: usize,
    /// Were rules rewritten (or only elements of sets changed)?
    pub rules: bool,
    /// Did it start from what was read back, not from what was remembered?
    pub read_back: bool,
}

impl Done {
    /// Was anything to do?
    #[must_use]
    pub fn changed(&self) -> bool {
        self.steps > 0
    }
}

/// What the rules in the kernel do with a packet, and where they are not those that are wanted.
#[cfg(feature = "trace")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traced {
    /// They drop it; `None`: nobody can say, they are not all ours.
    pub dropped: Option<bool>,
    /// Rules that matched, in order, for a person.
    pub path: Vec<String>,
    /// Where the kernel holds something else than is wanted, for a person; empty: nowhere.
    pub drift: Vec<String>,
}

/// A kernel interface that holds rulesets of one owner.
pub trait Backend: Send {
    /// Name for status and metrics: `iptables-legacy`, `iptables-nft`, `nftables`.
    fn name(&self) -> &str;

    /// Brings the kernel from what was applied last to `desired`, or from what is read back if that
    /// is not known (at first, and after a failure).
    fn sync(&mut self, desired: &Ruleset) -> impl Future<Output = Result<Done, Error>> + Send;

    /// As [`Backend::sync`], always from what is read back: what it changes is drift.
    fn verify(&mut self, desired: &Ruleset) -> impl Future<Output = Result<Done, Error>> + Send;

    /// Does the kernel hold rules of ours that packets meet wherever `desired` has them judged? What
    /// exactly they say is not looked at: those of another version or an older state are some.
    fn in_force(&mut self, desired: &Ruleset) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Number of elements of each set that packets are looked up in, by its name in the kernel, as
    /// applied last. Empty where that is not known, or where the kernel announces changes of sets.
    fn set_sizes(&self) -> BTreeMap<String, usize> {
        BTreeMap::new()
    }

    /// Takes a packet through what the kernel holds of ours now, and compares that with `desired`.
    /// Changes nothing.
    #[cfg(feature = "trace")]
    fn trace(
        &mut self,
        desired: &Ruleset,
        packet: &Packet,
        passes: &[Pass],
    ) -> impl Future<Output = Result<Traced, Error>> + Send;

    /// Removes everything of ours.
    fn sweep(&mut self) -> impl Future<Output = Result<Done, Error>> + Send {
        async { self.verify(&Ruleset::default()).await }
    }
}
