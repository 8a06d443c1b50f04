//! nftables in memory: takes scripts as `nft -f` does, all or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::nft::{Element, Kind, ListedChain, Set, elements};

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeTable {
    /// Sets and maps.
    pub sets: BTreeMap<String, Set>,
    /// Chains; rules as printed.
    pub chains: BTreeMap<String, ListedChain>,
}

/// The kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FakeNft {
    /// Tables by `family name`.
    pub tables: BTreeMap<String, FakeTable>,
    /// Scripts until one fails; `None`: never.
    fail_in: Option<usize>,
    /// Scripts that were taken.
    pub taken: Vec<String>,
}

const MISSING: &str = "Could not process rule: No such file or directory";
const BUSY: &str = "Could not process rule: Device or resource busy";

impl FakeNft {
    /// Lets the `n`th of the following scripts fail (0: the next).
    pub fn fail_after(&mut self, n: usize) {
        self.fail_in = Some(n);
    }

    /// `nft -n list table TABLE`.
    #[must_use]
    pub fn list(&self, table: &str) -> Option<String> {
        let FakeTable { sets, chains } = self.tables.get(table)?;
        let mut text = format!("table {table} {{\n");
        // Writing to a String cannot fail, here and below.
        for (name, set) in sets {
            let kind = set.kind;
            let _ = writeln!(text, "\t{} {name} {{", kind.keyword());
            let _ = writeln!(text, "\t\ttype {}", kind.type_name());
            if kind.interval() {
                text.push_str("\t\tflags interval\n");
            }
            if !set.elements.is_empty() {
                let all = set.elements.iter();
                let all: Vec<String> = all.map(|(key, data)| format!("{key}{data}")).collect();
                let _ = writeln!(text, "\t\telements = {{ {} }}", all.join(",\n\t\t\t     "));
            }
            text.push_str("\t}\n\n");
        }
        for (name, chain) in chains {
            let _ = writeln!(text, "\tchain {name} {{");
            for line in chain.base.iter().chain(&chain.rules) {
                let _ = writeln!(text, "\t\t{line}");
            }
            text.push_str("\t}\n\n");
        }
        text.push_str("}\n");
        Some(text)
    }

    /// `nft -f -`.
    ///
    /// # Errors
    /// What nft says. Nothing has taken effect.
    pub fn run(&mut self, script: &str) -> Result<(), String> {
        match self.fail_in {
            Some(0) => {
                self.fail_in = None;
                return Err("Could not process rule: Interrupted system call".to_owned());
            }
            Some(n) => self.fail_in = Some(n - 1),
            None => {}
        }
        let mut tables = self.tables.clone();
        for (index, line) in script.lines().enumerate() {
            command(&mut tables, line)
                .map_err(|error| format!("/dev/stdin:{}:1-9: Error: {error}", index + 1))?;
        }
        for table in tables.values() {
            table.check()?;
        }
        self.tables = tables;
        self.taken.push(script.to_owned());
        Ok(())
    }
}

impl FakeTable {
    /// Everything that is referred to exists.
    fn check(&self) -> Result<(), String> {
        let missing = |what: &str| Err(format!("{MISSING}: {what}"));
        for rule in self.chains.values().flat_map(|chain| &chain.rules) {
            let (sets, chain) = references(rule);
            if let Some(set) = sets.iter().find(|set| !self.sets.contains_key(**set)) {
                return missing(set);
            }
            if let Some(chain) = chain.filter(|chain| !self.chains.contains_key(*chain)) {
                return missing(chain);
            }
        }
        Ok(())
    }

    /// Sets and maps that rules look up. (A map and a chain may have one name.)
    fn looked_up(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| references(rule).0).collect()
    }

    /// Chains that rules and maps lead to.
    fn entered(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        let of_rules = rules.filter_map(|rule| references(rule).1);
        let data = self.sets.values().flat_map(|set| set.elements.values());
        let of_maps = data.filter_map(|data| match data {
            crate::nft::Data::Go(go) => Some(go.chain.as_str()),
            crate::nft::Data::None | crate::nft::Data::Mark(_) => None,
        });
        of_rules.chain(of_maps).collect()
    }
}

/// Sets, and the chain, that a rule refers to.
fn references(rule: &str) -> (Vec<&str>, Option<&str>) {
    let rule = rule.split(" comment ").next().unwrap_or_default();
    let words: Vec<&str> = rule.split(' ').collect();
    let sets = words.iter().filter_map(|word| word.strip_prefix('@'));
    let chain = words
        .windows(2)
        .find(|two| matches!(two[0], "jump" | "goto"))
        .map(|two| two[1]);
    (sets.collect(), chain)
}

fn command(tables: &mut BTreeMap<String, FakeTable>, line: &str) -> Result<(), String> {
    let (head, braces) = match line.split_once(" { ") {
        Some((head, rest)) => (head, rest.strip_suffix(" }")),
        None => (line, None),
    };
    let words: Vec<&str> = head.splitn(6, ' ').collect();
    let [verb, object, family, table, rest @ ..] = words.as_slice() else {
        return Err(format!("syntax error: {line}"));
    };
    let id = format!("{family} {table}");
    if *object == "table" {
        match *verb {
            "add" => {
                tables.entry(id).or_default();
            }
            _ => {
                tables.remove(&id).ok_or(MISSING)?;
            }
        }
        return Ok(());
    }
    let table = tables.get_mut(&id).ok_or(MISSING)?;
    let name = *rest.first().ok_or("syntax error: no name")?;
    match (*verb, *object) {
        ("add", "rule") => {
            let rule = rest.get(1).ok_or("syntax error: no rule")?;
            let chain = table.chains.get_mut(name).ok_or(MISSING)?;
            chain.rules.push((*rule).to_owned());
        }
        ("add", "chain") => {
            let chain = table.chains.entry(name.to_owned()).or_default();
            chain.base = braces.map(str::to_owned);
        }
        ("flush", "chain") => table.chains.get_mut(name).ok_or(MISSING)?.rules.clear(),
        ("delete", "chain") => {
            let chain = table.chains.get(name).ok_or(MISSING)?;
            if !chain.rules.is_empty() || table.entered().contains(name) {
                return Err(BUSY.to_owned());
            }
            table.chains.remove(name);
        }
        ("add", "set" | "map") => {
            let braces = braces.ok_or("syntax error: no type")?;
            let (type_name, rest) = braces
                .strip_prefix("type ")
                .and_then(|rest| rest.split_once(';'))
                .ok_or("syntax error: no type")?;
            let kind = Kind::parse(object, type_name, rest.trim() == "flags interval;");
            let set = Set::new(kind.ok_or("syntax error: type")?, []);
            table.sets.entry(name.to_owned()).or_insert(set);
        }
        ("delete", "set" | "map") => {
            if table.looked_up().contains(name) {
                return Err(BUSY.to_owned());
            }
            table.sets.remove(name).ok_or(MISSING)?;
        }
        ("flush", "set") => table.sets.get_mut(name).ok_or(MISSING)?.elements.clear(),
        ("add", "element") => add(table, name, braces.unwrap_or_default())?,
        ("delete", "element") => {
            let set = table.sets.get_mut(name).ok_or(MISSING)?;
            for key in crate::nft::split_elements(braces.unwrap_or_default()) {
                let key = Element::parse(set.kind, key).ok_or("syntax error: element")?;
                set.elements.remove(&key).ok_or(MISSING)?;
            }
        }
        _ => return Err(format!("syntax error: {line}")),
    }
    Ok(())
}

fn add(table: &mut FakeTable, name: &str, text: &str) -> Result<(), String> {
    let set = table.sets.get_mut(name).ok_or(MISSING)?;
    let new = elements(set.kind, text).ok_or_else(|| format!("syntax error: element {text}"))?;
    for (key, data) in new {
        if let crate::nft::Data::Go(go) = &data
            && !table.chains.contains_key(&go.chain)
        {
            return Err(MISSING.to_owned());
        }
        match set.elements.get(&key) {
            Some(held) if *held == data => {}
            Some(_) => return Err("Could not process rule: File exists".to_owned()),
            None => {
                let clash =
                    set.kind.interval() && set.elements.keys().any(|held| held.overlaps(&key));
                if clash {
                    return Err("conflicting intervals specified".to_owned());
                }
                set.elements.insert(key, data);
            }
        }
    }
    Ok(())
}
