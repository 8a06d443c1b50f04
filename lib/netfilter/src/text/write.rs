//! IR -> arguments of `-A`.

use std::fmt::Write as _;

use super::words::quoted;
use crate::{IfPattern, Match, Protocol, Rule, Verdict};

/// Matches of a canonical rule, each with a blank before it.
#[must_use]
pub fn write_matches(matches: &[Match], comment: Option<&str>) -> String {
    let mut line = String::new();
    for m in matches {
        write_match(&mut line, m);
    }
    if let Some(comment) = comment {
        add(
            &mut line,
            &format!("-m comment --comment {}", quoted(comment)),
        );
    }
    line
}

/// A rule, with a blank before each part: what follows the chain's name in `-A CHAIN`.
#[must_use]
pub fn write_rule(rule: &Rule) -> String {
    let rule = rule.canonical();
    let mut line = write_matches(&rule.matches, rule.comment.as_deref());
    add(&mut line, &verdict(&rule.verdict));
    line
}

fn add(line: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ = write!(line, " {text}");
}

fn not(negate: bool) -> &'static str {
    if negate { "! " } else { "" }
}

fn device(line: &mut String, option: &str, iface: &IfPattern, negate: bool) {
    add(line, &format!("{}{option} {iface}", not(negate)));
}

fn write_match(line: &mut String, m: &Match) {
    match m {
        Match::Src { net, negate } => add(line, &format!("{}-s {net}", not(*negate))),
        Match::Dst { net, negate } => add(line, &format!("{}-d {net}", not(*negate))),
        Match::InIface { iface, negate } => device(line, "-i", iface, *negate),
        Match::OutIface { iface, negate } => device(line, "-o", iface, *negate),
        Match::Protocol(protocol) => add(line, &format!("-p {}", written(*protocol))),
        Match::DstPorts { protocol, ports } => add(
            line,
            &format!("-p {protocol} -m {protocol} --dport {ports}"),
        ),
        Match::IcmpType(kind) => add(line, &format!("-p icmp -m icmp --icmp-type {kind}")),
        Match::Icmp6Type(kind) => add(line, &format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}")),
        Match::PhysIn { iface, negate } => {
            device(line, "-m physdev --physdev-in", iface, false);
            if *negate {
                negate_physdev(line, "--physdev-in");
            }
        }
        Match::PhysOut { iface, negate } => {
            device(line, "-m physdev --physdev-out", iface, false);
            if *negate {
                negate_physdev(line, "--physdev-out");
            }
            add(line, "--physdev-is-bridged");
        }
        Match::CtState(states) => {
            let names: Vec<&str> = states.iter().map(|state| state.as_str()).collect();
            add(line, &format!("-m conntrack --ctstate {}", names.join(",")));
        }
        Match::CtMark { value, mask } => marked(line, "connmark", *value, *mask),
        Match::Mark { value, mask } => marked(line, "mark", *value, *mask),
        Match::PktType(kind) => add(line, &format!("-m pkttype --pkt-type {}", kind.as_str())),
        Match::SrcLocal { negate } => add(
            line,
            &format!("-m addrtype {}--src-type LOCAL", not(*negate)),
        ),
        Match::DstLocal { negate } => add(
            line,
            &format!("-m addrtype {}--dst-type LOCAL", not(*negate)),
        ),
        Match::SrcSet { set, negate } => {
            add(
                line,
                &format!("-m set {}--match-set {set} src", not(*negate)),
            );
        }
        Match::DstSet { set, negate } => {
            add(
                line,
                &format!("-m set {}--match-set {set} dst", not(*negate)),
            );
        }
        Match::SrcPortSet { set } => add(line, &format!("-m set --match-set {set} src,dst")),
        Match::DstPortSet { set } => add(line, &format!("-m set --match-set {set} dst,dst")),
        Match::Limit { per_second, burst } => {
            add(line, &format!("-m limit --limit {per_second}/sec"));
            // 5 is what the module takes, and what iptables-save leaves out.
            if *burst != 5 {
                add(line, &format!("--limit-burst {burst}"));
            }
        }
    }
}

fn marked(line: &mut String, module: &str, value: u32, mask: u32) {
    add(line, &format!("-m {module} --mark {value:#x}"));
    if mask != u32::MAX {
        let _ = write!(line, "/{mask:#x}");
    }
}

/// The exclamation mark stands before the option, behind the module.
fn negate_physdev(line: &mut String, option: &str) {
    if let Some(at) = line.rfind(option) {
        line.insert_str(at, "! ");
    }
}

fn written(protocol: Protocol) -> String {
    match protocol {
        Protocol::ICMP6 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Jump(to) => format!("-j {to}"),
        Verdict::Goto(to) => format!("-g {to}"),
        Verdict::SetMark { value, mask } => {
            format!("-j MARK --set-xmark {value:#x}/{mask:#x}")
        }
        Verdict::Nflog { group, prefix } if prefix.is_empty() => {
            format!("-j NFLOG --nflog-group {group}")
        }
        Verdict::Nflog { group, prefix } => format!(
            "-j NFLOG --nflog-prefix {} --nflog-group {group}",
            quoted(prefix)
        ),
        Verdict::Masquerade { random_fully } => {
            format!(
                "-j MASQUERADE{}",
                if *random_fully { " --random-fully" } else { "" }
            )
        }
        Verdict::NoTrack => "-j CT --notrack".to_owned(),
    }
}
