//! May the elements of several sets be changed one by one, and in which order?
//!
//! A packet's verdict is a function of the sets it is looked up in. While elements change one after
//! the other, the kernel judges by mixtures of old and new sets. A mixture must not pass what both
//! the old and the new ruleset drop, nor drop what both pass. That holds if
//!
//! 1. one element changes: there is no mixture; or
//! 2. one set changes, and every rule looks it up by the same end of the packet: each packet sees
//!    one change only (elements are added before others are removed, so that a network that takes
//!    over from another leaves no hole); or
//! 3. all changes open (more passes) or all close: verdicts go one way only; or
//! 4. addresses enter or leave the gate: as long as an address is not in it, no mixture matters to
//!    the packets it sends or gets. Removed from the gate first, added last.
//!
//! 4 combines with 2 and 3 for the elements of other addresses. Everything else needs twins.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::SetOp;
use crate::{Element, Match, Set, SetName, SetRole, Table};

/// The change of one set.
#[derive(Debug, Clone)]
pub(super) struct SetChange<'a> {
    pub(super) name: &'a SetName,
    pub(super) kernel_name: SetName,
    pub(super) role: SetRole,
    pub(super) adds: Vec<Element>,
    pub(super) dels: Vec<Element>,
}

impl<'a> SetChange<'a> {
    pub(super) fn between(
        name: &'a SetName,
        kernel_name: SetName,
        old: &Set,
        new: &Set,
    ) -> Option<Self> {
        if old.elements == new.elements {
            return None;
        }
        Some(Self {
            name,
            kernel_name,
            role: new.role,
            adds: new.elements.difference(&old.elements).copied().collect(),
            dels: old.elements.difference(&new.elements).copied().collect(),
        })
    }

    fn elements(&self) -> impl Iterator<Item = (&Element, bool)> {
        let adds = self.adds.iter().map(|element| (element, true));
        adds.chain(self.dels.iter().map(|element| (element, false)))
    }
}

/// Lines in a safe order, or `None` if there is none.
pub(super) fn in_place(changes: &[SetChange<'_>], table: &Table) -> Option<Vec<SetOp>> {
    let gated: BTreeSet<IpNet> = changes
        .iter()
        .filter(|change| change.role == SetRole::Gate)
        .flat_map(|change| change.elements().map(|(element, _)| element.net()))
        .collect();
    // What is left when gated addresses do not count.
    let mut sets = BTreeSet::new();
    let mut count = 0_usize;
    let mut opens = false;
    let mut closes = false;
    let mut mixed = false;
    for change in changes {
        for (element, added) in change.elements() {
            if gated.contains(&element.net()) {
                continue;
            }
            count += 1;
            sets.insert(change.name);
            match (change.role, added) {
                (SetRole::Mixed, _) => mixed = true,
                (SetRole::Allow | SetRole::Gate, true) | (SetRole::Isolate, false) => opens = true,
                (SetRole::Allow | SetRole::Gate, false) | (SetRole::Isolate, true) => {
                    closes = true;
                }
            }
        }
    }
    let one_way = !(mixed || opens && closes);
    let one_set = sets.len() == 1 && sets.iter().all(|set| one_ended(set, table));
    if !(count <= 1 || one_way || one_set) {
        return None;
    }
    let is_gate = |change: &&SetChange<'_>| change.role == SetRole::Gate;
    let dels = |change: &SetChange<'_>| {
        let name = change.kernel_name.clone();
        let dels = change.dels.clone().into_iter();
        dels.map(move |element| SetOp::Del(name.clone(), element))
    };
    let adds = |change: &SetChange<'_>| {
        let name = change.kernel_name.clone();
        let adds = change.adds.clone().into_iter();
        adds.map(move |element| SetOp::Add(name.clone(), element))
    };
    let mut ops = Vec::new();
    ops.extend(changes.iter().filter(is_gate).flat_map(dels));
    for change in changes.iter().filter(|change| !is_gate(change)) {
        ops.extend(adds(change));
        ops.extend(dels(change));
    }
    ops.extend(changes.iter().filter(is_gate).flat_map(adds));
    Some(ops)
}

/// Do all rules look the set up by the same end of the packet?
fn one_ended(set: &SetName, table: &Table) -> bool {
    let mut ends: BTreeMap<bool, ()> = BTreeMap::new();
    let matches = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.matches)
        .chain(table.hooks.iter().flat_map(|jump| &jump.matches));
    for m in matches.filter(|m| m.set() == Some(set)) {
        let source = matches!(m, Match::SrcSet { .. } | Match::SrcPortSet { .. });
        ends.insert(source, ());
    }
    ends.len() <= 1
}
