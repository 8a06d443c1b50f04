//! Links and what can be said about them.

use std::net::IpAddr;

use crate::{IfName, MacAddr};

/// A network device. In a [`crate::Network`] (observed) every field is filled in; in a
/// [`crate::Desired`] `None` means "as it is".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What it is.
    pub kind: Kind,
    /// `ifalias`, empty if there is none. Ours say so here ([`crate::Owner`]).
    pub alias: String,
    /// Device group. The kernel takes it at creation, the alias only afterwards: a device of ours
    /// that was cut off between the two is recognised by [`crate::GROUP`].
    pub group: u32,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Administratively up.
    pub up: Option<bool>,
    /// The bridge it is a port of.
    pub port: Option<Port>,
}

/// Kind of a link with the attributes that we care for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A Linux bridge.
    Bridge(Bridge),
    /// One end of a veth pair; the peer is known if it is in this network namespace.
    Veth {
        /// The other end.
        peer: Option<IfName>,
    },
    /// A VXLAN tunnel.
    Vxlan(Vxlan),
    /// Anything else, by the kernel's name for it (empty for physical devices).
    Other(String),
}

impl Kind {
    /// The kernel's name of the kind, as `ip -d link` prints it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bridge(_) => "bridge",
            Self::Veth { .. } => "veth",
            Self::Vxlan(_) => "vxlan",
            Self::Other(name) if name.is_empty() => "device",
            Self::Other(name) => name,
        }
    }
}

/// Attributes of a bridge. All of them can be changed while frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridge {
    /// Seconds a learned FDB entry lives.
    pub ageing: u32,
    /// IGMP/MLD snooping.
    pub multicast_snooping: bool,
    /// IPv4 frames pass iptables, whatever the sysctl says.
    pub nf_call_iptables: bool,
    /// IPv6 frames pass ip6tables, whatever the sysctl says.
    pub nf_call_ip6tables: bool,
    /// ARP frames pass arptables, whatever the sysctl says.
    pub nf_call_arptables: bool,
}

/// Attributes of a VXLAN tunnel. A tunnel that differs in any is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Destination UDP port, also the one listened at.
    pub port: u16,
    /// Source address of outer packets.
    pub local: Option<IpAddr>,
    /// Learn the tunnel end of inner source addresses.
    pub learning: bool,
}

/// Attributes of a bridge port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The bridge.
    pub bridge: IfName,
    /// Learn source addresses here.
    pub learning: bool,
    /// Send unicast frames with an unknown destination here.
    pub unicast_flood: bool,
    /// Send frames back where they came from.
    pub hairpin: bool,
}
