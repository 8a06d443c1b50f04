//! Closed by default: addresses of this node's blocks that belong to no pod policy could be
//! applied to. The two sets outlive npc, so a pod that starts while npc is dead stays closed.

use weft_netfilter::{Element, Family, Match, Rule, SetKind, SetName, SetRole, Verdict};
use weft_policy::Standing;

use crate::name::{fixed_chain, fixed_set};
use crate::table::Builder;

/// Addresses that are not closed.
pub(crate) fn known(family: Family) -> SetName {
    fixed_set("known", family)
}

fn blocks(family: Family) -> SetName {
    fixed_set("blocks", family)
}

/// The sets, and the chain that closed packets end in.
pub(crate) fn sets(builder: &mut Builder<'_>) {
    let family = builder.family;
    let node = builder.node;
    let nets = node.blocks.iter().flat_map(|block| Element::nets(*block));
    builder.set(&blocks(family), SetKind::Net, SetRole::Isolate, nets);
    let subjects = builder
        .model
        .subjects
        .values()
        .filter(|subject| subject.standing != Standing::Unknown)
        .flat_map(|subject| &subject.addresses);
    let addresses = subjects.chain(&node.gateways).chain(&node.also_known);
    let addresses = addresses.map(|address| Element::Addr(*address));
    builder.set(&known(family), SetKind::Addr, SetRole::Gate, addresses);
    builder.deny_chain(&fixed_chain("WEFT-NPC-CLOSED"), "weft-deny-closed");
}

/// An end of a packet: the lookups "it is in the set", "it is not".
pub(crate) struct End(fn(SetName) -> Match, fn(SetName) -> Match);

/// The source.
pub(crate) const SOURCE: End = End(Match::src_set, Match::not_src_set);
/// The destination.
pub(crate) const DESTINATION: End = End(Match::dst_set, Match::not_dst_set);

/// Denies packets with a closed end, of the ends that count.
pub(crate) fn rules(builder: &Builder<'_>, ends: &[End]) -> Vec<Rule> {
    let (blocks, known) = (blocks(builder.family), known(builder.family));
    ends.iter()
        .map(|End(within, outside)| {
            let matches = [within(blocks.clone()), outside(known.clone())];
            Rule::new(matches, Verdict::Goto(fixed_chain("WEFT-NPC-CLOSED")))
                .comment("no known pod has this address")
        })
        .collect()
}
