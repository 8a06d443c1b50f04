//! `table bridge weft`: what may come in by a pod's port. Policy by address means nothing without.
//!
//! Every frame from a port whose name starts with `vethwepl` is judged in bridge prerouting, before
//! anything else sees it. A port that has no entry yet is closed, so a pod is closed from the moment
//! its link exists until its rules are loaded. Packets that are judged here by pod address are
//! judged there again after DNAT (chains `WEFT-FORWARD`, `WEFT-INPUT`).

mod delta;
mod element;
mod render;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_netlink::IfName;

pub use delta::{Change, Delta};

use crate::{
    identity::link_local,
    input::{Input, PodPort},
};

/// Name of the table, with its family, as `nft` writes it.
pub const TABLE: &str = "bridge weft";
/// The same as the kernel has it: `NFPROTO_BRIDGE`, and the name.
pub const TABLE_KEY: (u8, &str) = (7, "weft");

/// The rules of all pod ports of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRules {
    /// Ports that are open, with the identity frames must have.
    pub ports: BTreeMap<IfName, PodPort>,
    /// Addresses of nodes: closed to pods at `closed_udp`.
    pub nodes: BTreeSet<IpAddr>,
    /// UDP ports of the fabric.
    pub closed_udp: BTreeSet<u16>,
}

pub(crate) fn ports(input: &Input) -> PortRules {
    let mut nodes = input.node_addresses.clone();
    nodes.extend(input.peers.values().flatten());
    PortRules {
        ports: input.pods.clone(),
        nodes,
        closed_udp: BTreeSet::from([input.control_port, input.port]),
    }
}

impl PortRules {
    /// Addresses that a port may use as IPv6 source: its own and its link-local one. None for a pod
    /// without IPv6: npc writes no IPv6 rules on an IPv4 cluster, so its kernel-made link-local
    /// address would pass every policy.
    fn v6_sources(pod: &PodPort) -> BTreeSet<IpAddr> {
        let mut own: BTreeSet<IpAddr> = pod
            .addresses
            .iter()
            .filter(|a| a.is_ipv6())
            .copied()
            .collect();
        if !own.is_empty() {
            own.insert(link_local(pod.mac));
        }
        own
    }

    fn v4_sources(pod: &PodPort) -> impl Iterator<Item = IpAddr> + '_ {
        pod.addresses.iter().filter(|a| a.is_ipv4()).copied()
    }
}

#[cfg(test)]
mod tests;
