//! Chains, jumps into them, and the whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{ChainName, Family, Hook, Match, Rule, Set, SetName, Verdict};

/// A table of iptables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// Before conntrack.
    Raw,
    /// Marks.
    Mangle,
    /// Address translation.
    Nat,
    /// Verdicts.
    #[default]
    Filter,
}

impl TableName {
    /// All, in the order in which a packet meets them.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    /// As iptables writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A chain of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// The iptables table it lives in.
    pub table: TableName,
    /// Its rules, in order; behind the last one it returns.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain of the table `filter`.
    #[must_use]
    pub fn filter(rules: Vec<Rule>) -> Self {
        Self {
            table: TableName::Filter,
            rules,
        }
    }
}

/// Where in a built-in chain a jump belongs.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// First. Of several such jumps in one table and hook, the order in [`Table::hooks`] counts.
    #[default]
    Top,
    /// Directly behind the last jump to this chain (somebody else's, say `WEFT-NPC`), or first if
    /// there is none.
    After(ChainName),
    /// Directly behind the last jump to any of these chains, or first if there is none.
    AfterAll(Vec<ChainName>),
}

/// A jump from a built-in chain into one of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HookJump {
    /// The built-in chain; the table is that of `to`.
    pub hook: Hook,
    /// Chain that is jumped to.
    pub to: ChainName,
    /// Only packets that match all of these.
    pub matches: Vec<Match>,
    /// Where.
    pub position: Position,
}

/// Everything of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Sets. ipset has one name space for both families, so names must differ between them.
    pub sets: BTreeMap<SetName, Set>,
    /// Chains. A name is used once per family, whatever the table.
    pub chains: BTreeMap<ChainName, Chain>,
    /// Jumps from built-in chains.
    pub hooks: Vec<HookJump>,
}

/// Everything that one owner wants in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// By family; one that is absent wants nothing there.
    pub tables: BTreeMap<Family, Table>,
}

impl Ruleset {
    /// Counts for metrics: (rules, sets, elements).
    #[must_use]
    pub fn size(&self) -> (usize, usize, usize) {
        self.tables.values().fold((0, 0, 0), |(r, s, e), table| {
            (
                r + table.chains.values().map(|c| c.rules.len()).sum::<usize>(),
                s + table.sets.len(),
                e + table.sets.values().map(|s| s.elements.len()).sum::<usize>(),
            )
        })
    }
}

impl Chain {
    /// Sets that its rules look up.
    #[must_use]
    pub fn sets(&self) -> BTreeSet<&SetName> {
        self.rules
            .iter()
            .flat_map(|rule| rule.matches.iter().filter_map(Match::set))
            .collect()
    }

    /// Chains that its rules lead to.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<&ChainName> {
        self.rules
            .iter()
            .filter_map(|rule| match &rule.verdict {
                Verdict::Jump(to) | Verdict::Goto(to) => Some(to),
                Verdict::Accept
                | Verdict::Drop
                | Verdict::Return
                | Verdict::SetMark { .. }
                | Verdict::Nflog { .. }
                | Verdict::Masquerade { .. }
                | Verdict::NoTrack => None,
            })
            .collect()
    }
}
