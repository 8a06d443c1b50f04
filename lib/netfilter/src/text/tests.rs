use super::*;
use crate::{
    ChainName, CtState, Element, Family, IfPattern, Match, PktType, PortRange, Protocol, Rule,
    SetKind, SetName, Verdict,
};

fn exact(name: &str) -> IfPattern {
    IfPattern::exact(name).expect("name")
}

fn prefix(name: &str) -> IfPattern {
    IfPattern::prefix(name).expect("name")
}

fn set(name: &str) -> SetName {
    SetName::new(name).expect("name")
}

fn read(line: &str) -> Result<Rule, ReadError> {
    read_rule(&words(line).expect("words"))
}

/// One rule of every shape, with the line that iptables 1.8.9 (legacy and nft) prints for it.
fn shapes() -> Vec<(Rule, &'static str)> {
    let ports = |protocol, ports| Match::DstPorts { protocol, ports };
    vec![
        (
            Rule::new(
                [
                    Match::src("10.0.0.0/8".parse().expect("net")),
                    Match::not_dst("10.0.0.1/32".parse().expect("net")),
                    Match::in_iface(exact("weave")),
                    Match::out_iface(prefix("vethwe")),
                ],
                Verdict::Return,
            ),
            " -s 10.0.0.0/8 ! -d 10.0.0.1/32 -i weave -o vethwe+ -j RETURN",
        ),
        (
            Rule::new(
                [
                    Match::not_out_iface(exact("weave")),
                    ports(Protocol::TCP, PortRange::new(80, 90)),
                    Match::phys_in(prefix("vethwepl")),
                    Match::PhysOut {
                        iface: exact("vethwe-bridge"),
                        negate: true,
                    },
                ],
                Verdict::Jump(ChainName::new("WEFT-NPC-A").expect("name")),
            ),
            " ! -o weave -p tcp -m tcp --dport 80:90 -m physdev --physdev-in vethwepl+ -m physdev \
             ! --physdev-out vethwe-bridge --physdev-is-bridged -j WEFT-NPC-A",
        ),
        (
            Rule::new(
                [ports(Protocol::UDP, PortRange::one(53))],
                Verdict::Goto(ChainName::new("WEFT-NPC-A").expect("name")),
            ),
            " -p udp -m udp --dport 53 -g WEFT-NPC-A",
        ),
        (
            Rule::new([Match::IcmpType(8)], Verdict::Accept),
            " -p icmp -m icmp --icmp-type 8 -j ACCEPT",
        ),
        (
            Rule::new([Match::Icmp6Type(133)], Verdict::Accept),
            " -p ipv6-icmp -m icmp6 --icmpv6-type 133 -j ACCEPT",
        ),
        (
            Rule::new(
                [Match::Protocol(Protocol::SCTP), Match::ct(CtState::ALL)],
                Verdict::Drop,
            ),
            " -p sctp -m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED,UNTRACKED -j DROP",
        ),
        (
            Rule::new(
                [
                    Match::Mark { value: 4, mask: 4 },
                    Match::PktType(PktType::Multicast),
                ],
                Verdict::SetMark { value: 4, mask: 4 },
            ),
            " -m mark --mark 0x4/0x4 -m pkttype --pkt-type multicast -j MARK --set-xmark 0x4/0x4",
        ),
        (
            Rule::new(
                [
                    Match::Mark { value: 4, mask: 4 },
                    Match::CtMark {
                        value: 0x800_0000,
                        mask: 0x800_0000,
                    },
                ],
                Verdict::Drop,
            ),
            " -m connmark --mark 0x8000000/0x8000000 -m mark --mark 0x4/0x4 -j DROP",
        ),
        (
            Rule::new(
                [Match::Mark {
                    value: 4,
                    mask: u32::MAX,
                }],
                Verdict::SetMark {
                    value: 0,
                    mask: u32::MAX,
                },
            ),
            " -m mark --mark 0x4 -j MARK --set-xmark 0x0/0xffffffff",
        ),
        (
            Rule::new(
                [
                    Match::SrcLocal { negate: false },
                    Match::DstLocal { negate: true },
                ],
                Verdict::Drop,
            ),
            " -m addrtype --src-type LOCAL -m addrtype ! --dst-type LOCAL -j DROP",
        ),
        (
            Rule::new(
                [
                    Match::src_set(set("weft-npc-a")),
                    Match::not_dst_set(set("weft-npc-n")),
                ],
                Verdict::Return,
            )
            .comment("a b, (c) x:y"),
            " -m set --match-set weft-npc-a src -m set ! --match-set weft-npc-n dst \
             -m comment --comment \"a b, (c) x:y\" -j RETURN",
        ),
        (
            Rule::new(
                [
                    Match::SrcPortSet {
                        set: set("weft-npc-q"),
                    },
                    Match::DstPortSet {
                        set: set("weft-npc-p"),
                    },
                ],
                Verdict::Return,
            )
            .comment("ab"),
            " -m set --match-set weft-npc-q src,dst -m set --match-set weft-npc-p dst,dst \
             -m comment --comment ab -j RETURN",
        ),
        (
            Rule::new(
                [Match::Limit {
                    per_second: 10,
                    burst: 20,
                }],
                Verdict::Nflog {
                    group: 86,
                    prefix: "ab cd".to_owned(),
                },
            ),
            " -m limit --limit 10/sec --limit-burst 20 -j NFLOG --nflog-prefix \"ab cd\" \
             --nflog-group 86",
        ),
        (
            Rule::new(
                [Match::Limit {
                    per_second: 7,
                    burst: 5,
                }],
                Verdict::Nflog {
                    group: 86,
                    prefix: String::new(),
                },
            ),
            " -m limit --limit 7/sec -j NFLOG --nflog-group 86",
        ),
        (
            Rule::new([], Verdict::Masquerade { random_fully: true }),
            " -j MASQUERADE --random-fully",
        ),
        (
            Rule::new(
                [
                    Match::in_iface(exact("datapath")),
                    Match::PhysIn {
                        iface: exact("a"),
                        negate: true,
                    },
                ],
                Verdict::NoTrack,
            ),
            " -i datapath -m physdev ! --physdev-in a -j CT --notrack",
        ),
    ]
}

#[test]
fn every_shape_is_written_as_iptables_prints_it() {
    for (rule, line) in shapes() {
        assert_eq!(write_rule(&rule), line);
    }
}

#[test]
fn every_shape_is_read_back_as_it_was() {
    for (rule, line) in shapes() {
        assert_eq!(read(line), Ok(rule.canonical()), "{line}");
    }
}

#[test]
fn what_we_would_not_write_is_not_read() {
    for line in [
        "-j REJECT --reject-with icmp-port-unreachable",
        "-m recent --set -j DROP",
        "-s 10.0.0.0/8",
        "-p tcp -m tcp --sport 80 -j DROP",
        "-m set --match-set x dst,src -j DROP",
        "-m conntrack --ctstate DNAT -j DROP",
        "-m physdev --physdev-is-in -j DROP",
    ] {
        assert!(read(line).is_err(), "{line}");
    }
}

#[test]
fn an_open_quote_is_no_line() {
    assert_eq!(words("a \"b"), None);
    assert_eq!(words("a \"b c\" d").expect("words"), ["a", "b c", "d"]);
}

#[test]
fn saved_tables_are_cut_into_chains() {
    let table = read_iptables_save(
        "# Generated\n*filter\n:FORWARD DROP [0:0]\n:WEFT-NPC - [0:0]\n-A FORWARD -j WEFT-NPC\n\
         -A WEFT-NPC\nCOMMIT\n",
    );
    assert_eq!(
        table["FORWARD"],
        SavedChain {
            builtin: true,
            rules: vec!["-j WEFT-NPC".to_owned()]
        }
    );
    assert_eq!(
        table["WEFT-NPC"],
        SavedChain {
            builtin: false,
            rules: vec![String::new()]
        }
    );
}

#[test]
fn saved_sets_are_read_with_their_elements() {
    let sets = read_ipset_save(
        "create weft-npc-p hash:ip,port family inet hashsize 64 maxelem 65536 bucketsize 12 \
         initval 0x1\nadd weft-npc-p 10.0.0.1,sctp:80\nadd weft-npc-p 10.0.0.1,icmp:8/0\n\
         create other hash:ip family inet\nadd other 10.0.0.1\n\
         create weft-npc-6 hash:net family inet6 hashsize 64 maxelem 65536\n\
         add weft-npc-6 fd00::/8\nadd weft-npc-6 fd00::1 nomatch\n\
         create weft-npc-t hash:ip family inet timeout 10\n",
        |name| name.starts_with("weft-npc-"),
    );
    assert_eq!(
        sets.keys().collect::<Vec<_>>(),
        ["weft-npc-6", "weft-npc-p", "weft-npc-t"]
    );
    assert_eq!(
        sets["weft-npc-p"],
        SavedSet {
            shape: Some((Family::V4, SetKind::AddrPort)),
            elements: vec![
                Some(Element::AddrPort(
                    "10.0.0.1".parse().expect("address"),
                    Protocol::SCTP,
                    80
                )),
                None,
            ],
        }
    );
    assert_eq!(
        sets["weft-npc-6"].elements,
        [Some(Element::Net("fd00::/8".parse().expect("net"))), None]
    );
    assert_eq!(sets["weft-npc-t"].shape, None);
}
