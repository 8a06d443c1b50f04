//! Which chains and sets are ours: recognised by name alone (invariant I4).

use crate::TableName;

/// The names of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    chain_roots: Vec<String>,
    set_prefix: String,
    tables: Vec<TableName>,
}

impl Owner {
    /// Chains named `ROOT` or `ROOT-...` for each root, sets that start with `set_prefix` (which
    /// should end with a dash), in the iptables tables given.
    #[must_use]
    pub fn new(chain_roots: &[&str], set_prefix: &str, tables: &[TableName]) -> Self {
        Self {
            chain_roots: chain_roots.iter().map(|root| (*root).to_owned()).collect(),
            set_prefix: set_prefix.to_owned(),
            tables: tables.to_vec(),
        }
    }

    /// Is a chain of this name ours? `WEFT-NPC` and `WEFT-NPC-X` are, `WEFT-NPCX` is not.
    #[must_use]
    pub fn owns_chain(&self, name: &str) -> bool {
        self.chain_roots.iter().any(|root| {
            name.strip_prefix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    }

    /// Is a set of this name ours?
    #[must_use]
    pub fn owns_set(&self, name: &str) -> bool {
        name.starts_with(&self.set_prefix)
    }

    /// The iptables tables it uses.
    #[must_use]
    pub fn tables(&self) -> &[TableName] {
        &self.tables
    }
}
