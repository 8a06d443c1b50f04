//! The planner, the text and the executor against a real kernel, with both variants of iptables,
//! and the same for nftables.

#[path = "netns/conntrack.rs"]
mod conntrack;
#[path = "netns/elements.rs"]
mod elements;
#[path = "netns/foreign.rs"]
mod foreign;
#[path = "netns/nft.rs"]
mod nft;
#[path = "netns/watch.rs"]
mod watch;

use std::{collections::BTreeSet, future::Future};

use weft_netfilter::{
    Chain, ChainName, CtState, Element, Family, Hook, HookJump, IfPattern, Match, PktType,
    PortRange, Position, Protocol, Rule, Ruleset, Set, SetKind, SetName, SetRole, Table, TableName,
    Verdict,
    backend::{Backend as _, Iptables},
    exec::{HostTools, Runner, Variant},
    plan::Owner,
};
use weft_testkit::netns::Netns;

type Real = Iptables<HostTools>;

fn npc() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

fn router() -> Owner {
    Owner::new(
        &["WEFT-FORWARD", "WEFT-NAT", "WEFT-RAW"],
        "weft-r-",
        &[TableName::Filter, TableName::Nat, TableName::Raw],
    )
}

fn runner(ns: &Netns) -> Runner {
    Runner {
        wrapper: ["ip", "netns", "exec", ns.name()].map(str::to_owned).into(),
        ..Runner::default()
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

/// Runs `test` in a namespace of its own for each variant.
fn both(test: impl AsyncFn(&Netns, Variant)) {
    for variant in [Variant::Legacy, Variant::Nft] {
        let ns = Netns::new();
        wait(test(&ns, variant));
    }
}

async fn backend(ns: &Netns, variant: Variant, owner: Owner) -> Real {
    let tools = HostTools::probe(runner(ns), variant).await.expect("tools");
    Iptables::new(owner, tools)
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("name")
}

fn set(name: &str) -> SetName {
    SetName::new(name).expect("name")
}

fn exact(name: &str) -> IfPattern {
    IfPattern::exact(name).expect("name")
}

fn prefix(name: &str) -> IfPattern {
    IfPattern::prefix(name).expect("name")
}

fn jump(hook: Hook, to: &str, position: Position) -> HookJump {
    HookJump {
        hook,
        to: chain(to),
        matches: vec![],
        position,
    }
}

/// Every shape of the table `filter`.
fn every_shape_of(family: Family) -> Table {
    let (six, net, host, all) = match family {
        Family::V4 => ("", "10.0.0.0/8", "10.1.2.3", "0.0.0.0/0"),
        Family::V6 => ("6", "fd00::/8", "fd00::1", "::/0"),
    };
    let net: ipnet::IpNet = net.parse().expect("net");
    let host: std::net::IpAddr = host.parse().expect("address");
    let name = |what: &str| set(&format!("weft-npc-{what}{six}"));
    let nets = [
        Element::nets(all.parse().expect("net")),
        Element::nets(host.into()),
        Element::nets(net),
    ];
    let sets = [
        (
            name("a"),
            Set::new(SetKind::Addr).containing([Element::Addr(host)]),
        ),
        (name("n"), Set::new(SetKind::Net).containing(nets.concat())),
        (
            name("p"),
            Set::new(SetKind::AddrPort).containing([
                Element::AddrPort(host, Protocol::TCP, 80),
                Element::AddrPort(host, Protocol::SCTP, 81),
            ]),
        ),
        (
            name("q"),
            Set::new(SetKind::NetPort).containing([Element::NetPort(net, Protocol::UDP, 53)]),
        ),
    ];
    let ports = |protocol, from, to| Match::DstPorts {
        protocol,
        ports: PortRange::new(from, to),
    };
    let icmp = match family {
        Family::V4 => Match::IcmpType(8),
        Family::V6 => Match::Icmp6Type(135),
    };
    let bit = 0x40000;
    let limit = |per_second, burst| Match::Limit { per_second, burst };
    let nflog = |prefix: &str| Verdict::Nflog {
        group: 86,
        prefix: prefix.to_owned(),
    };
    let rules = vec![
        Rule::new(
            [
                Match::src(net),
                Match::not_dst(host.into()),
                Match::in_iface(exact("weave")),
                Match::out_iface(prefix("vethwe")),
            ],
            Verdict::Return,
        ),
        Rule::new(
            [
                Match::not_out_iface(exact("weave")),
                ports(Protocol::TCP, 80, 90),
                Match::phys_in(prefix("vethwepl")),
                Match::PhysOut {
                    iface: exact("vethwe-bridge"),
                    negate: true,
                },
            ],
            Verdict::Jump(chain("WEFT-NPC-A")),
        ),
        Rule::new(
            [
                Match::phys_out(exact("vethwe-bridge")),
                Match::PhysIn {
                    iface: exact("x"),
                    negate: true,
                },
            ],
            Verdict::Goto(chain("WEFT-NPC-A")),
        ),
        Rule::new([icmp], Verdict::Accept),
        Rule::new([ports(Protocol::SCTP, 5, 65535)], Verdict::Return),
        Rule::new([Match::Protocol(Protocol(47))], Verdict::Return),
        Rule::new(
            [Match::ct(CtState::ALL), Match::PktType(PktType::Broadcast)],
            Verdict::Return,
        ),
        Rule::new([Match::ct([CtState::New])], Verdict::Return),
        Rule::new(
            [Match::Mark {
                value: bit,
                mask: bit,
            }],
            Verdict::SetMark {
                value: 0,
                mask: bit,
            },
        ),
        Rule::new(
            [
                Match::Mark {
                    value: 1,
                    mask: u32::MAX,
                },
                Match::SrcLocal { negate: true },
                Match::DstLocal { negate: false },
            ],
            Verdict::SetMark {
                value: 3,
                mask: u32::MAX,
            },
        ),
        Rule::new(
            [Match::src_set(name("a")), Match::not_dst_set(name("n"))],
            Verdict::Return,
        )
        .comment("ns/policy rule 1: (a), b=c"),
        Rule::new(
            [
                Match::SrcPortSet { set: name("q") },
                Match::DstPortSet { set: name("p") },
            ],
            Verdict::Return,
        )
        .comment("short"),
        Rule::new([Match::CtMark { value: 8, mask: 8 }], Verdict::Drop),
        Rule::new(
            [Match::CtMark {
                value: 8,
                mask: u32::MAX,
            }],
            Verdict::Drop,
        ),
        Rule::new([limit(10, 50)], nflog("weft deny")),
        Rule::new([limit(100, 5)], nflog("")),
        Rule::new([], Verdict::Drop),
    ];
    let guard = HookJump {
        matches: vec![Match::in_iface(exact("weave"))],
        ..jump(Hook::Input, "WEFT-NPC-A", Position::Top)
    };
    Table {
        sets: sets.into(),
        chains: [
            (chain("WEFT-NPC"), Chain::filter(rules)),
            (chain("WEFT-NPC-A"), Chain::filter(vec![])),
        ]
        .into(),
        hooks: vec![jump(Hook::Forward, "WEFT-NPC", Position::Top), guard],
    }
}

/// As it reads back: every family is there, rules are canonical, roles are not in the kernel.
fn as_read(ruleset: &Ruleset) -> Ruleset {
    let mut ruleset = ruleset.clone();
    for family in Family::ALL {
        let table = ruleset.tables.entry(family).or_default();
        table.hooks.clear();
        for set in table.sets.values_mut() {
            set.role = SetRole::Mixed;
        }
        for chain in table.chains.values_mut() {
            for rule in &mut chain.rules {
                *rule = rule.canonical();
            }
        }
    }
    ruleset
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn every_shape_reads_back_as_it_was_written() {
    both(async |ns, variant| {
        let mut backend = backend(ns, variant, npc()).await;
        let desired = Ruleset {
            tables: Family::ALL.map(|f| (f, every_shape_of(f))).into(),
        };
        backend.sync(&desired).await.expect("synced");
        assert_eq!(backend.read().await.expect("read"), as_read(&desired));
        let again = backend.verify(&desired).await.expect("verified");
        assert!(!again.changed(), "{}", again.plan);
        backend.sweep().await.expect("swept");
        assert_eq!(ns.sh("ipset list -n"), "");
        let rest = ns.sh(&format!("{}-save; ip6tables-save", variant.name()));
        assert!(!rest.contains("WEFT"), "{rest}");
    });
}

/// What a router wants of one family.
fn routing(six: &str) -> Table {
    let peers = set(&format!("weft-r-peers{six}"));
    let of = |table, rules| Chain { table, rules };
    let accept = |m| Rule::new([m], Verdict::Accept);
    let nat = vec![
        Rule::new([Match::dst_set(peers.clone())], Verdict::Return),
        Rule::new([], Verdict::Masquerade { random_fully: true }),
    ];
    let raw = vec![Rule::new(
        [Match::in_iface(exact("datapath"))],
        Verdict::NoTrack,
    )];
    Table {
        sets: [(peers, Set::new(SetKind::Addr))].into(),
        chains: [
            (
                chain("WEFT-FORWARD"),
                Chain::filter(vec![
                    accept(Match::in_iface(exact("weave"))),
                    accept(Match::out_iface(exact("weave"))),
                ]),
            ),
            (chain("WEFT-NAT"), of(TableName::Nat, nat)),
            (chain("WEFT-RAW"), of(TableName::Raw, raw)),
        ]
        .into(),
        hooks: vec![
            jump(
                Hook::Forward,
                "WEFT-FORWARD",
                Position::After(chain("WEFT-NPC")),
            ),
            jump(Hook::Postrouting, "WEFT-NAT", Position::Top),
            jump(Hook::Prerouting, "WEFT-RAW", Position::Top),
            jump(Hook::Output, "WEFT-RAW", Position::Top),
        ],
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_router_s_tables_read_back_as_they_were_written() {
    both(async |ns, variant| {
        let mut backend = backend(ns, variant, router()).await;
        let desired = Ruleset {
            tables: [(Family::V4, routing("")), (Family::V6, routing("6"))].into(),
        };
        backend.sync(&desired).await.expect("synced");
        assert_eq!(backend.read().await.expect("read"), as_read(&desired));
        let again = backend.verify(&desired).await.expect("verified");
        assert!(!again.changed(), "{}", again.plan);
    });
}

/// A small ruleset whose sets hold these hosts of 10.32.0.0/24.
fn small(hosts: &[u8], port: u16) -> Ruleset {
    let (isolated, peers) = (set("weft-npc-in"), set("weft-npc-peers"));
    let hosts: BTreeSet<Element> = hosts
        .iter()
        .map(|n| Element::Addr(format!("10.32.0.{n}").parse().expect("address")))
        .collect();
    let with = |role| Set::with_role(SetKind::Addr, role).containing(hosts.clone());
    let allow = Rule::new(
        [
            Match::src_set(peers.clone()),
            Match::DstPorts {
                protocol: Protocol::TCP,
                ports: PortRange::one(port),
            },
        ],
        Verdict::Return,
    );
    let dispatch = Rule::new(
        [Match::dst_set(isolated.clone())],
        Verdict::Goto(chain("WEFT-NPC-I")),
    );
    let table = Table {
        sets: [
            (isolated, with(SetRole::Isolate)),
            (peers, with(SetRole::Allow)),
        ]
        .into(),
        chains: [
            (chain("WEFT-NPC"), Chain::filter(vec![dispatch])),
            (
                chain("WEFT-NPC-I"),
                Chain::filter(vec![allow, Rule::new([], Verdict::Drop)]),
            ),
        ]
        .into(),
        hooks: vec![jump(Hook::Forward, "WEFT-NPC", Position::Top)],
    };
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn changes_are_applied_step_by_step_and_through_twins() {
    both(async |ns, variant| {
        let mut backend = backend(ns, variant, npc()).await;
        // Twins change back and forth, faster than the kernel frees a set.
        for desired in [
            small(&[1, 2], 80),
            small(&[1, 2], 81),
            small(&[2, 3], 82),
            small(&[3, 4], 83),
            small(&[4, 5], 84),
            small(&[5], 84),
            small(&[], 84),
            small(&[7, 8, 9], 85),
        ] {
            backend.sync(&desired).await.expect("synced");
            assert_eq!(backend.read().await.expect("read"), as_read(&desired));
        }
    });
}
