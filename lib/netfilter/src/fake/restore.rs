//! What the tools do to the fake kernel.

use super::{
    FakeKernel, FakeSet,
    kernel::{Chains, normalise},
};
use crate::{
    Element, Family, Hook, SetKind, TableName,
    plan::{Plan, Step},
};

/// Called after every moment that a packet could see.
pub type Moment<'a> = &'a mut dyn FnMut(&FakeKernel);

impl FakeKernel {
    /// `ipset restore`.
    ///
    /// # Errors
    /// What ipset says. Lines before the bad one have taken effect.
    pub fn ipset_restore(&mut self, text: &str, moment: Moment<'_>) -> Result<(), String> {
        for (index, line) in text.lines().enumerate() {
            self.failure()
                .and_then(|()| self.set_line(line))
                .map_err(|error| format!("ipset v7.17: Error in line {}: {error}", index + 1))?;
            moment(self);
        }
        Ok(())
    }

    /// `iptables-restore --noflush`.
    ///
    /// # Errors
    /// What iptables says. Tables before the bad one have taken effect.
    pub fn iptables_restore(
        &mut self,
        family: Family,
        text: &str,
        moment: Moment<'_>,
    ) -> Result<(), String> {
        let mut open: Option<(TableName, Chains)> = None;
        for (index, line) in text.lines().enumerate() {
            let fail = |error: String| {
                format!(
                    "iptables-restore v1.8.9 (fake): {error}\nError occurred at line: {}",
                    index + 1
                )
            };
            if let Some(name) = line.strip_prefix('*') {
                let table = TableName::ALL
                    .into_iter()
                    .find(|table| table.as_str() == name)
                    .ok_or_else(|| fail(format!("no table {name}")))?;
                let chains = self.tables.get(&(family, table)).cloned();
                open = Some((table, chains.unwrap_or_default()));
            } else if line == "COMMIT" {
                let (table, chains) = open.take().ok_or_else(|| fail("no table".to_owned()))?;
                self.failure().map_err(fail)?;
                self.tables.insert((family, table), chains);
                moment(self);
            } else {
                let (_, chains) = open.as_mut().ok_or_else(|| fail("no table".to_owned()))?;
                self.rule_line(chains, line).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Runs a plan as a backend does.
    ///
    /// # Errors
    /// Of the first step that failed; a failing cleanup is none.
    pub fn run(&mut self, plan: &Plan, moment: Moment<'_>) -> Result<(), String> {
        for step in &plan.steps {
            match step {
                Step::Sets(_) => self.ipset_restore(&step.text(), moment)?,
                Step::Rules(rules) => {
                    self.iptables_restore(rules.family, &step.text(), moment)?;
                }
                Step::Cleanup(_) => {
                    let _ = self.ipset_restore(&step.text(), moment);
                }
            }
        }
        Ok(())
    }

    fn failure(&mut self) -> Result<(), String> {
        match self.fail_in {
            Some(0) => {
                self.fail_in = None;
                Err("Kernel error received: Device or resource busy".to_owned())
            }
            Some(n) => {
                self.fail_in = Some(n - 1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn set_line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let missing = || "The set with the given name does not exist".to_owned();
        match words.as_slice() {
            ["create", name, kind, "family", family, ..] => {
                if self.sets.contains_key(*name) {
                    return Err(
                        "Set cannot be created: set with the same name already exists".to_owned(),
                    );
                }
                let kind = SetKind::parse(kind).ok_or("Kernel error: unknown settype")?;
                let family = match *family {
                    "inet" => Family::V4,
                    _ => Family::V6,
                };
                self.sets.insert(
                    (*name).to_owned(),
                    FakeSet {
                        family,
                        kind,
                        elements: std::collections::BTreeSet::new(),
                    },
                );
                Ok(())
            }
            ["flush", name] => {
                self.sets
                    .get_mut(*name)
                    .ok_or_else(missing)?
                    .elements
                    .clear();
                Ok(())
            }
            [verb @ ("add" | "del"), name, element] => {
                let set = self.sets.get_mut(*name).ok_or_else(missing)?;
                let element = Element::parse(set.kind, element)
                    .filter(|element| element.family() == set.family)
                    .ok_or("Syntax error: cannot parse element")?;
                match (*verb, set.elements.contains(&element)) {
                    ("add", true) => {
                        Err("Element cannot be added to the set: it's already added".to_owned())
                    }
                    ("add", false) => {
                        set.elements.insert(element);
                        Ok(())
                    }
                    (_, true) => {
                        set.elements.remove(&element);
                        Ok(())
                    }
                    (_, false) => {
                        Err("Element cannot be deleted from the set: it's not added".to_owned())
                    }
                }
            }
            ["destroy", name] => {
                if !self.sets.contains_key(*name) {
                    return Err(missing());
                }
                if self.used_sets().contains(*name) {
                    return Err(
                        "Set cannot be destroyed: it is in use by a kernel component".to_owned(),
                    );
                }
                self.sets.remove(*name);
                Ok(())
            }
            _ => Err(format!("Unknown argument: {line}")),
        }
    }

    fn rule_line(&self, chains: &mut Chains, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix(':') {
            let name = rest.split(' ').next().unwrap_or_default();
            chains.insert(name.to_owned(), Vec::new());
            return Ok(());
        }
        let (verb, rest) = line.split_once(' ').ok_or("bad line")?;
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if verb == "-X" {
            return delete_chain(chains, name);
        }
        let (number, text) = match verb {
            "-I" => {
                let (number, text) = rest.split_once(' ').ok_or("bad line")?;
                let number: usize = number.parse().map_err(|_| "bad number".to_owned())?;
                (number, text)
            }
            _ => (0, rest),
        };
        let (rule, sets, target) = normalise(text)?;
        if let Some(set) = sets.iter().find(|set| !self.sets.contains_key(*set)) {
            return Err(format!("Set {set} doesn't exist."));
        }
        if let Some(target) = target
            && !chains.contains_key(&target)
        {
            return Err(format!("Chain '{target}' does not exist"));
        }
        let chain = chains
            .get_mut(name)
            .ok_or("No chain/target/match by that name.")?;
        match verb {
            "-A" => chain.push(rule),
            "-I" if number >= 1 && number <= chain.len() + 1 => chain.insert(number - 1, rule),
            "-I" => return Err("Index of insertion too big".to_owned()),
            "-D" => {
                let at = chain
                    .iter()
                    .position(|other| *other == rule)
                    .ok_or("Bad rule (does a matching rule exist in that chain?)")?;
                chain.remove(at);
            }
            _ => return Err(format!("unknown option {verb}")),
        }
        Ok(())
    }
}

fn delete_chain(chains: &mut Chains, name: &str) -> Result<(), String> {
    if Hook::from_chain(name).is_some() || !chains.contains_key(name) {
        return Err("No chain/target/match by that name.".to_owned());
    }
    if !chains[name].is_empty() {
        return Err("Directory not empty".to_owned());
    }
    let leads_here = |rule: &String| {
        rule.ends_with(&format!("-j {name}")) || rule.ends_with(&format!("-g {name}"))
    };
    if chains.values().flatten().any(leads_here) {
        return Err("Too many links".to_owned());
    }
    chains.remove(name);
    Ok(())
}
