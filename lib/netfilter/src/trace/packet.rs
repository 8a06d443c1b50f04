//! The packet and one pass of it through a hook.

use std::net::IpAddr;

use crate::{CtState, Family, Hook, PktType, Protocol};

/// A packet, with addresses as the filter table sees them (after DNAT, before SNAT).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Source port, for protocols with ports.
    pub src_port: Option<u16>,
    /// Destination port, for protocols with ports.
    pub dst_port: Option<u16>,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
    /// State of its flow.
    pub ct: CtState,
    /// Mark of its flow.
    pub ct_mark: u32,
    /// How the link layer addressed it.
    pub pkt_type: PktType,
    /// Packet mark before the first pass.
    pub mark: u32,
}

impl Packet {
    /// The first packet of a flow, to one receiver, without ports.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, protocol: Protocol) -> Self {
        Self {
            src,
            dst,
            protocol,
            src_port: None,
            dst_port: None,
            icmp_type: None,
            ct: CtState::New,
            ct_mark: 0,
            pkt_type: PktType::Unicast,
            mark: 0,
        }
    }

    /// The first TCP packet to a port.
    #[must_use]
    pub fn tcp(src: IpAddr, dst: IpAddr, port: u16) -> Self {
        Self::with_port(src, dst, Protocol::TCP, port)
    }

    /// The first UDP packet to a port.
    #[must_use]
    pub fn udp(src: IpAddr, dst: IpAddr, port: u16) -> Self {
        Self::with_port(src, dst, Protocol::UDP, port)
    }

    /// The first packet to a port of any protocol that has ports.
    #[must_use]
    pub fn with_port(src: IpAddr, dst: IpAddr, protocol: Protocol, port: u16) -> Self {
        Self {
            src_port: Some(40_000),
            dst_port: Some(port),
            ..Self::new(src, dst, protocol)
        }
    }

    /// An echo request.
    #[must_use]
    pub fn ping(src: IpAddr, dst: IpAddr) -> Self {
        match Family::of(&dst) {
            Family::V4 => Self {
                icmp_type: Some(8),
                ..Self::new(src, dst, Protocol::ICMP)
            },
            Family::V6 => Self {
                icmp_type: Some(128),
                ..Self::new(src, dst, Protocol::ICMP6)
            },
        }
    }

    /// The same packet in another flow state.
    #[must_use]
    pub fn in_state(mut self, ct: CtState) -> Self {
        self.ct = ct;
        self
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(&self.dst)
    }
}

/// One pass through a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// The hook.
    pub hook: Hook,
    /// Input device: for a bridged packet the bridge.
    pub in_iface: Option<String>,
    /// Output device: for a bridged packet the bridge.
    pub out_iface: Option<String>,
    /// Bridge port of arrival.
    pub phys_in: Option<String>,
    /// Bridge port of departure; known for bridged packets only.
    pub phys_out: Option<String>,
}

impl Pass {
    /// A pass without bridge ports.
    #[must_use]
    pub fn new(hook: Hook, in_iface: Option<&str>, out_iface: Option<&str>) -> Self {
        Self {
            hook,
            in_iface: in_iface.map(str::to_owned),
            out_iface: out_iface.map(str::to_owned),
            phys_in: None,
            phys_out: None,
        }
    }

    /// The same with bridge ports.
    #[must_use]
    pub fn ports(mut self, phys_in: Option<&str>, phys_out: Option<&str>) -> Self {
        self.phys_in = phys_in.map(str::to_owned);
        self.phys_out = phys_out.map(str::to_owned);
        self
    }
}
