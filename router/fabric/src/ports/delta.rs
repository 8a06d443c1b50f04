//! What changes between two states of the table, as text for one `nft -f -`.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    PortRules, TABLE,
    render::{chain_of, elements, ndp_rules, words},
};
use crate::input::PodPort;

impl PortRules {
    /// Text that turns a table that holds `old` into one that holds `self`, in one transaction;
    /// `None` if they are equal. A change of the closed ports replaces the table.
    #[must_use]
    pub fn delta(&self, old: &Self) -> Option<String> {
        if self == old {
            return None;
        }
        if self.closed_udp != old.closed_udp {
            return Some(self.render());
        }
        let mut text = String::new();
        for (link, pod) in &old.ports {
            if self.ports.get(link) != Some(pod) {
                remove(&mut text, link.as_str(), pod);
            }
        }
        for (link, pod) in &self.ports {
            if old.ports.get(link) != Some(pod) {
                insert(&mut text, link.as_str(), pod);
            }
        }
        for (set, v4) in [("node4", true), ("node6", false)] {
            let new: BTreeSet<String> = words(&self.nodes, v4).into_iter().collect();
            let was: BTreeSet<String> = words(&old.nodes, v4).into_iter().collect();
            change(&mut text, "add", set, new.difference(&was));
            change(&mut text, "delete", set, was.difference(&new));
        }
        Some(text)
    }
}

fn change<'a>(
    text: &mut String,
    verb: &str,
    set: &str,
    elements: impl Iterator<Item = &'a String>,
) {
    let list: Vec<&str> = elements.map(String::as_str).collect();
    if !list.is_empty() {
        let _ = writeln!(
            text,
            "{verb} element {TABLE} {set} {{ {} }}",
            list.join(", ")
        );
    }
}

fn insert(text: &mut String, link: &str, pod: &PodPort) {
    let chain = chain_of(link);
    let _ = writeln!(text, "add chain {TABLE} {chain}");
    for rule in ndp_rules(pod) {
        let _ = writeln!(text, "add rule {TABLE} {chain} {rule}");
    }
    for (set, list) in elements(link, pod).sets {
        change(text, "add", set, list.iter());
    }
}

fn remove(text: &mut String, link: &str, pod: &PodPort) {
    for (set, list) in elements(link, pod).sets {
        change(text, "delete", set, list.iter());
    }
    let chain = chain_of(link);
    let _ = writeln!(
        text,
        "flush chain {TABLE} {chain}\ndelete chain {TABLE} {chain}"
    );
}
