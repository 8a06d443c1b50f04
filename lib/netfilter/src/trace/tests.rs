use std::{collections::BTreeSet, net::IpAddr};

use super::*;
use crate::{
    Chain, ChainName, CtState, Element, Family, Hook, HookJump, IfPattern, Match, Position, Rule,
    Ruleset, Set, SetKind, SetName, Table, TableName, Verdict,
};

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("name")
}

/// Pods of `isolated` may be reached by nobody; a marked packet is masqueraded.
fn ruleset() -> Ruleset {
    let isolated = SetName::new("weft-npc-i").expect("name");
    let mut table = Table::default();
    table.sets.insert(
        isolated.clone(),
        Set::new(SetKind::Addr).containing([Element::Addr(address("10.32.0.2"))]),
    );
    table.chains.insert(
        chain("WEFT-NPC"),
        Chain::filter(vec![
            Rule::new([Match::ct([CtState::Established])], Verdict::Return),
            Rule::new(
                [Match::dst_set(isolated)],
                Verdict::Jump(chain("WEFT-NPC-DENY")),
            ),
            Rule::new([], Verdict::SetMark { value: 4, mask: 4 }),
        ]),
    );
    table.chains.insert(
        chain("WEFT-NPC-DENY"),
        Chain::filter(vec![
            Rule::new(
                [],
                Verdict::Nflog {
                    group: 86,
                    prefix: "denied".to_owned(),
                },
            ),
            Rule::new([], Verdict::Drop).comment("nobody may"),
        ]),
    );
    table.chains.insert(
        chain("WEFT-NAT"),
        Chain {
            table: TableName::Nat,
            rules: vec![Rule::new(
                [Match::Mark { value: 4, mask: 4 }],
                Verdict::Masquerade { random_fully: true },
            )],
        },
    );
    table.hooks = vec![
        HookJump {
            hook: Hook::Forward,
            to: chain("WEFT-NPC"),
            matches: vec![Match::in_iface(IfPattern::exact("weave").expect("name"))],
            position: Position::Top,
        },
        HookJump {
            hook: Hook::Postrouting,
            to: chain("WEFT-NAT"),
            matches: vec![],
            position: Position::Top,
        },
    ];
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

fn same_node() -> Vec<Pass> {
    Way::PodToPod {
        from: "vethwepla".to_owned(),
        to: "vethweplb".to_owned(),
    }
    .passes(&Names::default())
}

#[test]
fn a_denied_packet_ends_at_the_rule_that_drops_it() {
    let packet = Packet::tcp(address("10.32.0.3"), address("10.32.0.2"), 80);
    let outcome = trace(&ruleset(), &packet, &same_node()).expect("traced");
    assert!(outcome.dropped);
    assert_eq!(outcome.logged, ["denied"]);
    assert_eq!(
        outcome.path.last().map(ToString::to_string).as_deref(),
        Some("FORWARD filter: WEFT-NPC-DENY rule 2: Drop (nobody may)")
    );
}

#[test]
fn replies_return_before_the_set_is_asked() {
    let packet =
        Packet::tcp(address("10.32.0.3"), address("10.32.0.2"), 80).in_state(CtState::Established);
    let outcome = trace(&ruleset(), &packet, &same_node()).expect("traced");
    assert!(!outcome.dropped);
    assert_eq!(outcome.mark, 0);
}

#[test]
fn a_mark_of_one_pass_is_seen_by_the_next() {
    let packet = Packet::ping(address("10.32.0.2"), address("10.32.0.3"));
    let outcome = trace(&ruleset(), &packet, &same_node()).expect("traced");
    assert_eq!((outcome.dropped, outcome.masqueraded), (false, true));
}

#[test]
fn node_to_pod_never_meets_forward() {
    let packet = Packet::ping(address("10.32.0.1"), address("10.32.0.2"));
    let passes = Way::NodeToPod.passes(&Names::default());
    let outcome = trace(&ruleset(), &packet, &passes).expect("traced");
    assert!(!outcome.dropped);
}

#[test]
fn remote_pods_pass_datapath_first_where_it_filters() {
    let way = Way::RemoteToPod {
        to: "vethwepla".to_owned(),
    };
    let forwards = |names: &Names| {
        way.passes(names)
            .into_iter()
            .filter(|pass| pass.hook == Hook::Forward)
            .map(|pass| (pass.in_iface, pass.phys_in))
            .collect::<Vec<_>>()
    };
    let on = |device: &str, port: &str| (Some(device.to_owned()), Some(port.to_owned()));
    assert_eq!(
        forwards(&Names::default()),
        [on("datapath", "vxlan-6784"), on("weave", "vethwe-bridge")]
    );
    assert_eq!(
        forwards(&Names {
            datapath_filters: false,
            ..Names::default()
        }),
        [on("weave", "vethwe-bridge")]
    );
}

#[test]
fn physical_output_is_known_for_bridged_packets_only() {
    let mut ruleset = ruleset();
    let table = ruleset.tables.get_mut(&Family::V4).expect("v4");
    let remote = IfPattern::exact("vethwe-bridge").expect("name");
    table.chains.insert(
        chain("WEFT-NPC"),
        Chain::filter(vec![Rule::new(
            [Match::PhysOut {
                iface: remote,
                negate: true,
            }],
            Verdict::Drop,
        )]),
    );
    let packet = Packet::ping(address("10.32.0.3"), address("10.32.0.4"));
    let dropped = |way: Way| {
        trace(&ruleset, &packet, &way.passes(&Names::default()))
            .expect("traced")
            .dropped
    };
    let from = "vethwepla".to_owned();
    assert!(dropped(Way::PodToPod {
        from: from.clone(),
        to: "vethweplb".to_owned()
    }));
    assert!(!dropped(Way::PodToRemotePod { from: from.clone() }));
    assert!(!dropped(Way::PodToOutside { from }));
}

#[test]
fn dangling_references_are_errors() {
    let mut ruleset = ruleset();
    let table = ruleset.tables.get_mut(&Family::V4).expect("v4");
    table.sets.clear();
    let packet = Packet::ping(address("10.32.0.3"), address("10.32.0.2"));
    assert_eq!(
        trace_with_local(&ruleset, &packet, &same_node(), &BTreeSet::new())
            .unwrap_err()
            .to_string(),
        "set weft-npc-i does not exist"
    );
}
