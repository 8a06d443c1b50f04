//! Judges a packet by a [`Ruleset`], as the kernel would.
//!
//! The tracer knows every match and verdict of the IR and nothing else; a chain or set that does
//! not exist is an error, not a guess. What other owners' rules say is not known here: a built-in
//! chain is taken to accept.
//!
//! ```text
//! Way (how the packet travels) -> passes: hooks with their devices -> trace -> Outcome
//! ```

mod nft;
mod packet;
mod run;
mod way;

pub use nft::{NftError, NftOutcome, trace_nft};
pub use packet::{Packet, Pass};
pub use run::{Outcome, Step, TraceError, trace, trace_with_local};
pub use way::{Names, Way};

#[cfg(test)]
mod tests;
