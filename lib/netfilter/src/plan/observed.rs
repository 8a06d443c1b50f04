//! What of ours is in the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::{BaseRule, HookKey, Owner, hooks::jumps};
use crate::{
    Chain, ChainName, Element, Family, Hook, Match, Rule, Ruleset, Set, SetName, TableName, text,
};

/// What of one owner's is in the kernel: read back, or known from the last plan that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Chains and sets under the names of the IR; no hooks.
    pub ruleset: Ruleset,
    /// Sets that live under their twin's name.
    pub twins: BTreeSet<SetName>,
    /// Sets under their kernel names that no rule should look up: the other half of a pair, left by
    /// a crash or held by the kernel for a moment, and sets of a type that we do not make.
    pub stale: BTreeSet<SetName>,
    /// Chains that hold a rule we would not write, or look up the wrong half of a pair.
    pub broken: BTreeSet<(Family, ChainName)>,
    /// Chains of ours in a table where a chain of the same name should not be.
    pub misplaced: BTreeSet<(Family, TableName, ChainName)>,
    /// Built-in chains.
    pub hooks: BTreeMap<HookKey, Vec<BaseRule>>,
}

/// Output of the saving tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// `iptables-save -t TABLE`, `ip6tables-save -t TABLE`.
    pub tables: BTreeMap<(Family, TableName), String>,
    /// `ipset save`.
    pub sets: String,
}

/// A chain with the sets under their kernel names.
struct Found {
    table: TableName,
    rules: Option<Vec<Rule>>,
}

impl Observed {
    /// Makes sense of what the tools printed. Total: what is not understood is marked as broken or
    /// stale and will be replaced.
    #[must_use]
    pub fn read(owner: &Owner, saved: &Saved) -> Self {
        let mut observed = Self::default();
        let mut chains: BTreeMap<(Family, ChainName), Found> = BTreeMap::new();
        for (&(family, table), text) in &saved.tables {
            // A family that was read exists, also when it holds nothing of ours.
            observed.ruleset.tables.entry(family).or_default();
            for (name, chain) in text::read_iptables_save(text) {
                if let (true, Some(hook)) = (chain.builtin, Hook::from_chain(&name)) {
                    let rules = chain.rules.iter().map(|rule| BaseRule::read(rule, owner));
                    observed
                        .hooks
                        .insert((family, table, hook), rules.collect());
                } else if owner.owns_chain(&name)
                    && let Ok(name) = ChainName::new(&name)
                {
                    let rules = chain
                        .rules
                        .iter()
                        .map(|rule| {
                            let words = text::words(rule)?;
                            text::read_rule(&words).ok()
                        })
                        .collect();
                    let found = Found { table, rules };
                    if chains.contains_key(&(family, name.clone())) {
                        observed.misplaced.insert((family, table, name));
                    } else {
                        chains.insert((family, name), found);
                    }
                }
            }
        }
        observed.read_sets(owner, &saved.sets, &chains);
        for ((family, name), found) in chains {
            observed.add_chain(family, name, found);
        }
        observed
    }

    /// Decides which half of each pair is alive: the one that rules look up.
    fn read_sets(
        &mut self,
        owner: &Owner,
        saved: &str,
        chains: &BTreeMap<(Family, ChainName), Found>,
    ) {
        let used: BTreeSet<&str> = chains
            .values()
            .flat_map(|found| found.rules.iter().flatten())
            .flat_map(|rule| rule.matches.iter().filter_map(Match::set))
            .map(SetName::as_str)
            .collect();
        let found = text::read_ipset_save(saved, |name| owner.owns_set(name));
        for (name, set) in &found {
            let base = name.strip_suffix(SetName::TWIN_SUFFIX);
            let other = match base {
                Some(base) => base.to_owned(),
                None => format!("{name}{}", SetName::TWIN_SUFFIX),
            };
            let alive = match (used.contains(name.as_str()), used.contains(other.as_str())) {
                (true, false) => true,
                (false, true) => false,
                // Both or none: the one with the plain name, if it is there.
                _ => base.is_none() || !found.contains_key(&other),
            };
            let Ok(kernel_name) = SetName::as_found(name) else {
                continue;
            };
            let (Some((family, kind)), true, Ok(logical)) =
                (set.shape, alive, SetName::new(base.unwrap_or(name)))
            else {
                self.stale.insert(kernel_name);
                continue;
            };
            // An element that we would not write makes the set wrong as a whole.
            let elements: Option<BTreeSet<Element>> = set.elements.iter().copied().collect();
            let Some(elements) = elements else {
                self.stale.insert(kernel_name);
                continue;
            };
            if base.is_some() {
                self.twins.insert(logical.clone());
            }
            self.ruleset.tables.entry(family).or_default().sets.insert(
                logical,
                Set {
                    elements,
                    ..Set::new(kind)
                },
            );
        }
    }

    fn add_chain(&mut self, family: Family, name: ChainName, found: Found) {
        let table = self.ruleset.tables.entry(family).or_default();
        let sets = &table.sets;
        let twins = &self.twins;
        let logical = |rule: &Rule| -> Option<Rule> {
            let mut rule = rule.clone();
            for m in &mut rule.matches {
                let (Match::SrcSet { set, .. }
                | Match::DstSet { set, .. }
                | Match::SrcPortSet { set }
                | Match::DstPortSet { set }) = m
                else {
                    continue;
                };
                let base = set.as_str().strip_suffix(SetName::TWIN_SUFFIX);
                let plain = SetName::new(base.unwrap_or(set.as_str())).ok()?;
                if !sets.contains_key(&plain) || twins.contains(&plain) != base.is_some() {
                    return None;
                }
                *set = plain;
            }
            Some(rule.canonical())
        };
        let rules: Option<Vec<Rule>> = found
            .rules
            .and_then(|rules| rules.iter().map(logical).collect());
        if rules.is_none() {
            self.broken.insert((family, name.clone()));
        }
        table.chains.insert(
            name,
            Chain {
                table: found.table,
                rules: rules.unwrap_or_default(),
            },
        );
    }

    /// What was observed as a ruleset with its jumps; others' rules are not in it.
    #[must_use]
    pub fn with_jumps(self) -> Ruleset {
        let mut ruleset = self.ruleset;
        for ((family, _, hook), chain) in &self.hooks {
            let table = ruleset.tables.entry(*family).or_default();
            table.hooks.extend(jumps(*hook, chain));
        }
        ruleset
    }

    /// Do rules that are not ours decide about packets of this family before ours have, or among
    /// ours?
    #[must_use]
    pub fn is_foreign(&self, family: Family) -> bool {
        let among = self.broken.iter().any(|(of, _)| *of == family);
        let before = |chain: &Vec<BaseRule>| {
            let ours = |rule: &BaseRule| matches!(rule, BaseRule::Ours { .. });
            let others = |last| chain.iter().take(last).any(|rule| !ours(rule));
            chain.iter().rposition(ours).is_some_and(others)
        };
        let of_family = self.hooks.iter().filter(|((of, ..), _)| *of == family);
        among || of_family.map(|(_, chain)| chain).any(before)
    }

    /// Name in the kernel of a set of the IR.
    #[must_use]
    pub fn kernel_name(&self, set: &SetName) -> SetName {
        if self.twins.contains(set) {
            set.twin()
        } else {
            set.clone()
        }
    }
}
