//! Rules: matches and a verdict.

use ipnet::IpNet;

use super::{ChainName, CtState, CtStates, IfPattern, PktType, PortRange, Protocol, SetName};

/// A condition. All conditions of a rule must hold. The order of variants is the order in which
/// they are written and tried: cheap ones first, sets late, the rate limit last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// Source network (`-s`).
    Src {
        /// The network.
        net: IpNet,
        /// Not in it.
        negate: bool,
    },
    /// Destination network (`-d`).
    Dst {
        /// The network.
        net: IpNet,
        /// Not in it.
        negate: bool,
    },
    /// Input device (`-i`): for a bridged packet the bridge. Never in OUTPUT or POSTROUTING.
    InIface {
        /// The devices.
        iface: IfPattern,
        /// None of them.
        negate: bool,
    },
    /// Output device (`-o`): for a bridged packet the bridge. Never in PREROUTING or INPUT.
    OutIface {
        /// The devices.
        iface: IfPattern,
        /// None of them.
        negate: bool,
    },
    /// Protocol (`-p`). Not beside a match that implies it.
    Protocol(Protocol),
    /// Destination ports of one protocol that has ports.
    DstPorts {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// The ports.
        ports: PortRange,
    },
    /// ICMP (IPv4) of this type.
    IcmpType(u8),
    /// ICMPv6 of this type.
    Icmp6Type(u8),
    /// Bridge port of arrival (`-m physdev --physdev-in`).
    PhysIn {
        /// The ports.
        iface: IfPattern,
        /// None of them (also when the packet came by no bridge port).
        negate: bool,
    },
    /// Bridge port of departure (`-m physdev --physdev-is-bridged --physdev-out`): bridged packets
    /// only, the kernel does not know it earlier for routed ones.
    PhysOut {
        /// The ports.
        iface: IfPattern,
        /// Bridged, but out of another port.
        negate: bool,
    },
    /// State of the flow (`-m conntrack --ctstate`).
    CtState(CtStates),
    /// Mark of the flow (`-m connmark`). Never of a packet that belongs to none.
    CtMark {
        /// Wanted value under the mask.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// Mark of the packet (`-m mark`).
    Mark {
        /// Wanted value under the mask.
        value: u32,
        /// The bits that count.
        mask: u32,
    },
    /// Link-layer addressing (`-m pkttype`).
    PktType(PktType),
    /// Source is an address of the node (`-m addrtype --src-type LOCAL`).
    SrcLocal {
        /// It is not.
        negate: bool,
    },
    /// Destination is an address of the node (`-m addrtype --dst-type LOCAL`).
    DstLocal {
        /// It is not.
        negate: bool,
    },
    /// Source address is in a set of addresses or networks.
    SrcSet {
        /// The set, kind `Addr` or `Net`.
        set: SetName,
        /// It is not.
        negate: bool,
    },
    /// Destination address is in a set of addresses or networks.
    DstSet {
        /// The set, kind `Addr` or `Net`.
        set: SetName,
        /// It is not.
        negate: bool,
    },
    /// Source address with protocol and destination port is in a set.
    SrcPortSet {
        /// The set, kind `AddrPort` or `NetPort`.
        set: SetName,
    },
    /// Destination address with protocol and destination port is in a set.
    DstPortSet {
        /// The set, kind `AddrPort` or `NetPort`.
        set: SetName,
    },
    /// At most so many a second (`-m limit`); always written last, so that only packets that match
    /// everything else are counted. The tracer takes it as holding.
    Limit {
        /// Packets a second.
        per_second: u32,
        /// Packets at once.
        burst: u32,
    },
}

impl Match {
    /// Source in `net`.
    #[must_use]
    pub fn src(net: IpNet) -> Self {
        Self::Src { net, negate: false }
    }

    /// Destination in `net`.
    #[must_use]
    pub fn dst(net: IpNet) -> Self {
        Self::Dst { net, negate: false }
    }

    /// Source not in `net`.
    #[must_use]
    pub fn not_src(net: IpNet) -> Self {
        Self::Src { net, negate: true }
    }

    /// Destination not in `net`.
    #[must_use]
    pub fn not_dst(net: IpNet) -> Self {
        Self::Dst { net, negate: true }
    }

    /// Came in by `iface`.
    #[must_use]
    pub fn in_iface(iface: IfPattern) -> Self {
        Self::InIface {
            iface,
            negate: false,
        }
    }

    /// Goes out by `iface`.
    #[must_use]
    pub fn out_iface(iface: IfPattern) -> Self {
        Self::OutIface {
            iface,
            negate: false,
        }
    }

    /// Goes out by another device than `iface`.
    #[must_use]
    pub fn not_out_iface(iface: IfPattern) -> Self {
        Self::OutIface {
            iface,
            negate: true,
        }
    }

    /// Came in by the bridge port.
    #[must_use]
    pub fn phys_in(iface: IfPattern) -> Self {
        Self::PhysIn {
            iface,
            negate: false,
        }
    }

    /// Is bridged out of the port.
    #[must_use]
    pub fn phys_out(iface: IfPattern) -> Self {
        Self::PhysOut {
            iface,
            negate: false,
        }
    }

    /// Source in the set.
    #[must_use]
    pub fn src_set(set: SetName) -> Self {
        Self::SrcSet { set, negate: false }
    }

    /// Destination in the set.
    #[must_use]
    pub fn dst_set(set: SetName) -> Self {
        Self::DstSet { set, negate: false }
    }

    /// Source not in the set.
    #[must_use]
    pub fn not_src_set(set: SetName) -> Self {
        Self::SrcSet { set, negate: true }
    }

    /// Destination not in the set.
    #[must_use]
    pub fn not_dst_set(set: SetName) -> Self {
        Self::DstSet { set, negate: true }
    }

    /// The flow is in one of these states.
    #[must_use]
    pub fn ct(states: impl IntoIterator<Item = CtState>) -> Self {
        Self::CtState(states.into_iter().collect())
    }

    /// The set it looks up.
    #[must_use]
    pub fn set(&self) -> Option<&SetName> {
        match self {
            Self::SrcSet { set, .. }
            | Self::DstSet { set, .. }
            | Self::SrcPortSet { set }
            | Self::DstPortSet { set } => Some(set),
            Self::Src { .. }
            | Self::Dst { .. }
            | Self::InIface { .. }
            | Self::OutIface { .. }
            | Self::Protocol(_)
            | Self::DstPorts { .. }
            | Self::IcmpType(_)
            | Self::Icmp6Type(_)
            | Self::PhysIn { .. }
            | Self::PhysOut { .. }
            | Self::CtState(_)
            | Self::CtMark { .. }
            | Self::Mark { .. }
            | Self::PktType(_)
            | Self::SrcLocal { .. }
            | Self::DstLocal { .. }
            | Self::Limit { .. } => None,
        }
    }

    /// The protocol it implies (`-p` is written for it).
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Protocol(protocol) | Self::DstPorts { protocol, .. } => Some(*protocol),
            Self::IcmpType(_) => Some(Protocol::ICMP),
            Self::Icmp6Type(_) => Some(Protocol::ICMP6),
            Self::Src { .. }
            | Self::Dst { .. }
            | Self::InIface { .. }
            | Self::OutIface { .. }
            | Self::PhysIn { .. }
            | Self::PhysOut { .. }
            | Self::CtState(_)
            | Self::CtMark { .. }
            | Self::Mark { .. }
            | Self::PktType(_)
            | Self::SrcLocal { .. }
            | Self::DstLocal { .. }
            | Self::SrcSet { .. }
            | Self::DstSet { .. }
            | Self::SrcPortSet { .. }
            | Self::DstPortSet { .. }
            | Self::Limit { .. } => None,
        }
    }
}

impl Match {
    fn always_holds(&self) -> bool {
        matches!(
            self,
            Self::Src { net, negate: false } | Self::Dst { net, negate: false }
                if net.prefix_len() == 0
        )
    }

    fn without_host_bits(&self) -> Self {
        let mut copy = self.clone();
        if let Self::Src { net, .. } | Self::Dst { net, .. } = &mut copy {
            *net = net.trunc();
        }
        copy
    }
}

/// What happens to a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes this table; chains after it in other tables still judge it.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the rule behind the jump; from the first chain: to the built-in chain.
    Return,
    /// Into a chain, and back at its end.
    Jump(ChainName),
    /// Into a chain; its end is the end of this one too.
    Goto(ChainName),
    /// Sets the bits under the mask and goes on with the next rule.
    SetMark {
        /// The bits' value.
        value: u32,
        /// Which bits.
        mask: u32,
    },
    /// Hands a copy to a netlink listener and goes on with the next rule.
    Nflog {
        /// NFLOG group.
        group: u16,
        /// Up to 63 characters; kept to what needs no quotes.
        prefix: String,
    },
    /// Source becomes the address of the output device (nat, POSTROUTING).
    Masquerade {
        /// Source ports are chosen at random.
        random_fully: bool,
    },
    /// Conntrack does not see it (raw); goes on with the next rule.
    NoTrack,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// All must hold; none: always.
    pub matches: Vec<Match>,
    /// Then this.
    pub verdict: Verdict,
    /// For people who read `iptables-save`: made fit by [`Rule::comment`].
    pub comment: Option<String>,
}

/// Longest comment, in bytes (`XT_MAX_COMMENT_LEN` is 256 with its terminator).
const MAX_COMMENT: usize = 200;
/// Longest NFLOG prefix, in bytes (64 with its terminator).
const MAX_NFLOG_PREFIX: usize = 63;

/// Keeps what every tool writes and reads the same way without quotes around it being an issue.
fn sanitised(text: &str, max: usize) -> String {
    text.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() => c,
            ' ' | '-' | '_' | '.' | ',' | ':' | '/' | '=' | '+' | '@' | '(' | ')' => c,
            _ => '?',
        })
        .take(max)
        .collect::<String>()
        .trim()
        .to_owned()
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

    /// The same with a comment. What could be misread (quotes, line feeds, non-ASCII) becomes `?`,
    /// and it is cut at 200 characters; an empty one is none.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        let text = sanitised(text, MAX_COMMENT);
        self.comment = (!text.is_empty()).then_some(text);
        self
    }

    /// The one way of writing this rule: matches in their order without repetition, networks
    /// without host bits, nothing that always holds, no protocol that another match implies.
    /// Rules are compared in this form.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let implied = self
            .matches
            .iter()
            .filter(|m| !matches!(m, Match::Protocol(_)))
            .find_map(Match::protocol);
        let mut matches: Vec<Match> = self
            .matches
            .iter()
            .filter(|m| !m.always_holds() && implied.map(Match::Protocol).as_ref() != Some(*m))
            .map(Match::without_host_bits)
            .collect();
        matches.sort();
        matches.dedup();
        let mut verdict = self.verdict.clone();
        if let Verdict::Nflog { prefix, .. } = &mut verdict {
            *prefix = sanitised(prefix, MAX_NFLOG_PREFIX);
        }
        Self {
            matches,
            verdict,
            comment: self.comment.as_deref().and_then(|text| {
                let text = sanitised(text, MAX_COMMENT);
                (!text.is_empty()).then_some(text)
            }),
        }
    }
}
