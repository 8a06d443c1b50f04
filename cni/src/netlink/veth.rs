//! The pair: one message makes both ends with their final names, the pod's end in its namespace.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{
    Mac, Message,
    socket::{change_link, link_fixed, new_link},
};

/// Attributes of `linux/if_link.h`.
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const BRPORT_MODE: u16 = 4;
const BRPORT_LEARNING: u16 = 8;
const BRPORT_UNICAST_FLOOD: u16 = 9;
const BRPORT_MCAST_FLOOD: u16 = 27;
const BRPORT_BCAST_FLOOD: u16 = 30;

/// A veth pair to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Veth<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) mtu: u32,
    /// Index of the bridge.
    pub(crate) bridge: u32,
    /// Network namespace of the pod.
    pub(crate) netns: BorrowedFd<'a>,
}

impl Veth<'_> {
    /// Makes the pair, both ends down, the host end a port of the bridge.
    pub(crate) fn create(&self) -> Message {
        let netns = u32::try_from(self.netns.as_raw_fd()).unwrap_or(u32::MAX);
        new_link()
            .text(IFLA_IFNAME, self.host_name)
            .number(IFLA_MTU, self.mtu)
            .number(IFLA_MASTER, self.bridge)
            .nest(IFLA_LINKINFO, &[], |info| {
                info.text(INFO_KIND, "veth").nest(INFO_DATA, &[], |data| {
                    data.nest(VETH_INFO_PEER, &link_fixed(0, 0, 0), |peer| {
                        peer.text(IFLA_IFNAME, self.pod_name)
                            .attr(IFLA_ADDRESS, &self.pod_mac)
                            .number(IFLA_MTU, self.mtu)
                            .number(IFLA_NET_NS_FD, netns)
                    })
                })
            })
    }

    /// Gives a link a MAC, possibly the one it has.
    pub(crate) fn readdress(link: u32, mac: Mac) -> Message {
        change_link(link).attr(IFLA_ADDRESS, &mac)
    }

    /// Marks the host end ours and sets what it may do as a bridge port: no learning (the FDB entry
    /// is static), no unknown unicast, but group frames; hairpin for a pod that reaches itself
    /// through a Service.
    pub(crate) fn claim(host: u32, alias: &str) -> Message {
        change_link(host)
            .attr(IFLA_IFALIAS, alias.as_bytes())
            .nest(IFLA_LINKINFO, &[], |info| {
                info.text(INFO_SLAVE_KIND, "bridge")
                    .nest(INFO_SLAVE_DATA, &[], |port| {
                        port.attr(BRPORT_MODE, &[1])
                            .attr(BRPORT_LEARNING, &[0])
                            .attr(BRPORT_UNICAST_FLOOD, &[0])
                            .attr(BRPORT_MCAST_FLOOD, &[1])
                            .attr(BRPORT_BCAST_FLOOD, &[1])
                    })
            })
    }
}
