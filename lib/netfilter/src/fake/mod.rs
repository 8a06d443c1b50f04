//! A kernel in memory that takes the tools' input: sets, chains and jumps with the errors that the
//! real ones give, and failures on request.
//!
//! It is as atomic as the real ones and no more: `ipset restore` line by line, `iptables-restore`
//! table by table. [`FakeNft`] is nftables, where a script is all or nothing.

mod kernel;
mod nft;
mod restore;

pub use kernel::{FakeKernel, FakeSet};
pub use nft::{FakeNft, FakeTable};
pub use restore::Moment;

#[cfg(test)]
mod tests;
