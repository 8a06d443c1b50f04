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
//! 4 combines with 1 to 3 for the elements of other addresses, and holds while rules change too, as
//! long as the chains that look up the gate do not. What is left needs twins.

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

/// How changes are made.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Lines before rules change.
    pub(super) before: Vec<SetOp>,
    /// Lines after rules have changed.
    pub(super) after: Vec<SetOp>,
    /// Sets whose change needs a twin.
    pub(super) twins: BTreeSet<SetName>,
}

/// What of the rules changes together with the sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// Nothing.
    Stay,
    /// Some, but the gate does its work as before.
    Change,
    /// Also those that look up the gate.
    ChangeAtTheGate,
}

/// Finds a safe order.
pub(super) fn order(changes: &[SetChange<'_>], table: &Table, rules: Rules) -> Order {
    let is_gate = |change: &&SetChange<'_>| change.role == SetRole::Gate;
    let gated: BTreeSet<IpNet> = match rules {
        Rules::ChangeAtTheGate => BTreeSet::new(),
        Rules::Stay | Rules::Change => changes
            .iter()
            .filter(is_gate)
            .flat_map(|change| change.elements().map(|(element, _)| element.net()))
            .collect(),
    };
    // What is left when gated addresses do not count.
    let rest: Vec<(&SetChange<'_>, bool)> = changes
        .iter()
        .flat_map(|change| change.elements().map(move |(e, added)| (change, e, added)))
        .filter(|(_, element, _)| !gated.contains(&element.net()))
        .map(|(change, _, added)| (change, added))
        .collect();
    let sets: BTreeSet<&SetName> = rest.iter().map(|(change, _)| change.name).collect();
    let twins = if rules == Rules::Stay && one_by_one(&rest, &sets, table) {
        BTreeSet::new()
    } else {
        sets.into_iter().cloned().collect()
    };
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
    let stays = |change: &&SetChange<'_>| !twins.contains(change.name);
    let mut before = Vec::new();
    let (gates, others): (Vec<_>, Vec<_>) = changes.iter().filter(stays).partition(is_gate);
    before.extend(gates.iter().copied().flat_map(dels));
    for change in others {
        before.extend(adds(change));
        before.extend(dels(change));
    }
    let after = gates.into_iter().flat_map(adds).collect();
    Order {
        before,
        after,
        twins,
    }
}

/// Laws 1 to 3, for (set, is it added?) of each element.
fn one_by_one(rest: &[(&SetChange<'_>, bool)], sets: &BTreeSet<&SetName>, table: &Table) -> bool {
    let opens = |(change, added): &(&SetChange<'_>, bool)| match change.role {
        SetRole::Allow | SetRole::Gate => Some(*added),
        SetRole::Isolate => Some(!*added),
        SetRole::Mixed => None,
    };
    rest.len() <= 1
        || rest.iter().all(|change| opens(change) == Some(true))
        || rest.iter().all(|change| opens(change) == Some(false))
        || sets.len() == 1 && sets.iter().all(|set| one_ended(set, table))
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
