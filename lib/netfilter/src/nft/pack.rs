//! Rules that differ by network and ports alone become one lookup.
//!
//! Only rules that follow each other and have the same verdict, one that ends the chain: then it
//! does not matter which of them matches. Elements of one set must not overlap, so what one network
//! already has is taken from the networks within it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{AddrRange, Element, End};
use crate::{Match, PortRange, Protocol, Rule, Verdict};

/// So many rules are worth a set.
const ENOUGH: usize = 4;

/// A rule, and the lookup that goes with it.
pub(super) struct Part<'a> {
    /// The rule without what the lookup says.
    pub(super) rule: std::borrow::Cow<'a, Rule>,
    /// The lookup.
    pub(super) packed: Option<Packed>,
}

/// A lookup and what it is looked up in.
pub(super) struct Packed {
    pub(super) lookup: Lookup,
    pub(super) elements: BTreeSet<Element>,
}

/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lookup {
    Net(End),
    Ports,
    NetPorts(End),
}

/// What one rule of a group adds to its set.
type Entry = (Option<IpNet>, Option<(Protocol, PortRange)>);

struct Split<'a> {
    lookup: Lookup,
    entry: Entry,
    /// The other matches.
    rest: Vec<&'a Match>,
}

/// The chain with fewer rules.
pub(super) fn pack(rules: &[Rule]) -> Vec<Part<'_>> {
    rules
        .chunk_by(|a, b| a.verdict == b.verdict && ends(&a.verdict))
        .flat_map(run)
        .collect()
}

fn ends(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Drop | Verdict::Return | Verdict::Goto(_))
}

fn plain(rule: &Rule) -> Part<'_> {
    Part {
        rule: std::borrow::Cow::Borrowed(rule),
        packed: None,
    }
}

fn run(rules: &[Rule]) -> Vec<Part<'_>> {
    if rules.len() < ENOUGH {
        return rules.iter().map(plain).collect();
    }
    let splits: Vec<Option<Split<'_>>> = rules.iter().map(split).collect();
    let mut groups: BTreeMap<(Lookup, &[&Match]), Vec<usize>> = BTreeMap::new();
    for (index, split) in splits.iter().enumerate() {
        if let Some(split) = split {
            let key = (split.lookup, split.rest.as_slice());
            groups.entry(key).or_default().push(index);
        }
    }
    groups.retain(|_, members| members.len() >= ENOUGH);
    let mut parts = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let group = splits[index].as_ref().and_then(|split| {
            groups
                .get(&(split.lookup, split.rest.as_slice()))
                .map(|m| (split, m))
        });
        match group {
            None => parts.push(plain(rule)),
            Some((split, members)) if members.first() == Some(&index) => {
                let entries = members
                    .iter()
                    .filter_map(|member| splits[*member].as_ref().map(|split| split.entry));
                parts.push(Part {
                    rule: std::borrow::Cow::Owned(Rule {
                        matches: split.rest.iter().map(|m| (*m).clone()).collect(),
                        verdict: rule.verdict.clone(),
                        comment: comment(rules, members),
                    }),
                    packed: Some(Packed {
                        lookup: split.lookup,
                        elements: elements(split.lookup, entries),
                    }),
                });
            }
            // Its group's first rule stands for it.
            Some(_) => {}
        }
    }
    parts
}

fn comment(rules: &[Rule], members: &[usize]) -> Option<String> {
    let comments: BTreeSet<&str> = members
        .iter()
        .filter_map(|member| rules[*member].comment.as_deref())
        .collect();
    let first = members
        .first()
        .and_then(|first| rules[*first].comment.clone())?;
    Some(match comments.len() {
        0 | 1 => first,
        n => format!("{first} and {} more", n - 1),
    })
}

fn split(rule: &Rule) -> Option<Split<'_>> {
    let mut net = None;
    let mut ports = None;
    let mut rest = Vec::new();
    for m in &rule.matches {
        match m {
            Match::Src {
                net: of,
                negate: false,
            } if net.is_none() => {
                net = Some((End::Source, of.trunc()));
            }
            Match::Dst {
                net: of,
                negate: false,
            } if net.is_none() => {
                net = Some((End::Destination, of.trunc()));
            }
            Match::DstPorts {
                protocol,
                ports: of,
            } if ports.is_none() => {
                ports = Some((*protocol, *of));
            }
            Match::Protocol(protocol) if ports.is_none() && protocol.has_ports() => {
                ports = Some((*protocol, PortRange::new(0, u16::MAX)));
            }
            // A rate is counted per rule.
            Match::Limit { .. } => return None,
            Match::Src { .. }
            | Match::Dst { .. }
            | Match::InIface { .. }
            | Match::OutIface { .. }
            | Match::Protocol(_)
            | Match::DstPorts { .. }
            | Match::IcmpType(_)
            | Match::Icmp6Type(_)
            | Match::PhysIn { .. }
            | Match::PhysOut { .. }
            | Match::CtState(_)
            | Match::CtMark { .. }
            | Match::Mark { .. }
            | Match::PktType(_)
            | Match::SrcLocal { .. }
            | Match::DstLocal { .. }
            | Match::SrcSet { .. }
            | Match::DstSet { .. }
            | Match::SrcPortSet { .. }
            | Match::DstPortSet { .. } => rest.push(m),
        }
    }
    rest.sort();
    let lookup = match (net, ports) {
        (Some((end, _)), Some(_)) => Lookup::NetPorts(end),
        (Some((end, _)), None) => Lookup::Net(end),
        (None, Some(_)) => Lookup::Ports,
        (None, None) => return None,
    };
    Some(Split {
        lookup,
        entry: (net.map(|(_, net)| net), ports),
        rest,
    })
}

fn elements(lookup: Lookup, entries: impl Iterator<Item = Entry>) -> BTreeSet<Element> {
    match lookup {
        Lookup::Net(_) => ranges(entries.filter_map(|(net, _)| net)),
        Lookup::NetPorts(_) => net_ports(entries.filter_map(|(net, ports)| {
            let (protocol, ports) = ports?;
            Some((net?, protocol, ports))
        })),
        Lookup::Ports => {
            let mut by_protocol: BTreeMap<Protocol, Vec<PortRange>> = BTreeMap::new();
            for (protocol, ports) in entries.filter_map(|(_, ports)| ports) {
                by_protocol.entry(protocol).or_default().push(ports);
            }
            let merged = by_protocol.into_iter().flat_map(|(protocol, ports)| {
                let merged = merge(ports).into_iter();
                merged.map(move |ports| Element::Ports(protocol, ports))
            });
            merged.collect()
        }
    }
}

/// The networks' addresses as ranges that do not touch.
pub(super) fn ranges(nets: impl Iterator<Item = IpNet>) -> BTreeSet<Element> {
    let mut all: Vec<AddrRange> = nets.map(AddrRange::of).collect();
    all.sort();
    let mut merged: Vec<AddrRange> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if next(last.to).is_none_or(|next| range.from <= next) => {
                last.to = last.to.max(range.to);
            }
            _ => merged.push(range),
        }
    }
    merged.into_iter().map(Element::Range).collect()
}

fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().checked_add(1)?.into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().checked_add(1)?.into()),
    })
}

type Ports = BTreeMap<Protocol, Vec<PortRange>>;

/// Networks with protocol and ports, none overlapping another.
pub(super) fn net_ports(
    entries: impl Iterator<Item = (IpNet, Protocol, PortRange)>,
) -> BTreeSet<Element> {
    let mut by_net: BTreeMap<(IpAddr, u8), Ports> = BTreeMap::new();
    for (net, protocol, ports) in entries {
        let net = net.trunc();
        let of = by_net.entry((net.addr(), net.prefix_len())).or_default();
        of.entry(protocol).or_default().push(ports);
    }
    let mut elements = BTreeSet::new();
    // The networks around the one at hand, each with all that it and those around it have.
    let mut around: Vec<(IpNet, Ports)> = Vec::new();
    for ((address, length), ports) in by_net {
        let Ok(net) = IpNet::new(address, length) else {
            continue;
        };
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(&net))
        {
            around.pop();
        }
        let mut covered = around
            .last()
            .map(|(_, ports)| ports.clone())
            .unwrap_or_default();
        for (protocol, ports) in ports {
            let known = covered.entry(protocol).or_default();
            let own = subtract(merge(ports), known);
            elements.extend(
                own.iter()
                    .map(|ports| Element::RangePort(AddrRange::of(net), protocol, *ports)),
            );
            known.extend(own);
            *known = merge(std::mem::take(known));
        }
        around.push((net, covered));
    }
    elements
}

/// Sorted, none touching another.
fn merge(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => {
                last.to = last.to.max(range.to);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What is left of `ranges` without `taken`; both sorted, none touching another.
fn subtract(ranges: Vec<PortRange>, taken: &[PortRange]) -> Vec<PortRange> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = Some(range.from);
        for hole in taken
            .iter()
            .filter(|hole| hole.from <= range.to && hole.to >= range.from)
        {
            let Some(start) = from else { break };
            if start < hole.from {
                left.push(PortRange::new(start, hole.from - 1));
            }
            from = hole.to.checked_add(1).filter(|next| *next <= range.to);
        }
        if let Some(start) = from {
            left.push(PortRange::new(start, range.to));
        }
    }
    left
}
