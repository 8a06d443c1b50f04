//! Sets of addresses and of address-port pairs.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::{Family, Protocol};

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Addresses (`hash:ip`).
    Addr,
    /// Networks (`hash:net`).
    Net,
    /// Address, protocol and port (`hash:ip,port`).
    AddrPort,
    /// Network, protocol and port (`hash:net,port`).
    NetPort,
}

impl SetKind {
    /// ipset's type name.
    #[must_use]
    pub fn ipset_type(self) -> &'static str {
        match self {
            Self::Addr => "hash:ip",
            Self::Net => "hash:net",
            Self::AddrPort => "hash:ip,port",
            Self::NetPort => "hash:net,port",
        }
    }

    /// Reads ipset's type name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Addr, Self::Net, Self::AddrPort, Self::NetPort]
            .into_iter()
            .find(|kind| kind.ipset_type() == text)
    }

    /// Do elements carry a port?
    #[must_use]
    pub fn has_port(self) -> bool {
        matches!(self, Self::AddrPort | Self::NetPort)
    }
}

/// What adding an element to the set does to the verdicts of the rules that look it up. It decides
/// the order in which elements may be changed without a moment at which something passes that
/// neither the old nor the new ruleset allows, or is dropped that both allow (invariant I3).
///
/// The one who compiles the ruleset knows it; `Mixed` is always right, and slower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetRole {
    /// More elements can only let more packets pass: peers and subjects of allow rules, named ports.
    Allow,
    /// More elements can only stop more packets: pods that are isolated in a direction.
    Isolate,
    /// The outermost gate: only addresses in it pass at all. Added last, removed first.
    Gate,
    /// Anything else, or not known.
    #[default]
    Mixed,
}

/// An element of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// An address.
    Addr(IpAddr),
    /// A network; host bits are zero and the prefix is not 0 (see [`Element::nets`]).
    Net(IpNet),
    /// Address, protocol and port.
    AddrPort(IpAddr, Protocol, u16),
    /// Network, protocol and port.
    NetPort(IpNet, Protocol, u16),
}

/// ipset cannot hold prefix 0: two halves say the same.
fn halves(net: IpNet) -> Vec<IpNet> {
    let net = net.trunc();
    if net.prefix_len() > 0 {
        return vec![net];
    }
    match net.subnets(1) {
        Ok(halves) => halves.collect(),
        // Prefix 1 is longer than 0, so this cannot happen; the whole net is still right.
        Err(_) => vec![net],
    }
}

impl Element {
    /// The network as elements: one, or its two halves when its prefix is 0. Host bits are cleared.
    #[must_use]
    pub fn nets(net: IpNet) -> Vec<Self> {
        halves(net).into_iter().map(Self::Net).collect()
    }

    /// As [`Element::nets`], with a port.
    #[must_use]
    pub fn net_ports(net: IpNet, protocol: Protocol, port: u16) -> Vec<Self> {
        halves(net)
            .into_iter()
            .map(|net| Self::NetPort(net, protocol, port))
            .collect()
    }

    /// Reads an element of a set of `kind`, as `ipset save` writes it.
    #[must_use]
    pub fn parse(kind: SetKind, text: &str) -> Option<Self> {
        let net = |text: &str| match text.parse::<IpNet>() {
            Ok(net) => Some(net),
            Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        let port = |text: &str| -> Option<(Protocol, u16)> {
            let (protocol, port) = text.split_once(':')?;
            Some((Protocol::parse(protocol)?, port.parse().ok()?))
        };
        match kind {
            SetKind::Addr => text.parse().ok().map(Self::Addr),
            SetKind::Net => net(text).map(Self::Net),
            SetKind::AddrPort => {
                let (address, rest) = text.split_once(',')?;
                let (protocol, port) = port(rest)?;
                Some(Self::AddrPort(address.parse().ok()?, protocol, port))
            }
            SetKind::NetPort => {
                let (address, rest) = text.split_once(',')?;
                let (protocol, port) = port(rest)?;
                Some(Self::NetPort(net(address)?, protocol, port))
            }
        }
    }

    /// Kind of set it belongs in.
    #[must_use]
    pub fn kind(&self) -> SetKind {
        match self {
            Self::Addr(_) => SetKind::Addr,
            Self::Net(_) => SetKind::Net,
            Self::AddrPort(..) => SetKind::AddrPort,
            Self::NetPort(..) => SetKind::NetPort,
        }
    }

    /// Its addresses.
    #[must_use]
    pub fn net(&self) -> IpNet {
        match *self {
            Self::Addr(address) | Self::AddrPort(address, ..) => IpNet::from(address),
            Self::Net(net) | Self::NetPort(net, ..) => net,
        }
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of_net(&self.net())
    }

    /// Does it cover the address, and the destination port if it has one?
    #[must_use]
    pub fn covers(&self, address: &IpAddr, protocol: Protocol, port: Option<u16>) -> bool {
        match *self {
            Self::Addr(own) => own == *address,
            Self::Net(net) => net.contains(address),
            Self::AddrPort(own, own_protocol, own_port) => {
                own == *address && own_protocol == protocol && Some(own_port) == port
            }
            Self::NetPort(net, own_protocol, own_port) => {
                net.contains(address) && own_protocol == protocol && Some(own_port) == port
            }
        }
    }
}

/// As `ipset` writes it.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(address) => write!(f, "{address}"),
            Self::Net(net) => write_net(f, net),
            Self::AddrPort(address, protocol, port) => write!(f, "{address},{protocol}:{port}"),
            Self::NetPort(net, protocol, port) => {
                write_net(f, net)?;
                write!(f, ",{protocol}:{port}")
            }
        }
    }
}

fn write_net(f: &mut fmt::Formatter<'_>, net: &IpNet) -> fmt::Result {
    if net.prefix_len() == net.max_prefix_len() {
        write!(f, "{}", net.addr())
    } else {
        write!(f, "{net}")
    }
}

/// A set. Its family is that of the table that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub kind: SetKind,
    /// What more elements mean.
    pub role: SetRole,
    /// Its elements, all of `kind`.
    pub elements: BTreeSet<Element>,
}

impl Set {
    /// An empty set of role [`SetRole::Mixed`].
    #[must_use]
    pub fn new(kind: SetKind) -> Self {
        Self {
            kind,
            role: SetRole::Mixed,
            elements: BTreeSet::new(),
        }
    }

    /// An empty set with a role.
    #[must_use]
    pub fn with_role(kind: SetKind, role: SetRole) -> Self {
        Self {
            role,
            ..Self::new(kind)
        }
    }

    /// The same with these elements.
    #[must_use]
    pub fn containing(mut self, elements: impl IntoIterator<Item = Element>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// Does any element cover the address and port?
    #[must_use]
    pub fn covers(&self, address: &IpAddr, protocol: Protocol, port: Option<u16>) -> bool {
        match self.kind {
            SetKind::Addr => self.elements.contains(&Element::Addr(*address)),
            SetKind::AddrPort => port.is_some_and(|port| {
                self.elements
                    .contains(&Element::AddrPort(*address, protocol, port))
            }),
            SetKind::Net | SetKind::NetPort => self
                .elements
                .iter()
                .any(|element| element.covers(address, protocol, port)),
        }
    }
}
