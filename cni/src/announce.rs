//! Telling the network where an address lives now: gratuitous ARP, unsolicited neighbour
//! advertisement.
//!
//! The kernel sends both itself when an interface gets a MAC and `arp_notify` and `ndisc_notify`
//! are set (see [`crate::sysctl::tune_pod`]); giving it the MAC that it has is enough. A packet socket
//! would cost ten times as much: closing one waits for an RCU grace period (tried on 6.18: 10 ms, a
//! whole ADD takes less).

use crate::{
    error::Failure,
    link::Wanted,
    netlink::{Netlink, Veth},
};

/// Announces the addresses of the pod's interface, on the thread inside its namespace. The host end
/// must be running.
pub(crate) fn announce(inside: &mut Netlink, link: u32, wanted: &Wanted) -> Result<(), Failure> {
    let message = Veth::readdress(link, wanted.mac);
    Ok(inside.send_link(message, &format!("announce {}", wanted.ifname))?)
}
