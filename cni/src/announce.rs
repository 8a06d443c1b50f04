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
    netns::Netns,
};

/// Announces the addresses of the pod's interface. The host end must be running.
pub(crate) fn announce(netns: &Netns, wanted: &Wanted) -> Result<(), Failure> {
    netns.run(|| {
        let mut inside = Netlink::open()?;
        if let Some(link) = inside.link(&wanted.ifname)? {
            let message = Veth::readdress(link.index, wanted.mac);
            inside.send_link(message, &format!("announce {}", wanted.ifname))?;
        }
        Ok(())
    })
}
