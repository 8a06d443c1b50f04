//! What must be written: one transaction.

use std::{
    collections::BTreeSet,
    fmt::{self, Write as _},
};

use super::{Base, Kind, Listing, Objects, Owned, Set, Tables, read::Recognised, write_rule};

/// Elements on one line.
const LINE: usize = 200;

/// What is there: read back, or known from the last script that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// As listed; `None`: there is no such table.
    Listed {
        /// The table of family `inet`.
        inet: Option<Listing>,
        /// The table of family `bridge`.
        bridge: Option<Listing>,
    },
    /// Written by us.
    Written(Tables),
}

/// Input of `nft -f`: all of it takes effect at once, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The lines; empty: nothing to do.
    pub text: String,
    /// Are rules written (or only elements changed)?
    pub rules: bool,
}

/// The way from what is there to `wanted`.
#[must_use]
pub fn diff(owned: &Owned, observed: &Observed, wanted: &Tables) -> Script {
    let [inet, bridge] = owned.tables();
    let mut script = Script::default();
    match observed {
        Observed::Written(tables) => {
            table(
                &mut script,
                &inet,
                Some(&tables.inet),
                &BTreeSet::new(),
                &wanted.inet,
            );
            table(
                &mut script,
                &bridge,
                Some(&tables.bridge),
                &BTreeSet::new(),
                &wanted.bridge,
            );
        }
        Observed::Listed {
            inet: listed_inet,
            bridge: listed_bridge,
        } => {
            listed(&mut script, &inet, listed_inet.as_ref(), &wanted.inet);
            listed(&mut script, &bridge, listed_bridge.as_ref(), &wanted.bridge);
        }
    }
    script
}

fn listed(script: &mut Script, name: &str, listing: Option<&Listing>, wanted: &Objects) {
    let Some(listing) = listing else {
        table(script, name, None, &BTreeSet::new(), wanted);
        return;
    };
    let Recognised {
        objects,
        broken,
        rebuild,
    } = listing.clone().recognise(wanted);
    if wanted.is_empty() {
        script.rules = true;
        line(script, &format!("delete table {name}"));
    } else if rebuild {
        line(script, &format!("delete table {name}"));
        table(script, name, None, &BTreeSet::new(), wanted);
    } else {
        table(script, name, Some(&objects), &broken, wanted);
    }
}

fn line(script: &mut Script, text: &str) {
    script.text.push_str(text);
    script.text.push('\n');
}

/// `old`: `None` if there is no such table. A table is there as long as anything is wanted in it.
fn table(
    script: &mut Script,
    name: &str,
    old: Option<&Objects>,
    broken: &BTreeSet<String>,
    new: &Objects,
) {
    let empty = Objects::default();
    let there = old.is_some_and(|old| !old.is_empty());
    let old = old.unwrap_or(&empty);
    if new.is_empty() {
        if there {
            script.rules = true;
            line(script, &format!("delete table {name}"));
        }
        return;
    }
    // What exists needs no line; adding a table that exists is no error.
    let before = script.text.len();
    line(script, &format!("add table {name}"));
    let start = script.text.len();
    Writer { script, name }.write(old, broken, new);
    if script.text.len() == start && there {
        script.text.truncate(before);
    }
}

struct Writer<'a> {
    script: &'a mut Script,
    name: &'a str,
}

impl Writer<'_> {
    fn write(&mut self, old: &Objects, broken: &BTreeSet<String>, new: &Objects) {
        for (chain, wanted) in &new.chains {
            if !old.chains.contains_key(chain) {
                let base = wanted.base.map(|base| format!(" {{ {base} }}"));
                self.line("add chain", chain, &base.unwrap_or_default());
            }
        }
        for (name, wanted) in &new.sets {
            if !old.sets.contains_key(name) {
                let flags = if wanted.kind.interval() {
                    " flags interval;"
                } else {
                    ""
                };
                let (verb, of) = (wanted.kind.keyword(), wanted.kind.type_name());
                self.line(
                    &format!("add {verb}"),
                    name,
                    &format!(" {{ type {of};{flags} }}"),
                );
            }
        }
        let changed: Vec<&String> = new
            .chains
            .iter()
            .filter(|(chain, wanted)| {
                broken.contains(*chain)
                    || old
                        .chains
                        .get(*chain)
                        .is_none_or(|old| old.rules != wanted.rules)
            })
            .map(|(chain, _)| chain)
            .collect();
        let gone: Vec<&String> = old
            .chains
            .keys()
            .filter(|chain| !new.chains.contains_key(*chain))
            .collect();
        self.script.rules |= !changed.is_empty() || !gone.is_empty();
        // All references go before anything that is referred to.
        for chain in changed.iter().chain(&gone) {
            if old.chains.contains_key(*chain) {
                self.line("flush chain", chain, "");
            }
        }
        for (name, wanted) in &new.sets {
            match old.sets.get(name) {
                Some(before) => self.elements(name, before, wanted),
                None => self.list("add", name, wanted, |_| true),
            }
        }
        for chain in changed {
            for rule in &new.chains[chain].rules {
                self.line("add rule", chain, &format!(" {}", write_rule(rule)));
            }
        }
        // Maps that go hold on to chains that go.
        let (maps, sets): (Vec<_>, Vec<_>) = old
            .sets
            .iter()
            .filter(|(name, _)| !new.sets.contains_key(*name))
            .partition(|(_, set)| set.kind.keyword() == "map");
        for (name, set) in maps.iter().chain(&sets) {
            self.line(&format!("delete {}", set.kind.keyword()), name, "");
        }
        for chain in gone {
            self.line("delete chain", chain, "");
        }
    }

    fn line(&mut self, verb: &str, object: &str, rest: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.script.text, "{verb} {} {object}{rest}", self.name);
    }

    fn elements(&mut self, name: &str, old: &Set, new: &Set) {
        if old.elements == new.elements {
            return;
        }
        // nft compares new ranges with those that are there, also with those that go in the same
        // transaction. There are few of them, so they are written anew.
        if matches!(new.kind, Kind::Range(_)) {
            self.line("flush set", name, "");
            self.list("add", name, new, |_| true);
            return;
        }
        let differs = |key: &super::Element| old.elements.get(key) != new.elements.get(key);
        self.list("delete", name, old, differs);
        self.list("add", name, new, differs);
    }

    /// Elements of `set` that are picked. What is deleted is named by its key.
    fn list(&mut self, verb: &str, name: &str, set: &Set, pick: impl Fn(&super::Element) -> bool) {
        let picked: Vec<String> = set
            .elements
            .iter()
            .filter(|(key, _)| pick(key))
            .map(|(key, data)| match verb {
                "delete" => key.to_string(),
                _ => format!("{key}{data}"),
            })
            .collect();
        for some in picked.chunks(LINE) {
            let text = format!(" {{ {} }}", some.join(", "));
            self.line(&format!("{verb} element"), name, &text);
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "type filter hook {} priority {}; policy accept;",
            self.hook.chain().to_lowercase(),
            self.priority
        )
    }
}
