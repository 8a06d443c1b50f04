use std::net::IpAddr;

use ipnet::IpNet;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().expect("net")
}

#[test]
fn names_that_the_kernel_would_cut_are_refused() {
    assert!(ChainName::new(&"A".repeat(28)).is_ok());
    assert_eq!(
        ChainName::new(&"A".repeat(29)).unwrap_err().to_string(),
        format!(
            "chain name {:?} is longer than 28 characters",
            "A".repeat(29)
        )
    );
    assert!(SetName::new("weft-npc-a").is_ok());
    assert!(SetName::new("weft npc").is_err());
    assert!(SetName::new("-x").is_err());
    assert!(SetName::new("").is_err());
    assert!(IfPattern::prefix("vethwepl").is_ok());
    assert!(IfPattern::prefix("123456789012345").is_err());
    assert!(IfPattern::exact("123456789012345").is_ok());
}

#[test]
fn a_net_of_prefix_0_becomes_two_halves() {
    assert_eq!(
        Element::nets(net("0.0.0.0/0")),
        vec![
            Element::Net(net("0.0.0.0/1")),
            Element::Net(net("128.0.0.0/1"))
        ]
    );
    assert_eq!(
        Element::nets(net("10.1.2.3/8")),
        vec![Element::Net(net("10.0.0.0/8"))]
    );
}

#[test]
fn the_canonical_rule_does_not_depend_on_order_or_repetition() {
    let a = Rule::new(
        [
            Match::ct([CtState::New]),
            Match::Protocol(Protocol::TCP),
            Match::DstPorts {
                protocol: Protocol::TCP,
                ports: PortRange::one(80),
            },
            Match::src(net("10.1.2.3/8")),
            Match::src(net("10.0.0.0/8")),
            Match::dst(net("0.0.0.0/0")),
        ],
        Verdict::Accept,
    );
    assert_eq!(
        a.canonical().matches,
        vec![
            Match::src(net("10.0.0.0/8")),
            Match::DstPorts {
                protocol: Protocol::TCP,
                ports: PortRange::one(80)
            },
            Match::ct([CtState::New]),
        ]
    );
    assert_eq!(a.canonical(), a.canonical().canonical());
}

#[test]
fn comments_hold_nothing_that_a_tool_could_misread() {
    let rule = Rule::new([], Verdict::Drop).comment("a\"b\n'c' ü");
    assert_eq!(rule.comment.as_deref(), Some("a?b??c? ?"));
}

#[test]
fn broken_rulesets_are_refused_with_their_place() {
    let chain = ChainName::new("WEFT-NPC").expect("name");
    let mut table = Table::default();
    table.chains.insert(
        chain.clone(),
        Chain::filter(vec![Rule::new(
            [Match::src_set(SetName::new("weft-npc-x").expect("name"))],
            Verdict::Drop,
        )]),
    );
    let mut ruleset = Ruleset::default();
    ruleset.tables.insert(Family::V4, table.clone());
    assert_eq!(
        ruleset.check().unwrap_err().to_string(),
        "ipv4 chain WEFT-NPC rule 1: looks up set weft-npc-x, which does not exist"
    );
    table.chains.insert(
        chain.clone(),
        Chain::filter(vec![Rule::new([], Verdict::Jump(chain.clone()))]),
    );
    ruleset.tables.insert(Family::V4, table);
    assert_eq!(
        ruleset.check().unwrap_err().to_string(),
        "ipv4 chain WEFT-NPC: leads back to itself"
    );
}

#[test]
fn a_set_covers_by_address_and_port() {
    let pod: IpAddr = "10.32.0.2".parse().expect("address");
    let set = Set::new(SetKind::AddrPort).containing([Element::AddrPort(pod, Protocol::TCP, 80)]);
    assert!(set.covers(&pod, Protocol::TCP, Some(80)));
    assert!(!set.covers(&pod, Protocol::UDP, Some(80)));
    assert!(!set.covers(&pod, Protocol::ICMP, None));
}
