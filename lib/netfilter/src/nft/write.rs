//! Rules as `nft -n list` prints them.

use std::fmt::Write as _;

use super::{End, Key, Match, Rule, Verdict, element::ports};
use crate::{CtState, Family, IfPattern, Match as Plain, PktType};

/// Longest comment that nft takes is 128 bytes.
const MAX_COMMENT: usize = 120;

/// The rule, as it stands in its chain.
pub(crate) fn rule(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(matching).collect();
    words.push(verdict(&rule.verdict));
    if let Some(comment) = &rule.comment {
        let mut text = comment.as_str();
        if let Some((at, _)) = text.char_indices().nth(MAX_COMMENT) {
            text = &text[..at];
        }
        words.push(format!("comment \"{text}\""));
    }
    words.join(" ")
}

fn not(negate: bool) -> &'static str {
    if negate { "!= " } else { "" }
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn address(end: End, family: Family) -> String {
    let end = match end {
        End::Source => "saddr",
        End::Destination => "daddr",
    };
    format!("{} {end}", ip(family))
}

fn device(iface: &IfPattern) -> String {
    match iface {
        IfPattern::Exact(name) => format!("\"{name}\""),
        IfPattern::Prefix(prefix) => format!("\"{prefix}*\""),
    }
}

fn net(end: End, net: &ipnet::IpNet, negate: bool) -> String {
    let side = address(end, Family::of_net(net));
    let range = super::AddrRange::of(*net);
    format!("{side} {}{range}", not(negate))
}

fn matching(m: &Match) -> String {
    match m {
        Match::Family(Family::V4) => "meta nfproto 2".to_owned(),
        Match::Family(Family::V6) => "meta nfproto 10".to_owned(),
        Match::Plain(m) => plain(m),
        Match::Addr {
            end,
            family,
            set,
            negate,
        } => format!("{} {}@{set}", address(*end, *family), not(*negate)),
        Match::AddrPort { end, family, set } => {
            format!(
                "{} . meta l4proto . th dport @{set}",
                address(*end, *family)
            )
        }
        Match::Ports { set } => format!("meta l4proto . th dport @{set}"),
    }
}

fn plain(m: &Plain) -> String {
    match m {
        Plain::Src { net: of, negate } => net(End::Source, of, *negate),
        Plain::Dst { net: of, negate } => net(End::Destination, of, *negate),
        Plain::InIface { iface, negate } => format!("iifname {}{}", not(*negate), device(iface)),
        Plain::OutIface { iface, negate } => format!("oifname {}{}", not(*negate), device(iface)),
        Plain::Protocol(protocol) => format!("meta l4proto {}", protocol.0),
        Plain::DstPorts {
            protocol,
            ports: of,
        } => format!("{protocol} dport {}", ports(*of)),
        Plain::IcmpType(kind) => format!("icmp type {kind}"),
        Plain::Icmp6Type(kind) => format!("icmpv6 type {kind}"),
        Plain::CtState(states) => {
            let mut bits: Vec<u32> = states.iter().map(|state| bit(*state)).collect();
            bits.sort_unstable();
            let bits: Vec<String> = bits.iter().map(|bit| format!("{bit:#x}")).collect();
            format!("ct state {}", bits.join(","))
        }
        Plain::CtMark { value, mask } => marked("ct", *value, *mask),
        Plain::Mark { value, mask } => marked("meta", *value, *mask),
        Plain::PktType(kind) => format!(
            "meta pkttype {}",
            match kind {
                PktType::Unicast => 0,
                PktType::Broadcast => 1,
                PktType::Multicast => 2,
            }
        ),
        // 2 is RTN_LOCAL.
        Plain::SrcLocal { negate } => format!("fib saddr type {}2", not(*negate)),
        Plain::DstLocal { negate } => format!("fib daddr type {}2", not(*negate)),
        Plain::Limit { per_second, burst } => {
            let mut text = format!("limit rate {per_second}/second");
            // 5 is what nft takes, and what it leaves out when it prints.
            if *burst != 5 {
                let _ = write!(text, " burst {burst} packets");
            }
            text
        }
        // Lowering makes none of these: lookups have matches of their own, ports are marks.
        Plain::PhysIn { .. }
        | Plain::PhysOut { .. }
        | Plain::SrcSet { .. }
        | Plain::DstSet { .. }
        | Plain::SrcPortSet { .. }
        | Plain::DstPortSet { .. } => String::new(),
    }
}

fn marked(whose: &str, value: u32, mask: u32) -> String {
    match mask {
        u32::MAX => format!("{whose} mark 0x{value:08x}"),
        _ => format!("{whose} mark & 0x{mask:08x} == 0x{value:08x}"),
    }
}

/// `NF_CT_STATE_*`.
fn bit(state: CtState) -> u32 {
    match state {
        CtState::Invalid => 1,
        CtState::Established => 2,
        CtState::Related => 4,
        CtState::New => 8,
        CtState::Untracked => 0x40,
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Go(go) => go.to_string(),
        Verdict::Map { key, map } => {
            let key = match key {
                Key::Addr(end, family) => address(*end, *family),
                Key::Mark { mask: u32::MAX } => "meta mark".to_owned(),
                Key::Mark { mask } => format!("meta mark & 0x{mask:08x}"),
            };
            format!("{key} vmap @{map}")
        }
        Verdict::SetMark { value, mask } => {
            let value = value & mask;
            let keep = !mask | value;
            match (keep, value) {
                _ if *mask == u32::MAX => format!("meta mark set 0x{value:08x}"),
                (u32::MAX, _) => format!("meta mark set meta mark | 0x{value:08x}"),
                (_, 0) => format!("meta mark set meta mark & 0x{keep:08x}"),
                _ => format!("meta mark set meta mark & 0x{keep:08x} | 0x{value:08x}"),
            }
        }
        Verdict::MarkByDevice { map } => format!("meta mark set oifname map @{map}"),
        Verdict::Nflog { group, prefix } if prefix.is_empty() => format!("log group {group}"),
        Verdict::Nflog { group, prefix } => format!("log prefix \"{prefix}\" group {group}"),
    }
}
