use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::{
    Chain as PlainChain, ChainName, CtState, Element as PlainElement, Family, Hook, HookJump,
    IfPattern, Match as Plain, PortRange, Position, Protocol, Rule as PlainRule, Ruleset,
    Set as PlainSet, SetKind, SetName, Table, TableName, Verdict as PlainVerdict,
    fake::FakeNft,
    trace::{Packet, Pass, trace, trace_nft},
};

fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("name")
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn goto(text: &str, to: &str) -> PlainRule {
    let net = text.parse().expect("net");
    PlainRule::new([Plain::dst(net)], PlainVerdict::Goto(chain(to)))
}

fn drop_all() -> PlainChain {
    PlainChain::filter(vec![PlainRule::new([], PlainVerdict::Drop)])
}

/// FORWARD -> TOP, with these chains.
fn ruleset(chains: Vec<(&str, PlainChain)>, sets: Vec<(&str, PlainSet)>) -> Ruleset {
    let name = |text: &str| SetName::new(text).expect("name");
    let table = Table {
        sets: sets.into_iter().map(|(n, set)| (name(n), set)).collect(),
        chains: chains.into_iter().map(|(n, c)| (chain(n), c)).collect(),
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
}

fn owned() -> Owned {
    Owned::new("weft", "weft-npc")
}

fn script(old: &Tables, new: &Tables) -> String {
    diff(&owned(), &Observed::Written(old.clone()), new).text
}

fn set_of(tables: &Tables, name: &str) -> Vec<String> {
    tables.inet.sets[name]
        .elements
        .iter()
        .map(|(key, data)| format!("{key}{data}"))
        .collect()
}

fn rules_of(objects: &Objects, chain: &str) -> Vec<String> {
    let rules = objects.chains[chain].rules.iter();
    rules.map(write_rule).collect()
}

#[test]
fn a_tree_of_prefixes_becomes_one_map() {
    let rules = ruleset(
        vec![
            (
                "TOP",
                PlainChain::filter(vec![goto("10.0.0.0/30", "LOW"), goto("10.0.0.4/32", "POD")]),
            ),
            (
                "LOW",
                PlainChain::filter(vec![goto("10.0.0.1/32", "POD"), goto("10.0.0.2/32", "POD")]),
            ),
            ("POD", drop_all()),
        ],
        vec![],
    );
    let tables = lower(&rules).expect("lowered");
    assert_eq!(
        script(&Tables::default(), &tables),
        "add table inet weft\n\
         add chain inet weft POD-4\n\
         add chain inet weft TOP-4\n\
         add chain inet weft forward { type filter hook forward priority -10; policy accept; }\n\
         add map inet weft TOP-4 { type ipv4_addr : verdict; }\n\
         add element inet weft TOP-4 { 10.0.0.1 : goto POD-4, 10.0.0.2 : goto POD-4, 10.0.0.4 : goto POD-4 }\n\
         add rule inet weft POD-4 drop\n\
         add rule inet weft TOP-4 ip daddr vmap @TOP-4\n\
         add rule inet weft forward meta nfproto 2 jump TOP-4\n"
    );
}

#[test]
fn overlapping_prefixes_stay_rules() {
    let rules = ruleset(
        vec![
            (
                "TOP",
                PlainChain::filter(vec![goto("10.0.0.0/30", "LOW"), goto("10.0.0.1/32", "POD")]),
            ),
            ("LOW", PlainChain::filter(vec![goto("10.0.0.2/32", "POD")])),
            ("POD", drop_all()),
        ],
        vec![],
    );
    let tables = lower(&rules).expect("lowered");
    assert_eq!(tables.inet.chains["TOP-4"].rules.len(), 2);
}

#[test]
fn a_prefix_that_leads_out_of_itself_stays_a_rule() {
    let rules = ruleset(
        vec![
            ("TOP", PlainChain::filter(vec![goto("10.0.0.4/30", "LOW")])),
            (
                "LOW",
                PlainChain::filter(vec![goto("10.0.0.0/24", "LOWER")]),
            ),
            (
                "LOWER",
                PlainChain::filter(vec![goto("10.0.0.9/32", "POD")]),
            ),
            ("POD", drop_all()),
        ],
        vec![],
    );
    let tables = lower(&rules).expect("lowered");
    assert_eq!(
        rules_of(&tables.inet, "TOP-4"),
        ["ip daddr 10.0.0.4/30 goto LOW-4"]
    );
}

fn allow(net: &str, protocol: Protocol, from: u16, to: u16) -> PlainRule {
    let ports = PortRange::new(from, to);
    let net = net.parse().expect("net");
    PlainRule::new(
        [Plain::src(net), Plain::DstPorts { protocol, ports }],
        PlainVerdict::Return,
    )
}

#[test]
fn rules_of_networks_and_ports_become_one_set_without_overlaps() {
    let rules = ruleset(
        vec![(
            "TOP",
            PlainChain::filter(vec![
                allow("10.0.0.0/8", Protocol::TCP, 80, 90),
                allow("10.1.0.0/16", Protocol::TCP, 85, 95),
                allow("10.1.0.0/16", Protocol::UDP, 85, 95),
                allow("11.0.0.0/8", Protocol::TCP, 1, 1),
                PlainRule::new([], PlainVerdict::Drop),
            ]),
        )],
        vec![],
    );
    let tables = lower(&rules).expect("lowered");
    assert_eq!(
        rules_of(&tables.inet, "TOP-4"),
        [
            "ip saddr . meta l4proto . th dport @TOP-4-nps0 return",
            "drop"
        ]
    );
    assert_eq!(
        set_of(&tables, "TOP-4-nps0"),
        [
            "10.0.0.0/8 . 6 . 80-90",
            "10.1.0.0/16 . 6 . 91-95",
            "10.1.0.0/16 . 17 . 85-95",
            "11.0.0.0/8 . 6 . 1"
        ]
    );
}

#[test]
fn networks_of_a_set_become_ranges_that_do_not_touch() {
    let nets = ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.7/32", "128.0.0.0/1"];
    let elements = nets.map(|net| PlainElement::Net(net.parse().expect("net")));
    let name = SetName::new("weft-n").expect("name");
    let rules = ruleset(
        vec![(
            "TOP",
            PlainChain::filter(vec![PlainRule::new(
                [Plain::not_dst_set(name)],
                PlainVerdict::Drop,
            )]),
        )],
        vec![("weft-n", PlainSet::new(SetKind::Net).containing(elements))],
    );
    let tables = lower(&rules).expect("lowered");
    assert_eq!(set_of(&tables, "weft-n"), ["10.0.0.0/23", "128.0.0.0/1"]);
    assert_eq!(
        write_rule(&tables.inet.chains["TOP-4"].rules[0]),
        "ip daddr != @weft-n drop"
    );
}

#[test]
fn what_has_no_equal_is_refused() {
    let refused = |rules: Vec<PlainRule>| {
        let chains = vec![("TOP", PlainChain::filter(rules))];
        lower(&ruleset(chains, vec![])).unwrap_err().to_string()
    };
    assert_eq!(
        refused(vec![PlainRule::new([], PlainVerdict::Accept)]),
        "ipv4 chain TOP: accepting ends a table of iptables, but not one of ours"
    );
    let port = Plain::phys_out(IfPattern::exact("p1").expect("name"));
    assert_eq!(
        refused(vec![PlainRule::new([port], PlainVerdict::Drop)]),
        "ipv4 chain TOP: ports of a bridge are not visible beside other conditions"
    );
    let raw = PlainChain {
        table: TableName::Raw,
        rules: vec![],
    };
    let mut rules = ruleset(vec![("TOP", raw)], vec![]);
    if let Some(table) = rules.tables.get_mut(&Family::V4) {
        table.hooks[0].hook = Hook::Prerouting;
    }
    assert_eq!(
        lower(&rules).unwrap_err().to_string(),
        "ipv4 PREROUTING: only table filter has an equal here"
    );
}

/// Frames to an unknown destination are judged by the port they leave by.
fn by_port() -> Ruleset {
    let known = SetName::new("weft-known").expect("name");
    let device = |name| IfPattern::exact(name).expect("name");
    let port = |name, verdict| PlainRule::new([Plain::phys_out(device(name))], verdict);
    ruleset(
        vec![
            (
                "TOP",
                PlainChain::filter(vec![PlainRule::new(
                    [
                        Plain::in_iface(device("weave")),
                        Plain::out_iface(device("weave")),
                        Plain::not_dst_set(known),
                    ],
                    PlainVerdict::Jump(chain("GROUP")),
                )]),
            ),
            (
                "GROUP",
                PlainChain::filter(vec![
                    port("uplink", PlainVerdict::Return),
                    port("p1", PlainVerdict::Goto(chain("CLOSED"))),
                    port("p2", PlainVerdict::Goto(chain("OPEN"))),
                ]),
            ),
            ("CLOSED", drop_all()),
            ("OPEN", PlainChain::filter(vec![])),
        ],
        vec![(
            "weft-known",
            PlainSet::new(SetKind::Addr).containing([PlainElement::Addr(addr("10.0.0.1"))]),
        )],
    )
}

#[test]
fn a_port_of_departure_becomes_a_mark_that_does_not_stay() {
    let rules = by_port();
    let tables = lower(&rules).expect("lowered");
    assert_eq!(
        rules_of(&tables.bridge, "forward"),
        ["ip daddr != @weft-known meta mark set oifname map @ports"]
    );
    let outcome = |to: &str, port: &str| {
        let mut packet = Packet::udp(addr("10.0.0.9"), addr(to), 5353);
        packet.mark = 0x4000;
        let pass =
            Pass::new(Hook::Forward, Some("weave"), Some("weave")).ports(Some("p9"), Some(port));
        let outcome = trace_nft(&tables, &packet, &[pass]).expect("traced");
        (outcome.dropped, outcome.mark)
    };
    assert!(outcome("224.0.0.251", "p1").0);
    assert_eq!(outcome("224.0.0.251", "p2"), (false, 0));
    assert_eq!(outcome("224.0.0.251", "uplink"), (false, 0x4000));
    assert_eq!(outcome("224.0.0.251", "p3"), (false, 0x4000));
    assert_eq!(outcome("10.0.0.1", "p1"), (false, 0x4000));
}

#[test]
fn bits_that_rules_change_on_the_way_do_not_hide_the_port() {
    let mut rules = by_port();
    let table = rules.tables.get_mut(&Family::V4).expect("v4");
    let top = table.chains.get_mut(&chain("TOP")).expect("a chain");
    let mask = 0xfff0_00f0;
    top.rules.insert(
        0,
        PlainRule::new([], PlainVerdict::SetMark { value: mask, mask }),
    );
    let tables = lower(&rules).expect("lowered");
    let packet = Packet::udp(addr("10.0.0.9"), addr("224.0.0.251"), 5353);
    let pass = Pass::new(Hook::Forward, Some("weave"), Some("weave"));
    let to = |port| {
        let pass = pass.clone().ports(Some("p9"), Some(port));
        let outcome = trace_nft(&tables, &packet, &[pass]).expect("traced");
        (outcome.dropped, outcome.mark)
    };
    assert!(to("p1").0);
    assert_eq!(to("p2"), (false, 0));
}

#[test]
fn rules_that_leave_nothing_to_know_a_ports_mark_by_are_refused() {
    let mut rules = by_port();
    let table = rules.tables.get_mut(&Family::V4).expect("v4");
    let top = table.chains.get_mut(&chain("TOP")).expect("a chain");
    let mask = 0x00ff_ffff;
    top.rules.insert(
        0,
        PlainRule::new([], PlainVerdict::SetMark { value: 0, mask }),
    );
    assert_eq!(
        lower(&rules).expect_err("refused").to_string(),
        "ipv4 mark: rules leave too few bits of it to tell ports apart"
    );
}

#[test]
fn a_change_of_elements_writes_no_rule() {
    let old = lower(&by_port()).expect("lowered");
    let mut rules = by_port();
    let table = rules.tables.get_mut(&Family::V4).expect("v4");
    let set = table.sets.values_mut().next().expect("a set");
    set.elements = [PlainElement::Addr(addr("10.0.0.2"))].into();
    let new = lower(&rules).expect("lowered");
    let script = diff(&owned(), &Observed::Written(old), &new);
    assert!(!script.rules);
    assert_eq!(
        script.text,
        "add table inet weft\n\
         delete element inet weft weft-known { 10.0.0.1 }\n\
         add element inet weft weft-known { 10.0.0.2 }\n\
         add table bridge weft-npc\n\
         delete element bridge weft-npc weft-known { 10.0.0.1 }\n\
         add element bridge weft-npc weft-known { 10.0.0.2 }\n"
    );
}

#[test]
fn what_was_written_reads_back_as_it_is_wanted() {
    let wanted = lower(&by_port()).expect("lowered");
    let mut kernel = FakeNft::default();
    kernel
        .run(&script(&Tables::default(), &wanted))
        .expect("taken");
    let listed = |table: &str| read(&kernel.list(table).expect("a table")).expect("read");
    let observed = Observed::Listed {
        inet: Some(listed("inet weft")),
        bridge: Some(listed("bridge weft-npc")),
    };
    assert_eq!(diff(&owned(), &observed, &wanted), Script::default());
}

#[test]
fn a_listing_with_something_odd_is_written_anew_in_one_piece() {
    let wanted = lower(&by_port()).expect("lowered");
    let mut kernel = FakeNft::default();
    kernel
        .run(&script(&Tables::default(), &wanted))
        .expect("taken");
    let whole = kernel.list("inet weft").expect("a table");
    let odd = whole.replace(
        "\tset weft-known {",
        "\tcounter c {\n\t\tpackets 1 bytes 2\n\t}\n\n\tset weft-known {",
    );
    let observed = Observed::Listed {
        inet: Some(read(&odd).expect("read")),
        bridge: kernel
            .list("bridge weft-npc")
            .map(|text| read(&text).expect("read")),
    };
    let script = diff(&owned(), &observed, &wanted).text;
    assert!(
        script.starts_with("delete table inet weft\nadd table inet weft\n"),
        "{script}"
    );
    kernel.run(&script).expect("taken");
    assert_eq!(kernel.list("inet weft"), Some(whole));
    assert_eq!(
        read("table inet weft {\n"),
        Err(read("table inet weft {").unwrap_err())
    );
    assert!(read("nonsense").is_err());
}

/// A chain of rules on networks, ports and states, with any verdict.
fn random_rules() -> impl Strategy<Value = Vec<PlainRule>> {
    let net = prop::sample::select(vec![
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "10.1.1.1/32",
        "10.2.0.0/15",
        "0.0.0.0/0",
    ]);
    let ports = (
        prop::sample::select(vec![Protocol::TCP, Protocol::UDP]),
        79_u16..84,
        0_u16..4,
    );
    let rule = (
        prop::option::weighted(0.8, net),
        prop::option::weighted(0.8, ports),
        prop::bool::weighted(0.1),
        prop::sample::select(vec!["return", "return", "return", "goto", "mark", "jump"]),
    );
    let rule = rule.prop_map(|(net, ports, new, verdict)| {
        let net = net.map(|net| Plain::src(net.parse().expect("net")));
        let ports = ports.map(|(protocol, from, more)| Plain::DstPorts {
            protocol,
            ports: PortRange::new(from, from + more),
        });
        let new = new.then(|| Plain::ct([CtState::New]));
        let verdict = match verdict {
            "return" => PlainVerdict::Return,
            "goto" => PlainVerdict::Goto(chain("PASS")),
            "jump" => PlainVerdict::Jump(chain("PASS")),
            _ => PlainVerdict::SetMark { value: 1, mask: 1 },
        };
        PlainRule::new(net.into_iter().chain(ports).chain(new), verdict)
    });
    prop::collection::vec(rule, 0..24)
}

fn judged(rules: Vec<PlainRule>) -> Ruleset {
    let jump = PlainRule::new([], PlainVerdict::Jump(chain("RULES")));
    let mark = PlainVerdict::SetMark { value: 2, mask: 2 };
    ruleset(
        vec![
            ("TOP", PlainChain::filter(vec![jump])),
            ("RULES", {
                let mut rules = rules;
                rules.push(PlainRule::new([], PlainVerdict::Drop));
                PlainChain::filter(rules)
            }),
            ("PASS", PlainChain::filter(vec![PlainRule::new([], mark)])),
        ],
        vec![],
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Packed rules judge as the rules they stand for, and the kernel would take them.
    #[test]
    fn lowered_rules_judge_as_the_rules_of_the_ir(old in random_rules(), new in random_rules()) {
        let (old, new) = (judged(old), judged(new));
        let (before, after) = (lower(&old).expect("lowered"), lower(&new).expect("lowered"));
        let mut kernel = FakeNft::default();
        kernel.run(&script(&Tables::default(), &before)).expect("taken");
        let delta = script(&before, &after);
        kernel.run(&delta).map_err(|e| TestCaseError::fail(format!("{e}\n{delta}")))?;
        let mut fresh = FakeNft::default();
        fresh.run(&script(&Tables::default(), &after)).expect("taken");
        prop_assert_eq!(&kernel.tables, &fresh.tables);
        let pass = [Pass::new(Hook::Forward, Some("eth0"), Some("weave"))];
        for source in ["10.0.0.1", "10.1.0.1", "10.1.1.1", "10.1.1.2", "10.2.0.1", "10.3.0.1", "11.0.0.1"] {
            for protocol in [Protocol::TCP, Protocol::UDP] {
                for port in 78..90 {
                    for ct in [CtState::New, CtState::Untracked] {
                        let packet = Packet::with_port(addr(source), addr("10.9.9.9"), protocol, port).in_state(ct);
                        let plain = trace(&new, &packet, &pass).expect("traced");
                        let lowered = trace_nft(&after, &packet, &pass).expect("traced");
                        prop_assert_eq!(
                            (plain.dropped, plain.mark),
                            (lowered.dropped, lowered.mark),
                            "{:?}\n{:?}\n{:?}", packet, plain.path, lowered.path
                        );
                    }
                }
            }
        }
    }
}
