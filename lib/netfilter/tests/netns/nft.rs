//! Lowering, scripts and the reader against a real nftables.

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use weft_netfilter::{
    Chain, CtState, Element, Family, Hook, HookJump, IfPattern, Match, PktType, PortRange,
    Position, Protocol, Rule, Ruleset, Set, SetKind, Table, Verdict,
    backend::{Backend as _, Nftables},
    exec::HostNft,
    nft::Owned,
};
use weft_testkit::netns::Netns;

use crate::{chain, exact, runner, set, wait};

fn backend(ns: &Netns) -> Nftables<HostNft> {
    let nft = wait(HostNft::probe(runner(ns))).expect("nft works here");
    Nftables::new(Owned::new("weft", "weft-npc"), nft)
}

/// Every match and verdict that has an equal in nftables.
fn every_shape_of(family: Family) -> Table {
    let v4 = family == Family::V4;
    let pick = |four: &str, six: &str| if v4 { four.to_owned() } else { six.to_owned() };
    let net = |four: &str, six: &str| pick(four, six).parse().expect("net");
    let addr = |four: &str, six: &str| pick(four, six).parse().expect("address");
    let name = |name: &str| set(&pick(&format!("{name}-4"), &format!("{name}-6")));
    let sets = [
        (
            name("addr"),
            Set::new(SetKind::Addr).containing([
                Element::Addr(addr("10.0.0.1", "fd00::1")),
                Element::Addr(addr("10.0.0.2", "fd00::2")),
            ]),
        ),
        (
            name("net"),
            Set::new(SetKind::Net).containing(
                [
                    Element::nets(net("10.0.0.0/24", "fd00::/64")),
                    Element::nets(net("10.0.1.0/24", "fd00:0:0:1::/64")),
                    Element::nets(net("10.0.2.0/25", "fd00:0:0:2::/65")),
                    Element::nets(net("10.0.0.7/32", "fd00::7/128")),
                ]
                .concat(),
            ),
        ),
        (
            name("all"),
            Set::new(SetKind::Net).containing(Element::nets(net("0.0.0.0/0", "::/0"))),
        ),
        (
            name("port"),
            Set::new(SetKind::AddrPort).containing([
                Element::AddrPort(addr("10.0.0.1", "fd00::1"), Protocol::TCP, 80),
                Element::AddrPort(addr("10.0.0.1", "fd00::1"), Protocol::SCTP, 80),
            ]),
        ),
        (
            name("netport"),
            Set::new(SetKind::NetPort).containing(
                [
                    Element::net_ports(net("10.0.0.0/8", "fd00::/16"), Protocol::UDP, 53),
                    Element::net_ports(net("10.0.0.0/24", "fd00::/64"), Protocol::UDP, 53),
                    Element::net_ports(net("10.0.0.0/24", "fd00::/64"), Protocol::TCP, 53),
                ]
                .concat(),
            ),
        ),
    ];
    let icmp = if v4 {
        Match::IcmpType(8)
    } else {
        Match::Icmp6Type(135)
    };
    let ports = |protocol, from, to| Match::DstPorts {
        protocol,
        ports: PortRange::new(from, to),
    };
    let to = || Verdict::Goto(chain("TO"));
    let not = |iface| Match::OutIface {
        iface,
        negate: true,
    };
    let rules = vec![
        Rule::new([Match::src(net("10.0.0.0/8", "fd00::/8"))], to()).comment("x/p ingress 0"),
        Rule::new([Match::not_dst(net("10.0.0.1/32", "fd00::1/128"))], to()),
        Rule::new([Match::in_iface(exact("weave")), not(exact("eth0"))], to()),
        Rule::new([not(IfPattern::prefix("veth").expect("name"))], to()),
        Rule::new([Match::Protocol(Protocol(47))], to()),
        Rule::new([Match::Protocol(Protocol::TCP)], Verdict::Return),
        Rule::new([ports(Protocol::TCP, 80, 80)], to()),
        Rule::new([ports(Protocol::SCTP, 0, 65535)], to()),
        Rule::new([ports(Protocol::UDP, 53, 55)], Verdict::Drop),
        Rule::new([icmp], Verdict::Drop),
        Rule::new([Match::ct([CtState::Invalid])], to()),
        Rule::new([Match::ct(CtState::ALL)], to()),
        Rule::new([Match::PktType(PktType::Unicast)], to()),
        Rule::new([Match::PktType(PktType::Broadcast)], Verdict::Return),
        Rule::new([Match::PktType(PktType::Multicast)], Verdict::Drop),
        Rule::new([Match::SrcLocal { negate: false }], to()),
        Rule::new([Match::DstLocal { negate: true }], to()),
        Rule::new([Match::Mark { value: 4, mask: 4 }], to()),
        Rule::new([Match::CtMark { value: 8, mask: 8 }], Verdict::Drop),
        Rule::new(
            [Match::CtMark {
                value: 8,
                mask: u32::MAX,
            }],
            to(),
        ),
        Rule::new(
            [Match::Mark {
                value: 4,
                mask: u32::MAX,
            }],
            to(),
        ),
        Rule::new(
            [Match::src_set(name("addr")), Match::dst_set(name("net"))],
            to(),
        ),
        Rule::new(
            [
                Match::not_src_set(name("net")),
                Match::not_dst_set(name("all")),
            ],
            to(),
        ),
        Rule::new([Match::DstPortSet { set: name("port") }], to()),
        Rule::new(
            [Match::SrcPortSet {
                set: name("netport"),
            }],
            to(),
        ),
        Rule::new(
            [Match::Limit {
                per_second: 10,
                burst: 5,
            }],
            to(),
        ),
        Rule::new(
            [Match::Limit {
                per_second: 1,
                burst: 7,
            }],
            to(),
        ),
        Rule::new([], Verdict::SetMark { value: 0, mask: 4 }),
        Rule::new([], Verdict::SetMark { value: 4, mask: 4 }),
        Rule::new(
            [],
            Verdict::SetMark {
                value: 4,
                mask: 0xf,
            },
        ),
        Rule::new(
            [],
            Verdict::SetMark {
                value: 0x0004_0000,
                // The rest tells ports apart.
                mask: 0x00ff_0000,
            },
        ),
        Rule::new(
            [],
            Verdict::Nflog {
                group: 86,
                prefix: "weft deny".to_owned(),
            },
        ),
        Rule::new(
            [],
            Verdict::Nflog {
                group: 87,
                prefix: String::new(),
            },
        ),
        Rule::new(
            [
                Match::in_iface(exact("weave")),
                Match::not_dst_set(name("addr")),
            ],
            Verdict::Jump(chain("PORTS")),
        ),
        Rule::new([], Verdict::Jump(chain("WAYS"))),
    ];
    let way = |host: u8, to: &str| {
        let net = net(&format!("10.0.0.{host}/32"), &format!("fd00::{host}/128"));
        Rule::new([Match::dst(net)], Verdict::Goto(chain(to)))
    };
    let port = |port: &str, verdict| Rule::new([Match::phys_out(exact(port))], verdict);
    let jump = |hook, matches| HookJump {
        hook,
        to: chain("TOP"),
        matches,
        position: Position::Top,
    };
    Table {
        sets: sets.into(),
        chains: [
            (chain("TOP"), Chain::filter(rules)),
            (
                chain("TO"),
                Chain::filter(vec![Rule::new([], Verdict::Drop)]),
            ),
            (
                chain("WAYS"),
                Chain::filter(vec![way(1, "TO"), way(2, "TO")]),
            ),
            (
                chain("PORTS"),
                Chain::filter(vec![port("p1", Verdict::Return), port("p2", to())]),
            ),
        ]
        .into(),
        hooks: vec![
            jump(Hook::Forward, vec![]),
            jump(Hook::Input, vec![Match::in_iface(exact("weave"))]),
        ],
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn every_shape_reads_back_as_it_was_written() {
    let ns = Netns::new();
    let mut backend = backend(&ns);
    let desired = Ruleset {
        tables: Family::ALL
            .map(|family| (family, every_shape_of(family)))
            .into(),
    };
    wait(backend.sync(&desired)).expect("synced");
    let done = wait(backend.verify(&desired)).expect("verified");
    assert_eq!(done.plan, "");
    // One family less, and then nothing.
    let less = Ruleset {
        tables: [(Family::V6, every_shape_of(Family::V6))].into(),
    };
    wait(backend.sync(&less)).expect("synced");
    assert_eq!(wait(backend.verify(&less)).expect("verified").plan, "");
    wait(backend.sweep()).expect("swept");
    assert_eq!(ns.sh("nft list ruleset"), "");
}

/// Rules on networks and ports, an interval set, and pods by address.
fn random() -> impl Strategy<Value = Ruleset> {
    let nets = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "10.1.1.1/32",
        "10.2.0.0/15",
        "0.0.0.0/0",
    ];
    let net = prop::sample::select(nets.to_vec());
    let rule = (net.clone(), 79_u16..84, 0_u16..4, any::<bool>());
    let rules = prop::collection::vec(rule, 0..16);
    let members = prop::collection::vec(net, 0..4);
    let pods = prop::collection::btree_set(1_u8..20, 0..12);
    (rules, members, pods).prop_map(|(rules, members, pods)| {
        let mut packed: Vec<Rule> = rules
            .into_iter()
            .map(|(net, from, more, tcp)| {
                let protocol = if tcp { Protocol::TCP } else { Protocol::UDP };
                let ports = PortRange::new(from, from + more);
                let net = net.parse().expect("net");
                let matches = [Match::src(net), Match::DstPorts { protocol, ports }];
                Rule::new(matches, Verdict::Return)
            })
            .collect();
        packed.push(Rule::new([Match::src_set(set("nets"))], Verdict::Drop));
        packed.push(Rule::new([], Verdict::Jump(chain("WAYS"))));
        let elements = members
            .iter()
            .flat_map(|net| Element::nets(net.parse().expect("net")));
        let mut chains: std::collections::BTreeMap<_, _> =
            [(chain("TOP"), Chain::filter(packed))].into();
        let ways = pods.iter().map(|host| {
            let net = format!("10.9.0.{host}/32").parse().expect("net");
            Rule::new(
                [Match::dst(net)],
                Verdict::Goto(chain(&format!("POD-{host}"))),
            )
        });
        chains.insert(chain("WAYS"), Chain::filter(ways.collect()));
        for host in &pods {
            let drop = Rule::new([], Verdict::Drop);
            chains.insert(chain(&format!("POD-{host}")), Chain::filter(vec![drop]));
        }
        let table = Table {
            sets: [(set("nets"), Set::new(SetKind::Net).containing(elements))].into(),
            chains,
            hooks: vec![HookJump {
                hook: Hook::Forward,
                to: chain("TOP"),
                matches: vec![],
                position: Position::Top,
            }],
        };
        Ruleset {
            tables: [(Family::V4, table)].into(),
        }
    })
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_kernel_takes_every_change_in_one_transaction() {
    let ns = Netns::new();
    let mut backend = backend(&ns);
    let mut runner = TestRunner::deterministic();
    let _: &Config = runner.config();
    for _ in 0..60 {
        let desired = random().new_tree(&mut runner).expect("a ruleset").current();
        let done = wait(backend.sync(&desired)).expect("taken");
        let drift = wait(backend.verify(&desired)).expect("verified");
        assert_eq!(drift.plan, "", "after\n{}", done.plan);
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn drift_of_every_kind_is_repaired_and_others_tables_stay() {
    let ns = Netns::new();
    let mut backend = backend(&ns);
    let desired = Ruleset {
        tables: [(Family::V4, every_shape_of(Family::V4))].into(),
    };
    ns.sh("nft add table inet other; nft add table bridge weft; nft add chain inet other c");
    wait(backend.sync(&desired)).expect("synced");
    let others = ns.sh("nft list table inet other; nft list table bridge weft");
    let whole = || ns.sh("nft -n list table inet weft; nft -n list table bridge weft-npc");
    let good = whole();
    for spoil in [
        "nft delete table inet weft",
        "nft delete table bridge weft-npc",
        "nft flush table inet weft",
        "nft flush chain inet weft forward",
        "nft insert rule inet weft TOP-4 accept",
        "nft delete element inet weft addr-4 { 10.0.0.1 }",
        "nft add element inet weft addr-4 { 10.0.0.3 }",
        "nft delete element inet weft WAYS-4 { 10.0.0.1 }",
        "nft flush set inet weft net-4",
        "nft flush map bridge weft-npc ports",
        "nft add chain inet weft theirs",
        "nft add counter inet weft theirs",
        "nft add set inet weft theirs '{ type ether_addr; }'",
        "nft add chain inet weft forward '{ policy drop; }'",
    ] {
        ns.sh(spoil);
        let done = wait(backend.verify(&desired)).expect("repaired");
        assert!(done.changed(), "{spoil} was not seen");
        assert_eq!(whole(), good, "after {spoil}");
        assert_eq!(
            wait(backend.verify(&desired)).expect("verified").plan,
            "",
            "{spoil}"
        );
    }
    assert_eq!(
        ns.sh("nft list table inet other; nft list table bridge weft"),
        others
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_whole_mark_reads_back_where_no_port_needs_a_part_of_it() {
    let ns = Netns::new();
    let mut backend = backend(&ns);
    let mut table = every_shape_of(Family::V4);
    for chain in table.chains.values_mut() {
        chain.rules = vec![Rule::new(
            [],
            Verdict::SetMark {
                value: 4,
                mask: u32::MAX,
            },
        )];
    }
    let desired = Ruleset {
        tables: [(Family::V4, table)].into(),
    };
    wait(backend.sync(&desired)).expect("synced");
    let done = wait(backend.verify(&desired)).expect("verified");
    assert_eq!(done.plan, "");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_script_that_fails_changes_nothing() {
    let ns = Netns::new();
    let mut backend = backend(&ns);
    let table = |host: u8| {
        let element = Element::Addr(format!("10.0.0.{host}").parse().expect("address"));
        let mut table = every_shape_of(Family::V4);
        table
            .sets
            .entry(set("addr-4"))
            .and_modify(|set| set.elements = [element].into());
        Ruleset {
            tables: [(Family::V4, table)].into(),
        }
    };
    wait(backend.sync(&table(1))).expect("synced");
    // Behind the backend's back: what it deletes next is not there.
    ns.sh("nft delete element inet weft addr-4 { 10.0.0.1 }");
    let before = ns.sh("nft list ruleset");
    let error = wait(backend.sync(&table(9))).expect_err("an element that is not there");
    assert!(
        error
            .to_string()
            .contains("delete element inet weft addr-4"),
        "{error}"
    );
    assert_eq!(ns.sh("nft list ruleset"), before);
    assert!(wait(backend.sync(&table(9))).expect("synced").read_back);
    assert_eq!(wait(backend.verify(&table(9))).expect("verified").plan, "");
}
