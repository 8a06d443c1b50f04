//! The two tables as values.

use std::{collections::BTreeMap, net::IpAddr};

use super::{Data, Element, Go, Kind};
use crate::{Family, Hook, PortRange, Protocol};

/// The two tables of one owner: everything in them is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Name of the table of family `inet`.
    pub inet: String,
    /// Name of the table of family `bridge`.
    pub bridge: String,
}

impl Owned {
    /// Tables of these names.
    #[must_use]
    pub fn new(inet: &str, bridge: &str) -> Self {
        Self {
            inet: inet.to_owned(),
            bridge: bridge.to_owned(),
        }
    }

    /// Both, as nft wants them.
    #[must_use]
    pub fn tables(&self) -> [String; 2] {
        [
            format!("inet {}", self.inet),
            format!("bridge {}", self.bridge),
        ]
    }
}

/// What one owner wants in nftables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Both families.
    pub inet: Objects,
    /// What must be known of frames.
    pub bridge: Objects,
}

/// Contents of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains.
    pub chains: BTreeMap<String, Chain>,
}

impl Objects {
    /// Is nothing wanted?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty()
    }
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it holds.
    pub kind: Kind,
    /// Its elements.
    pub elements: BTreeMap<Element, Data>,
}

impl Set {
    /// A set with these elements.
    #[must_use]
    pub fn new(kind: Kind, elements: impl IntoIterator<Item = Element>) -> Self {
        let elements = elements.into_iter();
        Self {
            kind,
            elements: elements.map(|element| (element, Data::None)).collect(),
        }
    }

    /// Does it hold the address?
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        if matches!(self.kind, Kind::Addr(_)) {
            return self.elements.contains_key(&Element::Addr(address));
        }
        self.elements
            .keys()
            .any(|element| matches!(element, Element::Range(range) if range.contains(&address)))
    }

    /// Does it hold address, protocol and port; without an address: protocol and port?
    #[must_use]
    pub fn has_port(&self, address: Option<IpAddr>, protocol: Protocol, port: u16) -> bool {
        let within = |ports: &PortRange, of: Protocol| of == protocol && ports.contains(port);
        self.elements
            .keys()
            .any(|element| match (element, address) {
                (Element::AddrPort(own, of, at), Some(address)) => {
                    *own == address && within(&PortRange::one(*at), *of)
                }
                (Element::RangePort(range, of, ports), Some(address)) => {
                    range.contains(&address) && within(ports, *of)
                }
                (Element::Ports(of, ports), None) => within(ports, *of),
                _ => false,
            })
    }
}

/// Where a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Of a base chain.
    pub base: Option<Base>,
    /// Its rules, in order; behind the last one it returns.
    pub rules: Vec<Rule>,
}

/// A rule. All matches must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// What then happens.
    pub verdict: Verdict,
    /// For people.
    pub comment: Option<String>,
}

/// An end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The packet is of this family.
    Family(Family),
    /// A condition that looks up no set.
    Plain(crate::Match),
    /// An address is in a set.
    Addr {
        /// Which address.
        end: End,
        /// Its family.
        family: Family,
        /// The set.
        set: String,
        /// It is not.
        negate: bool,
    },
    /// Address, protocol and destination port are in a set.
    AddrPort {
        /// Which address.
        end: End,
        /// Its family.
        family: Family,
        /// The set.
        set: String,
    },
    /// Protocol and destination port are in a set.
    Ports {
        /// The set.
        set: String,
    },
}

/// What a verdict map is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// An address of this family.
    Addr(End, Family),
    /// The packet's mark under this mask.
    Mark {
        /// The bits that count.
        mask: u32,
    },
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is gone, whatever others say.
    Drop,
    /// Back to the rule behind the jump; from a base chain: on to the next base chain.
    Return,
    /// Into a chain.
    Go(Go),
    /// Where the map leads; to the next rule if it holds nothing for the packet.
    Map {
        /// What is looked up.
        key: Key,
        /// The map.
        map: String,
    },
    /// Sets the bits under the mask and goes on with the next rule.
    SetMark {
        /// The bits' value.
        value: u32,
        /// Which bits.
        mask: u32,
    },
    /// The whole mark becomes what the map holds for the device of departure, if it holds anything.
    MarkByDevice {
        /// The map.
        map: String,
    },
    /// Hands a copy to a netlink listener and goes on with the next rule.
    Nflog {
        /// Group.
        group: u16,
        /// Prefix.
        prefix: String,
    },
}

impl Rule {
    /// A rule without comment.
    #[must_use]
    pub fn new(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Self {
        Self {
            matches: matches.into_iter().collect(),
            verdict,
            comment: None,
        }
    }

    /// Sets and maps that it looks up.
    pub fn lookups(&self) -> impl Iterator<Item = &str> {
        let of_matches = self.matches.iter().filter_map(|m| match m {
            Match::Addr { set, .. } | Match::AddrPort { set, .. } | Match::Ports { set } => {
                Some(set.as_str())
            }
            Match::Family(_) | Match::Plain(_) => None,
        });
        let of_verdict = match &self.verdict {
            Verdict::Map { map, .. } | Verdict::MarkByDevice { map } => Some(map.as_str()),
            Verdict::Drop
            | Verdict::Return
            | Verdict::Go(_)
            | Verdict::SetMark { .. }
            | Verdict::Nflog { .. } => None,
        };
        of_matches.chain(of_verdict)
    }
}
