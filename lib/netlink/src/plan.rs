//! Plans: steps that turn what is there into what shall be there.

use std::fmt;

use crate::{Address, Bridge, FdbEntry, IfName, Kind, Link, MacAddr, Neighbour, Port, Route};

/// One change, one netlink request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Delete a link (a veth with its peer) and what hangs on it.
    DeleteLink(IfName),
    /// Create a link: kind, group, MAC and MTU of `link`; the rest comes by further steps.
    CreateLink {
        /// Its name.
        name: IfName,
        /// What to create.
        link: Box<Link>,
    },
    /// Write `ifalias`.
    SetAlias {
        /// The link.
        name: IfName,
        /// New alias.
        alias: String,
    },
    /// Change the hardware address.
    SetMac {
        /// The link.
        name: IfName,
        /// New address.
        mac: MacAddr,
    },
    /// Change the MTU.
    SetMtu {
        /// The link.
        name: IfName,
        /// New MTU in bytes.
        mtu: u32,
    },
    /// Up or down.
    SetUp {
        /// The link.
        name: IfName,
        /// Up?
        up: bool,
    },
    /// Change attributes of a bridge.
    SetBridge {
        /// The bridge.
        name: IfName,
        /// All attributes.
        bridge: Bridge,
    },
    /// Make the link a port of `port.bridge`, with these flags.
    SetPort {
        /// The link.
        name: IfName,
        /// Bridge and flags.
        port: Port,
    },
    /// Take the link out of its bridge.
    ClearPort {
        /// The link.
        name: IfName,
    },
    /// Add an address.
    AddAddress(Address),
    /// Delete an address.
    DeleteAddress(Address),
    /// Add a route.
    AddRoute(Route),
    /// Delete a route.
    DeleteRoute(Route),
    /// Add an FDB entry; flood entries are appended.
    AddFdb(FdbEntry),
    /// Delete an FDB entry.
    DeleteFdb(FdbEntry),
    /// Add or replace a neighbour.
    AddNeighbour(Neighbour),
    /// Delete a neighbour.
    DeleteNeighbour(Neighbour),
}

impl Step {
    /// The links that it changes or attaches something to.
    #[must_use]
    pub fn links(&self) -> Vec<&IfName> {
        match self {
            // A veth comes with its other end.
            Self::CreateLink { name, link } => match &link.kind {
                Kind::Veth { peer: Some(peer) } => vec![name, peer],
                Kind::Veth { peer: None } | Kind::Bridge(_) | Kind::Vxlan(_) | Kind::Other(_) => {
                    vec![name]
                }
            },
            Self::DeleteLink(name)
            | Self::SetAlias { name, .. }
            | Self::SetMac { name, .. }
            | Self::SetMtu { name, .. }
            | Self::SetUp { name, .. }
            | Self::SetBridge { name, .. }
            | Self::ClearPort { name } => vec![name],
            Self::SetPort { name, port } => vec![name, &port.bridge],
            Self::AddAddress(address) | Self::DeleteAddress(address) => vec![&address.link],
            Self::AddRoute(route) | Self::DeleteRoute(route) => vec![&route.link],
            Self::AddFdb(entry) | Self::DeleteFdb(entry) => vec![entry.link()],
            Self::AddNeighbour(neighbour) | Self::DeleteNeighbour(neighbour) => {
                vec![&neighbour.link]
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLink(name) => write!(f, "delete link {name}"),
            Self::CreateLink { name, link } => write!(f, "create {} {name}", link.kind.name()),
            Self::SetAlias { name, alias } => write!(f, "set alias of {name} to {alias}"),
            Self::SetMac { name, mac } => write!(f, "set MAC of {name} to {mac}"),
            Self::SetMtu { name, mtu } => write!(f, "set MTU of {name} to {mtu}"),
            Self::SetUp { name, up } => {
                write!(f, "set {name} {}", if *up { "up" } else { "down" })
            }
            Self::SetBridge { name, bridge } => write!(f, "set bridge {name} to {bridge:?}"),
            Self::SetPort { name, port } => write!(
                f,
                "make {name} a port of {} (learning {}, flood {}, hairpin {})",
                port.bridge, port.learning, port.unicast_flood, port.hairpin
            ),
            Self::ClearPort { name } => write!(f, "take {name} out of its bridge"),
            Self::AddAddress(a) => write!(f, "add address {} to {}", a.net, a.link),
            Self::DeleteAddress(a) => write!(f, "delete address {} from {}", a.net, a.link),
            Self::AddRoute(r) => write!(f, "add route {} dev {}", r.destination, r.link),
            Self::DeleteRoute(r) => write!(f, "delete route {} dev {}", r.destination, r.link),
            Self::AddFdb(e) => write!(f, "add {e}"),
            Self::DeleteFdb(e) => write!(f, "delete {e}"),
            Self::AddNeighbour(n) => {
                write!(f, "add neighbour {} {} dev {}", n.address, n.mac, n.link)
            }
            Self::DeleteNeighbour(n) => {
                write!(f, "delete neighbour {} dev {}", n.address, n.link)
            }
        }
    }
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel { link, mac, remote } => {
                write!(f, "FDB entry {mac} to {remote} on {link}")
            }
            Self::Port { link, mac } => write!(f, "FDB entry {mac} on port {link}"),
        }
    }
}

/// A device that has one of our names and is not ours, or is of another kind. Never touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its name.
    pub name: IfName,
    /// Kind of the device that is there.
    pub found: String,
    /// Kind that belongs there.
    pub wanted: String,
    /// Its alias, which tells whose it is.
    pub alias: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is a {} named {}", self.found, self.name)?;
        if self.alias.is_empty() {
            write!(f, " that weft did not make")?;
        } else {
            write!(f, " with the alias {:?}", self.alias)?;
        }
        write!(
            f,
            ", weft needs the name for a {}; remove it (ip link delete {}) or rename it",
            self.wanted, self.name
        )
    }
}

/// The difference. Prints one step a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps, in the order in which they work.
    pub steps: Vec<Step>,
    /// Devices in the way: nothing is done about them.
    pub foreign: Vec<Foreign>,
}

impl Plan {
    /// Nothing to do and nothing in the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.foreign.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for foreign in &self.foreign {
            writeln!(f, "! {foreign}")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}

/// Why a dump or a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {cause}")]
pub struct Error {
    /// What was tried, on which object.
    pub action: String,
    /// What the kernel said.
    pub cause: String,
    /// `errno`, if the kernel answered.
    pub errno: Option<i32>,
}
