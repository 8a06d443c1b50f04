//! Rules as text: written for `iptables-restore`, read from `iptables-save`.
//!
//! What is written is, word for word, what both variants of iptables 1.8 print back, so a rule that
//! was not touched reads as the rule that was written.

mod read;
mod save;
mod words;
mod write;

pub use read::{ReadError, read_rule};
pub use save::{SavedChain, SavedSet, SavedTable, read_ipset_save, read_iptables_save};
pub use write::{write_matches, write_rule};

pub(crate) use words::words;

#[cfg(test)]
mod tests;
