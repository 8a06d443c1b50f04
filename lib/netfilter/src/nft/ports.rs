//! Chains that lead somewhere by bridge port of departure.
//!
//! A bridged packet shows only its bridge in `inet`; the port is known in the bridge family's own
//! forward hook, a step before. There the copy of a frame that leaves by one of the ports gets a
//! mark that is the port's alone, `inet` dispatches by that mark and takes it away at the end. Only frames
//! that would enter the chain are marked (the conditions that the two families share are tested
//! before), so marks of others on other packets stay. A copy's mark ends at the port: it goes into
//! the network namespace of a pod.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Data, Element, End, Go, Key, Kind, Match, Rule, Set, Verdict,
    lower::{Lowering, chain_name},
};
use crate::{Chain, ChainName, IfName, IfPattern, Match as Plain, Table, Verdict as PlainVerdict};

/// Low half of every mark, so that a mark of somebody else is hardly taken for one of these. It
/// holds none of kube-proxy's bits (0x4000, 0x8000).
const MAGIC: u32 = 0x2b4e;
const MAGIC_MASK: u32 = 0xffff;
/// Bits of it that must be left, or a mark of somebody else would be taken for one of these.
const MAGIC_BITS: u32 = 8;
/// The map of the bridge family.
pub(super) const MAP: &str = "ports";

/// Where each port leads: a chain, or nowhere.
pub(super) type Ways<'a> = BTreeMap<&'a IfName, Option<&'a ChainName>>;

/// The map that a chain amounts to, if it looks at ports of departure alone.
pub(super) fn ways(chain: &Chain) -> Option<Ways<'_>> {
    let mut ways = Ways::new();
    for rule in &chain.rules {
        let [
            Plain::PhysOut {
                iface: IfPattern::Exact(port),
                negate: false,
            },
        ] = rule.matches.as_slice()
        else {
            return None;
        };
        let to = match &rule.verdict {
            PlainVerdict::Goto(to) => Some(to),
            PlainVerdict::Return => None,
            PlainVerdict::Accept
            | PlainVerdict::Drop
            | PlainVerdict::Jump(_)
            | PlainVerdict::SetMark { .. }
            | PlainVerdict::Nflog { .. }
            | PlainVerdict::Masquerade { .. }
            | PlainVerdict::NoTrack => return None,
        };
        // The first rule that matches decides.
        ways.entry(port).or_insert(to);
    }
    (!ways.is_empty()).then_some(ways)
}

/// Marks of all ports that any table dispatches by. A port has the same mark in every run, unless
/// two names hash alike. `None`: rules leave too few bits of the mark.
pub(super) fn marks<'a>(
    tables: impl Iterator<Item = &'a Table> + Clone,
) -> Option<(u32, BTreeMap<&'a IfName, u32>)> {
    let chains = tables.flat_map(|table| table.chains.values());
    // Bits that rules set or clear on the way say nothing about the port.
    let keep = !chains
        .clone()
        .flat_map(|chain| &chain.rules)
        .filter_map(|rule| match &rule.verdict {
            PlainVerdict::SetMark { mask, .. } => Some(*mask),
            PlainVerdict::Accept
            | PlainVerdict::Drop
            | PlainVerdict::Return
            | PlainVerdict::Jump(_)
            | PlainVerdict::Goto(_)
            | PlainVerdict::Nflog { .. }
            | PlainVerdict::Masquerade { .. }
            | PlainVerdict::NoTrack => None,
        })
        .fold(0, |all, mask| all | mask);
    let ports: BTreeSet<&IfName> = chains
        .filter_map(ways)
        .flatten()
        .filter_map(|(port, to)| to.map(|_| port))
        .collect();
    let few_values = ports.len() >= 1 << (keep >> 16).count_ones();
    let little_magic = (keep & MAGIC_MASK).count_ones() < MAGIC_BITS;
    // The loop below ends if there are as many values as ports.
    if few_values || little_magic {
        return ports.is_empty().then(|| (keep, BTreeMap::new()));
    }
    let mut taken = BTreeSet::new();
    let mut marks = BTreeMap::new();
    for port in ports {
        let mut half = hash(port.as_str());
        let mark = |half: u16| (u32::from(half) << 16 | MAGIC) & keep;
        while !taken.insert(mark(half)) {
            half = half.wrapping_add(1);
        }
        marks.insert(port, mark(half));
    }
    Some((keep, marks))
}

/// FNV-1a, folded.
fn hash(name: &str) -> u16 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let bytes = hash.to_be_bytes();
    u16::from_be_bytes([bytes[0] ^ bytes[2], bytes[1] ^ bytes[3]])
}

/// Writes the chain and its map.
pub(super) fn lower<'a>(
    lowering: &mut Lowering<'a, '_>,
    name: &ChainName,
    ways: &Ways<'a>,
) -> Vec<&'a ChainName> {
    let map = chain_name(name, lowering.family);
    let mut elements = BTreeMap::new();
    let mut targets = Vec::new();
    for (port, to) in ways {
        if let (Some(to), Some(mark)) = (to, lowering.marks.get(port)) {
            let chain = chain_name(to, lowering.family);
            let go = Data::Go(Go { back: false, chain });
            elements.insert(Element::Mark(*mark), go);
            targets.push(*to);
        }
    }
    let set = Set {
        kind: Kind::MarkVerdict,
        elements,
    };
    lowering.set(&map, set);
    let key = Key::Mark {
        mask: lowering.keep,
    };
    lowering.chain(name, vec![Rule::new([], Verdict::Map { key, map })]);
    targets
}

/// The last rule of `inet`'s forward hook: whatever else was decided, no mark of ours stays.
pub(super) fn clear(keep: u32) -> Rule {
    let ours = Match::Plain(Plain::Mark {
        value: MAGIC & keep,
        mask: MAGIC_MASK & keep,
    });
    let value = 0;
    let mask = u32::MAX;
    Rule::new([ours], Verdict::SetMark { value, mask })
}

/// The rule of the bridge family for a rule that leads into such a chain. Devices are not compared:
/// in the bridge family they would be ports.
///
/// # Errors
/// A condition that the bridge family does not know.
pub(super) fn bridge_rule(
    lowering: &mut Lowering<'_, '_>,
    rule: &crate::Rule,
) -> Result<Rule, String> {
    let family = lowering.family;
    let mut matches = Vec::new();
    for m in &rule.matches {
        let (end, set, negate) = match m {
            Plain::InIface { .. } | Plain::OutIface { .. } => continue,
            Plain::SrcSet { set, negate } => (End::Source, set, *negate),
            Plain::DstSet { set, negate } => (End::Destination, set, *negate),
            Plain::Src { .. }
            | Plain::Dst { .. }
            | Plain::Protocol(_)
            | Plain::DstPorts { .. }
            | Plain::IcmpType(_)
            | Plain::Icmp6Type(_)
            | Plain::PhysIn { .. }
            | Plain::PhysOut { .. }
            | Plain::CtState(_)
            | Plain::CtMark { .. }
            | Plain::Mark { .. }
            | Plain::PktType(_)
            | Plain::SrcLocal { .. }
            | Plain::DstLocal { .. }
            | Plain::SrcPortSet { .. }
            | Plain::DstPortSet { .. }
            | Plain::Limit { .. } => return Err(format!("a frame cannot be judged by {m:?}")),
        };
        lowering.copy_to_bridge(set);
        matches.push(Match::Addr {
            end,
            family,
            set: set.to_string(),
            negate,
        });
    }
    if matches.is_empty() {
        return Err("every frame would be judged by its port".to_owned());
    }
    let map = MAP.to_owned();
    Ok(Rule::new(matches, Verdict::MarkByDevice { map }))
}
