//! What `nft -n list table` printed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chain, Data, Element, Kind, Objects, Set, write_rule};

/// Not a listing of one table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a listing of a table: {0:?}")]
pub struct ReadError(String);

/// A table as listed. Rules stay text: what we write is what is printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sets and maps; `None`: one that we would not make.
    pub sets: BTreeMap<String, Option<Set>>,
    /// Chains.
    pub chains: BTreeMap<String, ListedChain>,
    /// It holds something else (a counter, a flowtable).
    pub odd: bool,
}

/// A chain as listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedChain {
    /// The line that makes it a base chain.
    pub base: Option<String>,
    /// Its rules.
    pub rules: Vec<String>,
}

/// Reads the listing of one table.
///
/// # Errors
/// [`ReadError`] with the line that is not understood.
pub fn read(text: &str) -> Result<Listing, ReadError> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let head = lines.next().unwrap_or_default();
    if !(head.starts_with("table ") && head.ends_with('{')) {
        return Err(ReadError(head.to_owned()));
    }
    let mut listing = Listing::default();
    while let Some(line) = lines.next() {
        if line == "}" {
            return Ok(listing);
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [keyword @ ("set" | "map"), name, "{"] => {
                let set = read_set(keyword, &mut lines);
                listing.sets.insert((*name).to_owned(), set);
            }
            ["chain", name, "{"] => {
                let mut chain = ListedChain::default();
                for line in lines.by_ref().take_while(|line| *line != "}") {
                    if line.starts_with("type ") && line.contains(" hook ") {
                        chain.base = Some(line.to_owned());
                    } else {
                        chain.rules.push(line.to_owned());
                    }
                }
                listing.chains.insert((*name).to_owned(), chain);
            }
            // Flags of the table, other objects.
            _ => {
                listing.odd = true;
                if line.ends_with('{') {
                    lines
                        .by_ref()
                        .take_while(|line| *line != "}")
                        .for_each(drop);
                }
            }
        }
    }
    Err(ReadError("no end".to_owned()))
}

fn read_set<'a>(keyword: &str, lines: &mut impl Iterator<Item = &'a str>) -> Option<Set> {
    let mut type_name = None;
    let mut interval = false;
    let mut known = true;
    let mut text = String::new();
    while let Some(line) = lines.next() {
        if line == "}" {
            break;
        }
        if let Some(name) = line.strip_prefix("type ") {
            type_name = Some(name);
        } else if line == "flags interval" {
            interval = true;
        } else if let Some(first) = line.strip_prefix("elements = {") {
            text.push_str(first);
            while !text.ends_with('}') {
                text.push(' ');
                text.push_str(lines.next()?);
            }
            text.pop();
        } else {
            known = false;
        }
    }
    let kind = Kind::parse(keyword, type_name?, interval)?;
    let elements = elements(kind, &text)?;
    known.then_some(Set { kind, elements })
}

/// The elements within braces, each as it stands.
pub(crate) fn split_elements(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

/// Elements of a set or map; `None`: one that we would not write.
pub(crate) fn elements(kind: Kind, text: &str) -> Option<BTreeMap<Element, Data>> {
    split_elements(text)
        .map(|element| {
            let (key, data) = match element.split_once(" : ") {
                Some((key, data)) => (key, Some(data)),
                None => (element, None),
            };
            Some((Element::parse(kind, key)?, Data::parse(kind, data)?))
        })
        .collect()
}

/// A listing in the words of what is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recognised {
    pub(super) objects: Objects,
    /// Chains that hold something else than is wanted.
    pub(super) broken: BTreeSet<String>,
    /// It cannot be led to what is wanted step by step.
    pub(super) rebuild: bool,
}

impl Listing {
    /// Which parts are as wanted.
    pub(super) fn recognise(self, wanted: &Objects) -> Recognised {
        let mut recognised = Recognised {
            rebuild: self.odd,
            ..Recognised::default()
        };
        for (name, set) in self.sets {
            match set {
                Some(set) => {
                    recognised.rebuild |=
                        wanted.sets.get(&name).is_some_and(|w| w.kind != set.kind);
                    recognised.objects.sets.insert(name, set);
                }
                None => recognised.rebuild = true,
            }
        }
        for (name, listed) in self.chains {
            let mut chain = Chain::default();
            // What a chain holds that is to be deleted does not matter.
            if let Some(wanted) = wanted.chains.get(&name) {
                let base = wanted.base.map(|base| base.to_string());
                recognised.rebuild |= base != listed.base;
                let same = listed.rules.len() == wanted.rules.len()
                    && (listed.rules.iter())
                        .zip(&wanted.rules)
                        .all(|(listed, wanted)| *listed == write_rule(wanted));
                if same {
                    chain = wanted.clone();
                } else {
                    recognised.broken.insert(name.clone());
                }
            }
            recognised.objects.chains.insert(name, chain);
        }
        recognised
    }
}
