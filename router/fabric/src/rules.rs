//! The router's chains and sets in iptables and ip6tables.
//!
//! ```text
//! raw    PREROUTING  WEFT-RAW          datapath and the tunnel's outer packets: no conntrack
//! raw    OUTPUT      WEFT-RAW-OUT      the same for what we send
//! filter FORWARD     WEFT-FORWARD      behind npc: datapath passes, fabric ports are closed to pods, weave passes
//! filter FORWARD     WEFT-FORWARD-OUT  behind kube-proxy: pods may go out where the host's policy is DROP
//! filter INPUT       WEFT-INPUT        fabric ports for peers only, status on loopback only
//! nat    POSTROUTING WEFT-NAT          pods to the outside get the node's address
//! ```

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use weft_netfilter::{
    Chain, ChainName, CtState, Element, Family, Hook, HookJump, IfPattern, Match, PortRange,
    Position, Protocol, Rule, Ruleset, Set, SetKind, SetName, SetRole, Table, TableName, Verdict,
};

use crate::{input::Input, names};

/// Chains of npc start with this one in FORWARD and INPUT; ours stand behind it.
const NPC: &str = "WEFT-NPC";
/// npc's jump in INPUT; ours stays behind it, or the two would push each other down for ever.
const NPC_INPUT: &str = "WEFT-NPC-INPUT";
/// kube-proxy refuses connections to Services without endpoints in this chain (iptables mode): our
/// accept must not come before.
const KUBE_SERVICES: &str = "KUBE-SERVICES";
/// The router's status, on loopback.
const STATUS_PORT: u16 = 6784;

pub(crate) fn rules(input: &Input) -> Ruleset {
    let tables = Family::ALL
        .into_iter()
        .map(|family| (family, table(input, family)))
        .collect();
    Ruleset { tables }
}

fn table(input: &Input, family: Family) -> Table {
    let mut table = Table::default();
    let sets = Sets::new(family);
    let nets = |nets: &BTreeSet<IpNet>| -> BTreeSet<Element> {
        nets.iter()
            .filter(|n| Family::of_net(n) == family)
            .flat_map(|n| Element::nets(*n))
            .collect()
    };
    let of_family = |a: &&IpAddr| Family::of(a) == family;
    let peers: BTreeSet<IpAddr> = input
        .peers
        .values()
        .flatten()
        .filter(of_family)
        .copied()
        .collect();
    let nodes: BTreeSet<IpAddr> = input
        .node_addresses
        .iter()
        .filter(of_family)
        .copied()
        .chain(peers.iter().copied())
        .collect();
    let addresses = |list: BTreeSet<IpAddr>| list.into_iter().map(Element::Addr).collect();
    for (name, kind, elements) in [
        (&sets.pools, SetKind::Net, nets(&input.pools)),
        (&sets.direct, SetKind::Net, nets(&input.no_masquerade)),
        (&sets.peers, SetKind::Addr, addresses(peers)),
        (&sets.nodes, SetKind::Addr, addresses(nodes)),
    ] {
        table.sets.insert(
            name.clone(),
            Set {
                kind,
                role: SetRole::Mixed,
                elements,
            },
        );
    }
    let mut add = |name: &str, of: TableName, hook: Hook, after: &[&str], rules: Vec<Rule>| {
        let name = chain(name);
        table.hooks.push(HookJump {
            hook,
            to: name.clone(),
            matches: Vec::new(),
            position: match after {
                [] => Position::Top,
                [one] => Position::After(chain(one)),
                several => Position::AfterAll(several.iter().map(|c| chain(c)).collect()),
            },
        });
        table.chains.insert(name, Chain { table: of, rules });
    };
    add(
        "WEFT-RAW",
        TableName::Raw,
        Hook::Prerouting,
        &[],
        raw(input),
    );
    add(
        "WEFT-RAW-OUT",
        TableName::Raw,
        Hook::Output,
        &[],
        raw_out(input),
    );
    add(
        "WEFT-FORWARD",
        TableName::Filter,
        Hook::Forward,
        &[NPC],
        forward(input, &sets),
    );
    add(
        "WEFT-FORWARD-OUT",
        TableName::Filter,
        Hook::Forward,
        // Never ahead of npc, whatever is missing: it accepts all that pods send.
        &[NPC, "WEFT-FORWARD", KUBE_SERVICES],
        vec![rule(
            vec![Match::in_iface(device(names::WEAVE))],
            Verdict::Accept,
        )],
    );
    add(
        "WEFT-INPUT",
        TableName::Filter,
        Hook::Input,
        &[NPC_INPUT],
        filter_input(input, family, &sets),
    );
    add(
        "WEFT-NAT",
        TableName::Nat,
        Hook::Postrouting,
        &[],
        nat(input, family, &sets),
    );
    table
}

/// Names of the sets; ipset has one name space for both families.
struct Sets {
    pools: SetName,
    direct: SetName,
    peers: SetName,
    nodes: SetName,
}

impl Sets {
    fn new(family: Family) -> Self {
        let digit = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        #[allow(clippy::expect_used, reason = "short constant names are valid")]
        let name = |word: &str| {
            SetName::new(&format!("weft-r-{word}{digit}")).expect("names of the sets are valid")
        };
        Self {
            pools: name("pools"),
            direct: name("direct"),
            peers: name("peers"),
            nodes: name("nodes"),
        }
    }
}

#[allow(clippy::expect_used, reason = "constant names are valid")]
fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("names of the chains are valid")
}

#[allow(clippy::expect_used, reason = "names of the fabric are valid")]
fn device(name: &str) -> IfPattern {
    IfPattern::exact(name).expect("names of the fabric are valid interface names")
}

fn rule(matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule::new(matches, verdict)
}

fn udp(port: u16) -> Match {
    ports(Protocol::UDP, port)
}

fn ports(protocol: Protocol, port: u16) -> Match {
    Match::DstPorts {
        protocol,
        ports: PortRange {
            from: port,
            to: port,
        },
    }
}

fn raw(input: &Input) -> Vec<Rule> {
    vec![
        rule(
            vec![Match::in_iface(device(names::DATAPATH))],
            Verdict::NoTrack,
        ),
        rule(
            vec![
                Match::InIface {
                    iface: device(names::WEAVE),
                    negate: true,
                },
                udp(input.port),
            ],
            Verdict::NoTrack,
        ),
    ]
}

fn raw_out(input: &Input) -> Vec<Rule> {
    vec![rule(
        vec![Match::not_out_iface(device(names::WEAVE)), udp(input.port)],
        Verdict::NoTrack,
    )]
}

fn forward(input: &Input, sets: &Sets) -> Vec<Rule> {
    let from_pods = || Match::in_iface(device(names::WEAVE));
    let mut rules = Vec::new();
    for port in [input.control_port, input.port] {
        rules.push(rule(
            vec![from_pods(), udp(port), Match::dst_set(sets.nodes.clone())],
            Verdict::Drop,
        ));
    }
    rules.push(rule(
        vec![
            from_pods(),
            Match::ct([CtState::Established, CtState::Related]),
        ],
        Verdict::Accept,
    ));
    rules.push(rule(
        vec![Match::out_iface(device(names::WEAVE))],
        Verdict::Accept,
    ));
    // Last: the short cut (`table netdev weft`) keeps nearly all frames from coming this way.
    rules.push(rule(
        vec![
            Match::in_iface(device(names::DATAPATH)),
            Match::out_iface(device(names::DATAPATH)),
        ],
        Verdict::Accept,
    ));
    rules
}

fn filter_input(input: &Input, family: Family, sets: &Sets) -> Vec<Rule> {
    let mut rules = Vec::new();
    // The tunnel first: every packet between nodes walks to its rule.
    for port in [input.port, input.control_port] {
        rules.push(rule(
            vec![Match::in_iface(device(names::WEAVE)), udp(port)],
            Verdict::Drop,
        ));
        rules.push(rule(
            vec![udp(port), Match::src_set(sets.peers.clone())],
            Verdict::Accept,
        ));
        rules.push(rule(vec![Match::not_in_lo(), udp(port)], Verdict::Drop));
    }
    if family == Family::V4 {
        // kube-proxy may open 127.0.0.0/8 to the wire (route_localnet).
        rules.push(rule(
            vec![
                Match::not_in_lo(),
                Match::dst(LOOPBACK),
                ports(Protocol::TCP, STATUS_PORT),
            ],
            Verdict::Drop,
        ));
    }
    rules
}

const LOOPBACK: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(
    std::net::Ipv4Addr::new(127, 0, 0, 0),
    8,
));
const MULTICAST: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(
        std::net::Ipv4Addr::new(224, 0, 0, 0),
        4,
    )),
    IpNet::V6(ipnet::Ipv6Net::new_assert(
        std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
    )),
];

/// "Not by loopback".
trait NotLoopback {
    fn not_in_lo() -> Self;
}

impl NotLoopback for Match {
    fn not_in_lo() -> Self {
        Self::InIface {
            iface: device("lo"),
            negate: true,
        }
    }
}

fn nat(input: &Input, family: Family, sets: &Sets) -> Vec<Rule> {
    if !input.masquerade {
        return Vec::new();
    }
    let mut rules = vec![
        // Bridged frames (broadcast among them) stay inside.
        rule(
            vec![Match::out_iface(device(names::WEAVE))],
            Verdict::Return,
        ),
        rule(
            vec![Match::not_src_set(sets.pools.clone())],
            Verdict::Return,
        ),
        rule(vec![Match::dst_set(sets.pools.clone())], Verdict::Return),
        rule(vec![Match::dst_set(sets.direct.clone())], Verdict::Return),
    ];
    for net in MULTICAST {
        if Family::of_net(&net) == family {
            rules.push(rule(vec![Match::dst(net)], Verdict::Return));
        }
    }
    rules.push(rule(Vec::new(), Verdict::Masquerade { random_fully: true }));
    rules
}
