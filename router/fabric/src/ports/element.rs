//! Elements of the table's sets: all that depends on pods and nodes is in them, so that a pod that
//! comes or goes changes no rule.

use std::{fmt::Write, net::IpAddr};

use weft_netfilter::nfnetlink::{concatenation, interface};
use weft_netlink::{IfName, MacAddr};

use super::PortRules;
use crate::input::PodPort;

/// An element of one of the sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Element {
    /// Set `port`: the port may use this Ethernet source, and be asked for addresses.
    Port(IfName, MacAddr),
    /// Sets `v4` and `v6`: the port may use this source.
    Source(IfName, MacAddr, IpAddr),
    /// Set `ndmac`: the link-layer address that the port may name in neighbour discovery.
    NdMac(IfName, MacAddr),
    /// Set `ndtarget`: an address that the port may advertise as its own.
    NdTarget(IfName, IpAddr),
    /// Sets `node4` and `node6`: an address of a node.
    Node(IpAddr),
}

/// Everything that opens a port.
pub(super) fn of_port(link: &IfName, pod: &PodPort) -> Vec<Element> {
    let mac = pod.mac;
    let v6 = PortRules::v6_sources(pod);
    let mut elements = vec![
        Element::Port(link.clone(), mac),
        Element::NdMac(link.clone(), mac),
    ];
    let sources = PortRules::v4_sources(pod).chain(v6.iter().copied());
    elements.extend(sources.map(|a| Element::Source(link.clone(), mac, a)));
    elements.extend(v6.iter().map(|a| Element::NdTarget(link.clone(), *a)));
    elements
}

impl Element {
    /// Its set.
    pub(super) fn set(&self) -> &'static str {
        match self {
            Self::Port(..) => "port",
            Self::NdMac(..) => "ndmac",
            Self::NdTarget(..) => "ndtarget",
            Self::Source(_, _, IpAddr::V4(_)) => "v4",
            Self::Source(_, _, IpAddr::V6(_)) => "v6",
            Self::Node(IpAddr::V4(_)) => "node4",
            Self::Node(IpAddr::V6(_)) => "node6",
        }
    }

    /// As `nft` reads it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Port(link, mac) => format!("\"{link}\" . {mac}"),
            Self::Source(link, mac, address) => format!("\"{link}\" . {mac} . {address}"),
            Self::NdMac(link, mac) => format!("\"{link}\" . {}", number(&mac.0)),
            Self::NdTarget(link, address) => format!("\"{link}\" . {}", number(&octets(*address))),
            Self::Node(address) => address.to_string(),
        }
    }

    /// As it stands in the kernel's registers.
    pub(super) fn key(&self) -> Vec<u8> {
        let port = |link: &IfName| interface(link.as_str());
        match self {
            Self::Port(link, mac) | Self::NdMac(link, mac) => concatenation(&[&port(link), &mac.0]),
            Self::Source(link, mac, address) => {
                concatenation(&[&port(link), &mac.0, &octets(*address)])
            }
            Self::NdTarget(link, address) => concatenation(&[&port(link), &octets(*address)]),
            Self::Node(address) => octets(*address),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// Bytes of a packet as the number that nft compares them to.
fn number(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
