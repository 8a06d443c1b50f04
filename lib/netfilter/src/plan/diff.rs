//! The difference between what is there and what should be.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    HookKey, Observed, Plan, RulesStep, SetOp, Step, TableStep,
    hooks::place,
    order::{Order, Rules, SetChange, order},
};
use crate::{
    Chain, ChainName, Family, HookJump, Invalid, Match, Rule, Ruleset, SetName, SetRole, Table,
    TableName, text::write_rule,
};

/// Plans how to get from `observed` to `desired`. The plan is empty if they are the same
/// (invariant I2).
///
/// # Errors
/// [`Invalid`]: `desired` is no ruleset that a kernel could take; nothing must be written then.
pub fn diff(observed: &Observed, desired: &Ruleset) -> Result<Plan, Invalid> {
    desired.check()?;
    let mut planner = Planner {
        observed,
        after: Observed {
            ruleset: Ruleset::default(),
            twins: BTreeSet::new(),
            stale: BTreeSet::new(),
            broken: BTreeSet::new(),
            misplaced: BTreeSet::new(),
            hooks: observed.hooks.clone(),
        },
        sets: Vec::new(),
        rules: Vec::new(),
        sets_after: Vec::new(),
        destroy: observed.stale.clone(),
    };
    let empty = Table::default();
    let families: BTreeSet<Family> = observed
        .ruleset
        .tables
        .keys()
        .chain(desired.tables.keys())
        .copied()
        .collect();
    for family in families {
        let old = observed.ruleset.tables.get(&family).unwrap_or(&empty);
        let new = desired.tables.get(&family).unwrap_or(&empty);
        planner.family(family, old, new);
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    observed: &'a Observed,
    after: Observed,
    sets: Vec<SetOp>,
    rules: Vec<RulesStep>,
    sets_after: Vec<SetOp>,
    destroy: BTreeSet<SetName>,
}

impl Planner<'_> {
    fn family(&mut self, family: Family, old: &Table, new: &Table) {
        let mut tables: BTreeMap<TableName, TableStep> = BTreeMap::new();
        self.hooks(family, old, new, &mut tables);
        let mut write: BTreeSet<&ChainName> = new
            .chains
            .iter()
            .filter(|(name, chain)| {
                let broken = self.observed.broken.contains(&(family, (*name).clone()));
                broken || old.chains.get(*name).is_none_or(|old| !same(old, chain))
            })
            .map(|(name, _)| name)
            .collect();
        let delete: Vec<(TableName, &ChainName)> = deletions(self.observed, family, old, new);
        let gates = |table: &Table, name: &ChainName| {
            let sets = table.chains.get(name).map(Chain::sets).unwrap_or_default();
            sets.into_iter().any(|set| {
                new.sets
                    .get(set)
                    .is_some_and(|set| set.role == SetRole::Gate)
            })
        };
        let rules = if write.is_empty() && delete.is_empty() && tables.is_empty() {
            Rules::Stay
        } else if !tables.is_empty()
            || write
                .iter()
                .any(|name| gates(old, name) || gates(new, name))
            || delete.iter().any(|(_, name)| gates(old, name))
        {
            Rules::ChangeAtTheGate
        } else {
            Rules::Change
        };
        let moved = self.sets(family, old, new, rules);
        // Rules follow a set to its twin.
        write.extend(
            new.chains
                .iter()
                .filter(|(_, chain)| chain.sets().iter().any(|set| moved.contains(*set)))
                .map(|(name, _)| name),
        );
        for name in write {
            let chain = &new.chains[name];
            let rules = chain.rules.iter().map(|rule| self.write(rule)).collect();
            let step = tables.entry(chain.table).or_default();
            step.chains.insert(name.clone(), rules);
        }
        for (table, name) in delete {
            tables.entry(table).or_default().delete.push(name.clone());
        }
        if !tables.is_empty() {
            self.rules.push(RulesStep { family, tables });
        }
        self.after.ruleset.tables.insert(
            family,
            Table {
                sets: new.sets.clone(),
                chains: new.chains.clone(),
                hooks: Vec::new(),
            },
        );
    }

    /// Jumps of every built-in chain that has one of ours, or should.
    fn hooks(
        &mut self,
        family: Family,
        old: &Table,
        new: &Table,
        tables: &mut BTreeMap<TableName, TableStep>,
    ) {
        let table_of = |to: &ChainName| {
            let chain = new.chains.get(to).or_else(|| old.chains.get(to));
            chain.map(|chain| chain.table).unwrap_or_default()
        };
        let mut wanted: BTreeMap<HookKey, Vec<&HookJump>> = BTreeMap::new();
        for key in self.observed.hooks.keys().filter(|key| key.0 == family) {
            wanted.entry(*key).or_default();
        }
        for jump in &new.hooks {
            let key = (family, table_of(&jump.to), jump.hook);
            wanted.entry(key).or_default().push(jump);
        }
        for (key, jumps) in wanted {
            let seen = self.observed.hooks.get(&key).map_or(&[][..], Vec::as_slice);
            let (ops, chain) = place(key.2, seen, &jumps);
            if !ops.is_empty() {
                tables.entry(key.1).or_default().base.extend(ops);
            }
            self.after.hooks.insert(key, chain);
        }
    }

    /// Plans the sets of a family; returns those that move to another kernel name.
    fn sets(
        &mut self,
        family: Family,
        old: &Table,
        new: &Table,
        rules: Rules,
    ) -> BTreeSet<SetName> {
        let mut moved = BTreeSet::new();
        let mut changes = Vec::new();
        for (name, set) in &new.sets {
            let kernel_name = self.observed.kernel_name(name);
            match old.sets.get(name) {
                Some(before) if before.kind == set.kind => {
                    if self.observed.twins.contains(name) {
                        self.after.twins.insert(name.clone());
                    }
                    changes.extend(SetChange::between(name, kernel_name, before, set));
                }
                Some(_) => {
                    moved.insert(name.clone());
                }
                None => self.create(family, name, set, self.observed.stale.contains(name)),
            }
        }
        let Order {
            before,
            after,
            twins,
        } = order(&changes, new, rules);
        self.sets.extend(before);
        self.sets_after.extend(after);
        moved.extend(twins);
        for name in &moved {
            let was_twin = self.observed.twins.contains(name);
            self.destroy.insert(self.observed.kernel_name(name));
            self.create(family, name, &new.sets[name], !was_twin);
        }
        let gone = old.sets.keys().filter(|name| !new.sets.contains_key(*name));
        self.destroy
            .extend(gone.map(|name| self.observed.kernel_name(name)));
        moved
    }

    /// Makes and fills a set, under its own name or its twin's.
    fn create(&mut self, family: Family, name: &SetName, set: &crate::Set, twin: bool) {
        let kernel_name = if twin { name.twin() } else { name.clone() };
        if twin {
            self.after.twins.insert(name.clone());
        } else {
            self.after.twins.remove(name);
        }
        // Left over from before: nothing looks it up, so it can go first.
        if self.observed.stale.contains(&kernel_name) {
            self.destroy.remove(&kernel_name);
            self.sets.push(SetOp::Destroy(kernel_name.clone()));
        }
        self.sets
            .push(SetOp::Create(kernel_name.clone(), family, set.kind));
        let elements = set.elements.iter();
        self.sets
            .extend(elements.map(|element| SetOp::Add(kernel_name.clone(), *element)));
    }

    /// A rule with sets under their kernel names.
    fn write(&self, rule: &Rule) -> String {
        let mut rule = rule.clone();
        for m in &mut rule.matches {
            if let Match::SrcSet { set, .. }
            | Match::DstSet { set, .. }
            | Match::SrcPortSet { set }
            | Match::DstPortSet { set } = m
            {
                *set = self.after.kernel_name(set);
            }
        }
        write_rule(&rule)
    }

    fn finish(mut self) -> Plan {
        let mut steps = Vec::new();
        if self.rules.is_empty() {
            self.sets.append(&mut self.sets_after);
        }
        if !self.sets.is_empty() {
            steps.push(Step::Sets(self.sets));
        }
        steps.extend(self.rules.into_iter().map(Step::Rules));
        if !self.sets_after.is_empty() {
            steps.push(Step::Sets(self.sets_after));
        }
        if !self.destroy.is_empty() {
            steps.push(Step::Cleanup(self.destroy.into_iter().collect()));
        }
        Plan {
            steps,
            after: self.after,
        }
    }
}

/// Chains that are of no more use, and those in a table where they should not be.
fn deletions<'a>(
    observed: &'a Observed,
    family: Family,
    old: &'a Table,
    new: &Table,
) -> Vec<(TableName, &'a ChainName)> {
    let wanted_there =
        |name: &ChainName, table| new.chains.get(name).is_some_and(|c| c.table == table);
    let known = old.chains.iter().map(|(name, chain)| (chain.table, name));
    let misplaced = observed
        .misplaced
        .iter()
        .filter(|(of, ..)| *of == family)
        .map(|(_, table, name)| (*table, name));
    known
        .chain(misplaced)
        .filter(|(table, name)| !wanted_there(name, *table))
        .collect()
}

/// Equal as written? What was applied as it is now needs no canonical form to see that.
fn same(old: &Chain, new: &Chain) -> bool {
    old.table == new.table
        && old.rules.len() == new.rules.len()
        && old
            .rules
            .iter()
            .zip(&new.rules)
            .all(|(old, new)| old == new || old.canonical() == new.canonical())
}
