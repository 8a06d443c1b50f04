//! Words about packets that rules and the tracer share.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

/// IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Family of an address.
    #[must_use]
    pub fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// Family of a network.
    #[must_use]
    pub fn of_net(net: &IpNet) -> Self {
        Self::of(&net.addr())
    }

    /// Length of a host prefix: 32 or 128.
    #[must_use]
    pub fn max_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

/// A hook of the packet path: a built-in chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// On arrival.
    Prerouting,
    /// To the node itself.
    Input,
    /// Through the node, routed or bridged.
    Forward,
    /// From the node itself.
    Output,
    /// On leaving.
    Postrouting,
}

impl Hook {
    /// Name of the built-in chain.
    #[must_use]
    pub fn chain(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }

    /// The hook of a built-in chain.
    #[must_use]
    pub fn from_chain(name: &str) -> Option<Self> {
        [
            Self::Prerouting,
            Self::Input,
            Self::Forward,
            Self::Output,
            Self::Postrouting,
        ]
        .into_iter()
        .find(|hook| hook.chain() == name)
    }
}

/// IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMP6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Does it have ports that `-m tcp|udp|sctp --dport` and `hash:ip,port` understand?
    #[must_use]
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// Reads a name as the tools print it, or a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "icmp" => Some(Self::ICMP),
            "tcp" => Some(Self::TCP),
            "udp" => Some(Self::UDP),
            "icmpv6" | "ipv6-icmp" => Some(Self::ICMP6),
            "sctp" => Some(Self::SCTP),
            "igmp" => Some(Self(2)),
            "gre" => Some(Self(47)),
            "esp" | "ipv6-crypt" => Some(Self(50)),
            "ah" | "ipv6-auth" => Some(Self(51)),
            "ospf" | "ospfigp" => Some(Self(89)),
            "pim" => Some(Self(103)),
            "vrrp" => Some(Self(112)),
            "udplite" => Some(Self(136)),
            number => number.parse().ok().map(Self),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMP6 => f.write_str("icmpv6"),
            Self::SCTP => f.write_str("sctp"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// First.
    pub from: u16,
    /// Last.
    pub to: u16,
}

impl PortRange {
    /// One port.
    #[must_use]
    pub fn one(port: u16) -> Self {
        Self {
            from: port,
            to: port,
        }
    }

    /// `from..=to`.
    #[must_use]
    pub fn new(from: u16, to: u16) -> Self {
        Self { from, to }
    }

    /// Is the port one of them?
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}:{}", self.from, self.to)
        }
    }
}

/// State of a packet's flow in conntrack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CtState {
    /// Belongs to no flow and makes no sense.
    Invalid,
    /// First packets of a flow.
    New,
    /// Of an error about another flow, or opened by it.
    Related,
    /// Both directions were seen, or it is a reply.
    Established,
    /// Taken out by NOTRACK; also neighbour discovery.
    Untracked,
}

/// Several states.
pub type CtStates = BTreeSet<CtState>;

impl CtState {
    /// Reads what iptables writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Every state, in the order in which iptables prints them.
    pub const ALL: [Self; 5] = [
        Self::Invalid,
        Self::New,
        Self::Related,
        Self::Established,
        Self::Untracked,
    ];

    /// As iptables writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::New => "NEW",
            Self::Related => "RELATED",
            Self::Established => "ESTABLISHED",
            Self::Untracked => "UNTRACKED",
        }
    }
}

/// How the link layer addressed the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PktType {
    /// To one.
    Unicast,
    /// To all.
    Broadcast,
    /// To a group.
    Multicast,
}

impl PktType {
    /// Reads what iptables writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Unicast, Self::Broadcast, Self::Multicast]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// As iptables writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
        }
    }
}
