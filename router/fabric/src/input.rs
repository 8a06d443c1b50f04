//! What the fabric is decided from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use weft_netlink::{IfName, MacAddr};

/// Smallest MTU that is accepted: what every IPv4 host must take; IPv6 needs 1280.
pub(crate) const MIN_MTU: u32 = 576;

/// Everything the fabric of a node depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Cluster id, for aliases.
    pub cluster_id: String,
    /// UID of the Node, for MACs.
    pub node_uid: String,
    /// UDP port of the tunnel.
    pub port: u16,
    /// UDP port of heartbeats.
    pub control_port: u16,
    /// Address of this node that carries the tunnel.
    pub underlay: IpAddr,
    /// Links with an address of the node, other than ours: its way out.
    pub underlay_links: BTreeSet<IfName>,
    /// MTU of the link that has `underlay`.
    pub underlay_mtu: u32,
    /// MTU from the configuration.
    pub mtu: Option<u32>,
    /// The largest MTU that a pod of this node has: it keeps the one of its ADD.
    pub pods_mtu: Option<u32>,
    /// Gateway addresses on `weave`.
    pub gateways: BTreeSet<IpAddr>,
    /// CIDRs of every pool of the cluster.
    pub pools: BTreeSet<IpNet>,
    /// Other nodes: name -> all addresses of their tunnel ends.
    pub peers: BTreeMap<String, BTreeSet<IpAddr>>,
    /// All addresses of this node that peers or pods might use for it.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Packets from pods to the outside get the node's address.
    pub masquerade: bool,
    /// Destinations that see the pod's own address.
    pub no_masquerade: BTreeSet<IpNet>,
    /// Pods of this node.
    pub pods: BTreeMap<IfName, PodPort>,
}

/// A pod's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPort {
    /// MAC of the pod's interface.
    pub mac: MacAddr,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// Why there can be no fabric. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// MTU out of range.
    #[error(
        "an MTU of {wanted} does not fit: the underlay takes {underlay} and the tunnel needs {overhead}; set fabric.mtu of the WeftNetwork to at most {} or raise the MTU of the underlay", underlay.saturating_sub(*overhead)
    )]
    Mtu {
        /// What was asked for.
        wanted: u32,
        /// What the underlay link has.
        underlay: u32,
        /// Bytes the tunnel adds.
        overhead: u32,
    },
    /// MTU too small to be useful.
    #[error("an MTU of {wanted} is too small: {why}")]
    TooSmall {
        /// What it would be.
        wanted: u32,
        /// Which bound.
        why: &'static str,
    },
    /// A gateway that is in no pool.
    #[error("the gateway {0} lies in no CIDR of an IPPool")]
    Gateway(IpAddr),
}

/// Bytes a frame grows by in the tunnel: inner Ethernet 14, VXLAN 8, UDP 8, IP 20 or 40.
#[must_use]
pub(crate) fn overhead(underlay: IpAddr) -> u32 {
    if underlay.is_ipv4() { 50 } else { 70 }
}

/// Checks the input; returns the MTU of the fabric.
///
/// # Errors
/// See [`InputError`].
pub fn check(input: &Input) -> Result<u32, InputError> {
    let overhead = overhead(input.underlay);
    let most = input.underlay_mtu.saturating_sub(overhead);
    let mtu = input.mtu.unwrap_or(most);
    if mtu > most {
        return Err(InputError::Mtu {
            wanted: mtu,
            underlay: input.underlay_mtu,
            overhead,
        });
    }
    if mtu < MIN_MTU {
        return Err(InputError::TooSmall {
            wanted: mtu,
            why: "IPv4 needs 576",
        });
    }
    if mtu < 1280 && input.pools.iter().any(|p| matches!(p, IpNet::V6(_))) {
        return Err(InputError::TooSmall {
            wanted: mtu,
            why: "IPv6 needs 1280",
        });
    }
    match input.gateways.iter().find(|g| input.pool_of(**g).is_none()) {
        Some(gateway) => Err(InputError::Gateway(*gateway)),
        None => Ok(mtu),
    }
}

impl Input {
    /// The pool CIDR an address lies in.
    #[must_use]
    pub fn pool_of(&self, address: IpAddr) -> Option<IpNet> {
        self.pools.iter().copied().find(|p| p.contains(&address))
    }

    /// Tunnel ends of the other nodes, in the family of our own.
    pub(crate) fn remotes(&self) -> BTreeSet<IpAddr> {
        self.peers
            .values()
            .filter_map(|addresses| {
                addresses
                    .iter()
                    .find(|a| a.is_ipv4() == self.underlay.is_ipv4())
            })
            .filter(|a| **a != self.underlay)
            .copied()
            .collect()
    }

    /// Whether a pool has this family.
    pub(crate) fn has_v6(&self) -> bool {
        self.pools.iter().any(|p| matches!(p, IpNet::V6(_)))
    }
}
