//! From what is there to what should be: an ordered, printable list of steps.
//!
//! Order (invariant I3, for iptables with ipset, where no transaction spans both):
//! 1. New sets are made and filled; element changes that are safe one by one are made (see
//!    [`order`]); a set whose elements cannot be changed safely gets a filled twin.
//! 2. Per family one `iptables-restore`: changed chains are rewritten, jumps put in place, and
//!    chains of no more use deleted. It is atomic per table, so rules move from a set to its twin
//!    and from old to new chains at one instant.
//! 3. Addresses enter the gate (see [`crate::SetRole::Gate`]).
//! 4. Sets that no rule looks up any more are destroyed.

mod diff;
mod hooks;
mod observed;
mod order;
mod owner;
mod step;

pub use diff::diff;
pub use hooks::{BaseRule, HookKey};
pub use observed::{Observed, Saved};
pub use owner::Owner;
pub use step::{BaseOp, MAX_ELEMENTS, Plan, RulesStep, SetOp, Step, TableStep};

#[cfg(test)]
mod tests;
