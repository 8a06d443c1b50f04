//! A listing beside what is wanted: where they differ, in words, and the table as a value.

use std::collections::BTreeMap;

use super::{Chain, Data, Element, Listing, Objects, Rule, Set, write_rule};

/// Elements that are named; of more the number is told.
const NAMED: usize = 3;

impl Listing {
    /// Where the table of this name differs from what is wanted in it, one line each; empty: nowhere.
    #[must_use]
    pub fn differences(&self, table: &str, wanted: &Objects) -> Vec<String> {
        let mut lines = Vec::new();
        if self.odd {
            lines.push("something that is no chain and no set".to_owned());
        }
        for (name, set) in &wanted.sets {
            match self.sets.get(name) {
                None => lines.push(format!("set {name} is missing")),
                Some(Some(listed)) if listed.kind == set.kind => {
                    lines.extend(elements(name, listed, set));
                }
                Some(_) => lines.push(format!("set {name} is of another kind")),
            }
        }
        for name in self.sets.keys().filter(|n| !wanted.sets.contains_key(*n)) {
            lines.push(format!("set {name} is nothing of ours"));
        }
        for (name, chain) in &wanted.chains {
            lines.extend(self.chain(name, chain));
        }
        let others = self.chains.keys();
        for name in others.filter(|n| !wanted.chains.contains_key(*n)) {
            lines.push(format!("chain {name} is nothing of ours"));
        }
        let of_table = |line| format!("table {table}: {line}");
        lines.into_iter().map(of_table).collect()
    }

    fn chain(&self, name: &str, wanted: &Chain) -> Option<String> {
        let Some(listed) = self.chains.get(name) else {
            return Some(format!("chain {name} is missing"));
        };
        let base = wanted.base.map(|base| base.to_string());
        if listed.base != base {
            let words = |base: &Option<String>| match base {
                Some(base) => format!("`{base}`"),
                None => "no hook".to_owned(),
            };
            return Some(format!(
                "chain {name} has {}, wanted is {}",
                words(&listed.base),
                words(&base)
            ));
        }
        let wanted: Vec<String> = wanted.rules.iter().map(write_rule).collect();
        let at = (0..listed.rules.len().max(wanted.len()))
            .find(|at| listed.rules.get(*at) != wanted.get(*at))?;
        let words = |rule: Option<&String>| match rule {
            Some(rule) => format!("`{rule}`"),
            None => "none".to_owned(),
        };
        Some(format!(
            "chain {name} rule {} is {}, wanted is {} ({} rules, wanted are {})",
            at + 1,
            words(listed.rules.get(at)),
            words(wanted.get(at)),
            listed.rules.len(),
            wanted.len(),
        ))
    }

    /// The table as a value; `None`: it holds something that cannot be known again, because it is
    /// not made of rules of what is wanted.
    #[must_use]
    pub fn objects(&self, wanted: &Objects) -> Option<Objects> {
        if self.odd {
            return None;
        }
        let rules = wanted.chains.values().flat_map(|chain| &chain.rules);
        let known: BTreeMap<String, &Rule> = rules.map(|rule| (write_rule(rule), rule)).collect();
        let bases = wanted.chains.values().filter_map(|chain| chain.base);
        let bases: BTreeMap<String, _> = bases.map(|base| (base.to_string(), base)).collect();
        let mut objects = Objects::default();
        for (name, set) in &self.sets {
            objects.sets.insert(name.clone(), set.clone()?);
        }
        for (name, listed) in &self.chains {
            let base = match &listed.base {
                Some(base) => Some(*bases.get(base)?),
                None => None,
            };
            let rules = listed.rules.iter();
            let rules: Option<Vec<Rule>> = rules.map(|r| Some((*known.get(r)?).clone())).collect();
            let rules = rules?;
            objects.chains.insert(name.clone(), Chain { base, rules });
        }
        Some(objects)
    }
}

fn elements(name: &str, listed: &Set, wanted: &Set) -> Option<String> {
    let lacks = some(&wanted.elements, &listed.elements).map(|text| format!("lacks {text}"));
    let holds = some(&listed.elements, &wanted.elements).map(|text| format!("holds {text}"));
    let both: Vec<String> = lacks.into_iter().chain(holds).collect();
    (!both.is_empty()).then(|| format!("set {name} {}", both.join(" and ")))
}

/// What of the one is not in the other.
fn some(of: &BTreeMap<Element, Data>, other: &BTreeMap<Element, Data>) -> Option<String> {
    let differ: Vec<String> = of
        .iter()
        .filter(|(key, data)| other.get(*key) != Some(*data))
        .map(|(key, data)| format!("{key}{data}"))
        .collect();
    let named = differ.get(..differ.len().min(NAMED))?.join(", ");
    match differ.len() {
        0 => None,
        n if n <= NAMED => Some(named),
        n => Some(format!("{named} and {} more", n - NAMED)),
    }
}
