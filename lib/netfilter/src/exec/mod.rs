//! The real tools, and a netlink socket for element changes, which need none.
//!
//! Variants are called by their own names (`iptables-nft-restore`), never through the alternative
//! that the image or host has chosen: rules must be where the host's other rules are.

mod conntrack;
mod detect;
mod monitor;
mod nflog;
mod nft;
mod probe;
mod run;
mod saved;
mod socket;
mod tools;

pub use conntrack::{Flows, Marked};
pub use detect::{Evidence, Variant, choose, detect};
pub use monitor::{Interest, Monitor, NftFamily};
pub use nflog::{Headers, Logged, Nflog};
pub use nft::HostNft;
pub use probe::Probe;
pub use run::{Runner, started};
pub use saved::saved;
pub use socket::{NfError, NfSocket};
pub use tools::HostTools;

use std::io;

use crate::nfnetlink::Answer;

/// `NETLINK_NETFILTER`.
const PROTOCOL: isize = netlink_sys::protocols::NETLINK_NETFILTER;

/// What an answer says of a request that failed.
fn refusal(answer: Answer) -> Option<io::Error> {
    (answer.error != 0).then(|| io::Error::from_raw_os_error(answer.error))
}
