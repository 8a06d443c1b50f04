//! The steps of a plan and their text.

use std::{collections::BTreeMap, fmt, fmt::Write as _};

use super::Observed;
use crate::{ChainName, Element, Family, Hook, SetKind, SetName, TableName};

/// What must be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps; none: nothing to do.
    pub steps: Vec<Step>,
    /// What will be there when all steps are done.
    pub after: Observed,
}

/// One run of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One `ipset restore`. It is applied line by line; a failure leaves the lines before it.
    Sets(Vec<SetOp>),
    /// One `iptables-restore --noflush` of a family. Each table is applied at once or not at all.
    Rules(RulesStep),
    /// One `ipset restore` that only frees memory: the kernel may still hold a set for a moment
    /// after the last rule went, so failures are no errors; what is left is tried again.
    Cleanup(Vec<SetName>),
}

/// A line for `ipset restore`. Names are those in the kernel (a twin's has its suffix).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetOp {
    /// Makes a set.
    Create(SetName, Family, SetKind),
    /// Empties a set.
    Flush(SetName),
    /// Adds an element.
    Add(SetName, Element),
    /// Removes an element.
    Del(SetName, Element),
    /// Removes a set.
    Destroy(SetName),
}

/// Rules of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesStep {
    /// The family.
    pub family: Family,
    /// By table.
    pub tables: BTreeMap<TableName, TableStep>,
}

/// Changes of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableStep {
    /// Chains to empty or make, and fill with these rules (text as behind `-A CHAIN`).
    pub chains: BTreeMap<ChainName, Vec<String>>,
    /// Then these changes of built-in chains, in order.
    pub base: Vec<BaseOp>,
    /// Then these chains are deleted.
    pub delete: Vec<ChainName>,
}

/// A change of a built-in chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseOp {
    /// Deletes the first rule of this text.
    Delete(Hook, String),
    /// Inserts a rule so that it gets this number (from 1).
    Insert(Hook, usize, String),
}

/// Room of a set. It is a limit, not a reservation; ipset's own default is 65536.
pub const MAX_ELEMENTS: u32 = 1 << 20;

/// Lines of a repair that are shown.
const REPAIRS: usize = 20;

impl Plan {
    /// Is there nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What it would change of what packets meet, one line each; of many lines the first.
    #[must_use]
    pub fn repairs(&self) -> Vec<String> {
        let text: Vec<String> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Sets(_) => Some(format!("ipset restore:\n{}", step.text())),
                Step::Rules(rules) => Some(format!(
                    "{} iptables-restore --noflush:\n{}",
                    rules.family,
                    step.text()
                )),
                // Nothing looks these sets up.
                Step::Cleanup(_) => None,
            })
            .collect();
        let mut lines: Vec<String> = text
            .iter()
            .flat_map(|text| text.lines())
            .map(str::to_owned)
            .collect();
        let all = lines.len();
        if all > REPAIRS {
            lines.truncate(REPAIRS);
            lines.push(format!("and {} lines more", all - REPAIRS));
        }
        lines
    }
}

/// The plan as a person reads it, which is also what the tools get.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Sets(_) => writeln!(f, "# ipset restore")?,
                Step::Rules(rules) => writeln!(f, "# {} iptables-restore --noflush", rules.family)?,
                Step::Cleanup(_) => writeln!(f, "# ipset restore (cleanup)")?,
            }
            f.write_str(&step.text())?;
        }
        Ok(())
    }
}

impl Step {
    /// Standard input of the tool.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Sets(ops) => {
                for op in ops {
                    // Writing to a String cannot fail, here and below.
                    let _ = writeln!(text, "{op}");
                }
            }
            Self::Rules(rules) => rules.write(&mut text),
            Self::Cleanup(sets) => {
                for set in sets {
                    let _ = writeln!(text, "destroy {set}");
                }
            }
        }
        text
    }
}

impl fmt::Display for SetOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name, family, kind) => write!(
                f,
                "create {name} {} family {} hashsize 64 maxelem {MAX_ELEMENTS}",
                kind.ipset_type(),
                match family {
                    Family::V4 => "inet",
                    Family::V6 => "inet6",
                }
            ),
            Self::Flush(name) => write!(f, "flush {name}"),
            Self::Add(name, element) => write!(f, "add {name} {element}"),
            Self::Del(name, element) => write!(f, "del {name} {element}"),
            Self::Destroy(name) => write!(f, "destroy {name}"),
        }
    }
}

impl RulesStep {
    fn write(&self, text: &mut String) {
        for (table, step) in &self.tables {
            let _ = writeln!(text, "*{table}");
            // A chain that is declared is emptied, or made; one that is deleted must be empty.
            for chain in step.chains.keys().chain(&step.delete) {
                let _ = writeln!(text, ":{chain} - [0:0]");
            }
            for (chain, rules) in &step.chains {
                for rule in rules {
                    let _ = writeln!(text, "-A {chain}{rule}");
                }
            }
            for op in &step.base {
                let _ = match op {
                    BaseOp::Delete(hook, rule) => writeln!(text, "-D {}{rule}", hook.chain()),
                    BaseOp::Insert(hook, number, rule) => {
                        writeln!(text, "-I {} {number}{rule}", hook.chain())
                    }
                };
            }
            for chain in &step.delete {
                let _ = writeln!(text, "-X {chain}");
            }
            text.push_str("COMMIT\n");
        }
    }
}
