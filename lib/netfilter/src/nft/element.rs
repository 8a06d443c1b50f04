//! What sets and maps hold, as `nft -n` writes and prints it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{Family, PortRange, Protocol};

/// Addresses, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    /// First.
    pub from: IpAddr,
    /// Last, of the same family.
    pub to: IpAddr,
}

impl AddrRange {
    /// All addresses of a network.
    #[must_use]
    pub fn of(net: IpNet) -> Self {
        Self {
            from: net.network(),
            to: net.broadcast(),
        }
    }

    /// Is the address one of them?
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.from <= *address && *address <= self.to
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some((from, to)) = text.split_once('-') {
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            return Some(Self { from, to });
        }
        if text.contains('/') {
            return text.parse().ok().map(Self::of);
        }
        let address: IpAddr = text.parse().ok()?;
        Some(Self::of(address.into()))
    }

    /// The network that has exactly these addresses.
    fn net(&self) -> Option<IpNet> {
        let bits = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (from.to_bits() ^ to.to_bits()).leading_zeros(),
            (IpAddr::V6(from), IpAddr::V6(to)) => (from.to_bits() ^ to.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let net = IpNet::new(self.from, u8::try_from(bits).ok()?).ok()?;
        (Self::of(net) == *self).then_some(net)
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.net() {
            Some(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", self.from),
            Some(net) => write!(f, "{net}"),
            None => write!(f, "{}-{}", self.from, self.to),
        }
    }
}

/// What a set or map holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Addresses.
    Addr(Family),
    /// Ranges of addresses; none touches another.
    Range(Family),
    /// Address, protocol and port.
    AddrPort(Family),
    /// Network, protocol and ports; none overlaps another.
    RangePort(Family),
    /// Protocol and ports; none overlaps another.
    Ports,
    /// A verdict by address.
    AddrVerdict(Family),
    /// A verdict by packet mark.
    MarkVerdict,
    /// A packet mark by device.
    DeviceMark,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Addr(Family::V4),
        Self::Addr(Family::V6),
        Self::Range(Family::V4),
        Self::Range(Family::V6),
        Self::AddrPort(Family::V4),
        Self::AddrPort(Family::V6),
        Self::RangePort(Family::V4),
        Self::RangePort(Family::V6),
        Self::Ports,
        Self::AddrVerdict(Family::V4),
        Self::AddrVerdict(Family::V6),
        Self::MarkVerdict,
        Self::DeviceMark,
    ];

    /// `set` or `map`.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Self::AddrVerdict(_) | Self::MarkVerdict | Self::DeviceMark => "map",
            Self::Addr(_)
            | Self::Range(_)
            | Self::AddrPort(_)
            | Self::RangePort(_)
            | Self::Ports => "set",
        }
    }

    /// What follows `type`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Addr(Family::V4) | Self::Range(Family::V4) => "ipv4_addr",
            Self::Addr(Family::V6) | Self::Range(Family::V6) => "ipv6_addr",
            Self::AddrPort(Family::V4) | Self::RangePort(Family::V4) => {
                "ipv4_addr . inet_proto . inet_service"
            }
            Self::AddrPort(Family::V6) | Self::RangePort(Family::V6) => {
                "ipv6_addr . inet_proto . inet_service"
            }
            Self::Ports => "inet_proto . inet_service",
            Self::AddrVerdict(Family::V4) => "ipv4_addr : verdict",
            Self::AddrVerdict(Family::V6) => "ipv6_addr : verdict",
            Self::MarkVerdict => "mark : verdict",
            Self::DeviceMark => "ifname : mark",
        }
    }

    /// Does it need `flags interval`?
    #[must_use]
    pub fn interval(self) -> bool {
        matches!(self, Self::Range(_) | Self::RangePort(_) | Self::Ports)
    }

    /// Reads keyword, type and flag.
    #[must_use]
    pub fn parse(keyword: &str, type_name: &str, interval: bool) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            kind.keyword() == keyword
                && kind.type_name() == type_name
                && kind.interval() == interval
        })
    }
}

/// An element of a set, or the key of an element of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// An address.
    Addr(IpAddr),
    /// Addresses.
    Range(AddrRange),
    /// Address, protocol and port.
    AddrPort(IpAddr, Protocol, u16),
    /// Addresses (a network), protocol and ports.
    RangePort(AddrRange, Protocol, PortRange),
    /// Protocol and ports.
    Ports(Protocol, PortRange),
    /// A packet mark.
    Mark(u32),
    /// A device.
    Device(String),
}

/// Into another chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Go {
    /// `jump`: and back at its end. Otherwise `goto`: its end is the end of this one too.
    pub back: bool,
    /// The chain.
    pub chain: String,
}

/// What an element stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: it is in a set.
    None,
    /// A way.
    Go(Go),
    /// A packet mark.
    Mark(u32),
}

impl Element {
    /// Reads an element of a set or the key of one of a map of `kind`.
    #[must_use]
    pub fn parse(kind: Kind, text: &str) -> Option<Self> {
        let mut parts = text.split(" . ");
        let mut part = || parts.next();
        let element = match kind {
            Kind::Addr(_) | Kind::AddrVerdict(_) => Self::Addr(part()?.parse().ok()?),
            Kind::Range(_) => Self::Range(AddrRange::parse(part()?)?),
            Kind::AddrPort(_) => Self::AddrPort(
                part()?.parse().ok()?,
                Protocol::parse(part()?)?,
                part()?.parse().ok()?,
            ),
            Kind::RangePort(_) => Self::RangePort(
                AddrRange::parse(part()?)?,
                Protocol::parse(part()?)?,
                port_range(part()?)?,
            ),
            Kind::Ports => Self::Ports(Protocol::parse(part()?)?, port_range(part()?)?),
            Kind::MarkVerdict => Self::Mark(mark(part()?)?),
            Kind::DeviceMark => Self::Device(part()?.trim_matches('"').to_owned()),
        };
        part().is_none().then_some(element)
    }

    /// Its ports overlap and its addresses too (elements of one set must not).
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = |a: &AddrRange, b: &AddrRange| a.from <= b.to && b.from <= a.to;
        let ports = |a: &PortRange, b: &PortRange| a.from <= b.to && b.from <= a.to;
        match (self, other) {
            (Self::Range(a), Self::Range(b)) => addresses(a, b),
            (Self::RangePort(a, p, x), Self::RangePort(b, q, y)) => {
                p == q && addresses(a, b) && ports(x, y)
            }
            (Self::Ports(p, x), Self::Ports(q, y)) => p == q && ports(x, y),
            (a, b) => a == b,
        }
    }
}

fn port_range(text: &str) -> Option<PortRange> {
    match text.split_once('-') {
        Some((from, to)) => Some(PortRange::new(from.parse().ok()?, to.parse().ok()?)),
        None => text.parse().ok().map(PortRange::one),
    }
}

fn mark(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// Ports as nft writes them.
pub(super) fn ports(range: PortRange) -> String {
    if range.from == range.to {
        range.from.to_string()
    } else {
        format!("{}-{}", range.from, range.to)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(address) => write!(f, "{address}"),
            Self::Range(range) => write!(f, "{range}"),
            Self::AddrPort(address, protocol, port) => {
                write!(f, "{address} . {} . {port}", protocol.0)
            }
            Self::RangePort(range, protocol, port) => {
                write!(f, "{range} . {} . {}", protocol.0, ports(*port))
            }
            Self::Ports(protocol, port) => write!(f, "{} . {}", protocol.0, ports(*port)),
            Self::Mark(mark) => write!(f, "0x{mark:08x}"),
            Self::Device(name) => write!(f, "\"{name}\""),
        }
    }
}

impl Data {
    /// Reads what stands behind the colon; nothing in a set.
    #[must_use]
    pub fn parse(kind: Kind, text: Option<&str>) -> Option<Self> {
        match (kind, text) {
            (Kind::AddrVerdict(_) | Kind::MarkVerdict, Some(text)) => {
                let (verb, chain) = text.split_once(' ')?;
                let back = match verb {
                    "jump" => true,
                    "goto" => false,
                    _ => return None,
                };
                let chain = chain.to_owned();
                Some(Self::Go(Go { back, chain }))
            }
            (Kind::DeviceMark, Some(text)) => mark(text).map(Self::Mark),
            (Kind::AddrVerdict(_) | Kind::MarkVerdict | Kind::DeviceMark, None) | (_, Some(_)) => {
                None
            }
            (_, None) => Some(Self::None),
        }
    }
}

impl fmt::Display for Go {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.back { "jump" } else { "goto" };
        write!(f, "{verb} {}", self.chain)
    }
}

/// With the colon before it; nothing for an element of a set.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Go(go) => write!(f, " : {go}"),
            Self::Mark(mark) => write!(f, " : 0x{mark:08x}"),
        }
    }
}
