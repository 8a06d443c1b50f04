//! What `iptables-save -t` and `ipset save` print, cut into chains and sets.

use std::collections::BTreeMap;

use super::words;
use crate::{Element, Family, SetKind};

/// A chain as printed: the words behind `-A NAME` of each rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedChain {
    /// Is it a built-in chain?
    pub builtin: bool,
    /// Its rules: the text behind the chain's name, as printed.
    pub rules: Vec<String>,
}

/// Chains of one table by name.
pub type SavedTable = BTreeMap<String, SavedChain>;

/// Reads the output of `iptables-save -t TABLE` (one table).
#[must_use]
pub fn read_iptables_save(text: &str) -> SavedTable {
    let mut chains = SavedTable::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            if let (Some(name), Some(policy)) = (words.next(), words.next()) {
                chains.entry(name.to_owned()).or_default().builtin = policy != "-";
            }
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (name, rule) = rest.split_once(' ').unwrap_or((rest, ""));
            chains
                .entry(name.to_owned())
                .or_default()
                .rules
                .push(rule.to_owned());
        }
    }
    chains
}

/// A set as printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSet {
    /// Its family and kind; `None` if it is of a type that we do not make.
    pub shape: Option<(Family, SetKind)>,
    /// Its elements; `None` in place of one that we would not write.
    pub elements: Vec<Option<Element>>,
}

/// Reads the output of `ipset save`, of the sets that `wanted` names.
#[must_use]
pub fn read_ipset_save(text: &str, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, SavedSet> {
    let mut sets: BTreeMap<String, SavedSet> = BTreeMap::new();
    for line in text.lines() {
        // Element lines are by far the most: they are cut without allocation.
        if let Some(rest) = line.strip_prefix("add ") {
            let mut parts = rest.split(' ');
            let (Some(name), Some(element)) = (parts.next(), parts.next()) else {
                continue;
            };
            let Some(set) = sets.get_mut(name) else {
                continue;
            };
            // Options behind the element (nomatch, timeout) are none of ours.
            let element = match (set.shape, parts.next()) {
                (Some((_, kind)), None) => Element::parse(kind, element),
                _ => None,
            };
            set.elements.push(element);
        } else if let Some(rest) = line.strip_prefix("create ") {
            let Some(words) = words(rest) else { continue };
            let Some(name) = words.first().filter(|name| wanted(name)) else {
                continue;
            };
            sets.insert(
                name.clone(),
                SavedSet {
                    shape: shape(&words),
                    elements: Vec::new(),
                },
            );
        }
    }
    sets
}

fn shape(words: &[String]) -> Option<(Family, SetKind)> {
    let kind = SetKind::parse(words.get(1)?)?;
    let at = words.iter().position(|word| word == "family")?;
    let family = match words.get(at + 1)?.as_str() {
        "inet" => Family::V4,
        "inet6" => Family::V6,
        _ => return None,
    };
    // A set that forgets its elements, or carries more with them, is not one we made.
    let odd = [
        "timeout", "counters", "comment", "skbinfo", "netmask", "markmask",
    ];
    (!words.iter().any(|word| odd.contains(&word.as_str()))).then_some((family, kind))
}
