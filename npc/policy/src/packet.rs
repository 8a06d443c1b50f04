//! A packet, as far as policy looks at it.

use std::net::IpAddr;

use crate::Protocol;

/// A packet on one node, after DNAT and before SNAT (where the rules see it). The source port is
/// not here: no rule examines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, after DNAT.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload,
    /// What connection tracking says of it.
    pub state: State,
    /// Its way through the node.
    pub path: Path,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A segment or datagram to a port.
    Port {
        /// Its protocol.
        protocol: Protocol,
        /// Destination port.
        port: u16,
    },
    /// ICMP (IPv4) or ICMPv6 (IPv6) of a type.
    Icmp(u8),
    /// Another IP protocol, by number.
    Other(u8),
}

/// Connection tracking state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// First packet of a flow.
    New,
    /// Of a flow that was answered.
    Established,
    /// An ICMP error or helper connection of a known flow.
    Related,
    /// No flow it could belong to.
    Invalid,
    /// Not tracked; judged like a new one.
    Untracked,
}

/// The way of a packet through the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Bridged or routed: to or from pods.
    Forward {
        /// Host end of the pod that the bridge hands it to; `None` if it goes to other nodes or
        /// out of the bridge. Only looked at when no local pod has the destination address
        /// (multicast, broadcast, flooded frames): then it says who receives it.
        out_port: Option<String>,
    },
    /// To the node itself.
    Input,
    /// From the node itself (its host-network pods included).
    Output,
}

impl Packet {
    /// Neighbour discovery and multicast listener discovery: without them IPv6 does not work, so
    /// no policy judges them (types 130-137 and 143).
    pub fn is_neighbour_discovery(&self) -> bool {
        self.destination.is_ipv6() && matches!(self.payload, Payload::Icmp(130..=137 | 143))
    }
}
