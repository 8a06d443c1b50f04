//! What changes between two states of the table: elements of its sets, or the table as a whole.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

use weft_netfilter::nfnetlink::ElementChange;

use super::{
    PortRules, TABLE,
    element::{Element, of_port},
};

/// How a table that holds one state comes to hold another, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// By these elements. Those that leave come first: a port may change its MAC.
    Elements(Vec<Change>),
    /// Only by writing it anew.
    Table,
}

/// Elements that enter or leave one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    set: &'static str,
    add: bool,
    elements: Vec<Element>,
}

impl Change {
    /// As text for `nft -f`.
    fn text(&self) -> String {
        let elements: Vec<String> = self.elements.iter().map(Element::text).collect();
        format!(
            "{} element {TABLE} {} {{ {} }}",
            if self.add { "add" } else { "delete" },
            self.set,
            elements.join(", ")
        )
    }

    /// As the kernel takes it.
    #[must_use]
    pub fn encode(&self) -> ElementChange {
        ElementChange {
            set: self.set,
            add: self.add,
            keys: self.elements.iter().map(Element::key).collect(),
        }
    }
}

impl PortRules {
    /// What turns a table that holds `old` into one that holds `self`; `None` if they are equal. A
    /// change of the closed ports replaces the table.
    #[must_use]
    pub fn delta(&self, old: &Self) -> Option<Delta> {
        if self == old {
            return None;
        }
        if self.closed_udp != old.closed_udp {
            return Some(Delta::Table);
        }
        let mut changes = Vec::new();
        for (link, pod) in &old.ports {
            if self.ports.get(link) != Some(pod) {
                push(&mut changes, false, of_port(link, pod));
            }
        }
        for (link, pod) in &self.ports {
            if old.ports.get(link) != Some(pod) {
                push(&mut changes, true, of_port(link, pod));
            }
        }
        push(&mut changes, true, nodes(&self.nodes, &old.nodes));
        push(&mut changes, false, nodes(&old.nodes, &self.nodes));
        Some(Delta::Elements(changes))
    }
}

fn nodes(some: &BTreeSet<IpAddr>, others: &BTreeSet<IpAddr>) -> Vec<Element> {
    some.difference(others)
        .copied()
        .map(Element::Node)
        .collect()
}

/// Adds elements to the change of their set, or to a new one.
fn push(changes: &mut Vec<Change>, add: bool, elements: Vec<Element>) {
    for element in elements {
        let set = element.set();
        match changes.iter_mut().find(|c| c.set == set && c.add == add) {
            Some(change) => change.elements.push(element),
            None => changes.push(Change {
                set,
                add,
                elements: vec![element],
            }),
        }
    }
}

impl Delta {
    /// As text for one `nft -f`, from a table that holds some other state to one that holds `new`.
    #[must_use]
    pub fn text(&self, new: &PortRules) -> String {
        match self {
            Self::Table => new.render(),
            Self::Elements(changes) => changes.iter().fold(String::new(), |mut text, change| {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", change.text());
                text
            }),
        }
    }
}
