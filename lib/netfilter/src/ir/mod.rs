//! The ruleset IR.

mod check;
mod name;
mod packet;
mod rule;
mod ruleset;
mod set;

pub use check::Invalid;
pub use name::{ChainName, IfName, IfPattern, NameError, SetName};
pub use packet::{CtState, CtStates, Family, Hook, PktType, PortRange, Protocol};
pub use rule::{Match, Rule, Verdict};
pub use ruleset::{Chain, HookJump, Position, Ruleset, Table, TableName};
pub use set::{Element, Set, SetKind, SetRole};

#[cfg(test)]
mod tests;
