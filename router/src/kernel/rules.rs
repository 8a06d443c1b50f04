//! The router's chains and sets, through iptables and ipset.

use std::collections::BTreeMap;

use weft_crds::IptablesVariant;
use weft_netfilter::{
    Family, Ruleset, TableName,
    plan::{Observed, Owner, Saved, Step, diff},
};

use crate::exec;

/// Chains of the router start with one of these; sets with [`SETS`].
const ROOTS: [&str; 4] = ["WEFT-FORWARD", "WEFT-INPUT", "WEFT-NAT", "WEFT-RAW"];
/// Start of the names of our sets.
const SETS: &str = "weft-r-";
const TABLES: [TableName; 3] = [TableName::Raw, TableName::Nat, TableName::Filter];

/// Our rules as we last left them.
#[derive(Debug)]
pub struct RuleTable {
    variant: IptablesVariant,
    families: Vec<Family>,
    /// `-legacy` or `-nft`, once it was found out.
    suffix: Option<&'static str>,
    /// What is in the kernel, if we know.
    observed: Option<Observed>,
}

impl RuleTable {
    /// For a node whose configuration says `variant`; without `ipv6` the kernel has no ip6tables.
    #[must_use]
    pub fn new(variant: IptablesVariant, ipv6: bool) -> Self {
        let mut families = vec![Family::V4];
        if ipv6 {
            families.push(Family::V6);
        }
        Self {
            variant,
            families,
            suffix: None,
            observed: None,
        }
    }

    /// Makes the kernel hold `desired`; returns what was changed.
    ///
    /// # Errors
    /// For a person. What was done so far stays; the next call reads everything back.
    pub async fn apply(&mut self, desired: &Ruleset, verify: bool) -> Result<Vec<String>, String> {
        let desired = Ruleset {
            tables: desired
                .tables
                .iter()
                .filter(|(family, _)| self.families.contains(family))
                .map(|(family, table)| (*family, table.clone()))
                .collect(),
        };
        let suffix = self.suffix().await;
        let observed = match self.observed.take() {
            Some(observed) if !verify => observed,
            _ => self.read(suffix).await?,
        };
        let plan = diff(&observed, &desired).map_err(|e| e.to_string())?;
        let mut changes = Vec::new();
        for step in &plan.steps {
            let (program, args) = match step {
                Step::Sets(_) | Step::Cleanup(_) => ("ipset".to_owned(), &["restore"][..]),
                Step::Rules(rules) => (
                    format!("{}{suffix}-restore", prefix(rules.family)),
                    // Another writer of the same tables may hold the lock.
                    &["--noflush", "-w", "10"][..],
                ),
            };
            let done = exec::run(&program, args, &step.text()).await;
            match (step, done) {
                (_, Ok(_)) => changes.push(format!("{program}: {}", summary(&step.text()))),
                // The kernel may hold a set for a moment after its last rule went.
                (Step::Cleanup(_), Err(e)) => tracing::debug!(error = %e, "Set is still held"),
                (Step::Sets(_) | Step::Rules(_), Err(e)) => return Err(e.to_string()),
            }
        }
        let held = plan.steps.iter().any(|s| matches!(s, Step::Cleanup(_)));
        self.observed = (!held).then_some(plan.after);
        Ok(changes)
    }

    async fn read(&self, suffix: &str) -> Result<Observed, String> {
        let owner = Owner::new(&ROOTS, SETS, &TABLES);
        let mut saved = Saved {
            sets: exec::run("ipset", &["save"], "")
                .await
                .map_err(|e| e.to_string())?,
            ..Saved::default()
        };
        for family in &self.families {
            // One run prints all tables; they are told apart by their first line.
            let program = format!("{}{suffix}-save", prefix(*family));
            let text = exec::run(&program, &[], "")
                .await
                .map_err(|e| e.to_string())?;
            let mut by_name: BTreeMap<&str, &str> = BTreeMap::new();
            for part in text.split_inclusive("COMMIT\n") {
                if let Some((_, rest)) = part.split_once("\n*").or_else(|| part.split_once('*')) {
                    let name = rest.lines().next().unwrap_or_default();
                    by_name.insert(name, rest);
                }
            }
            for table in TABLES {
                let text = by_name.get(table.as_str()).copied().unwrap_or_default();
                saved.tables.insert((*family, table), text.to_owned());
            }
        }
        Ok(Observed::read(&owner, &saved))
    }

    /// The host's iptables: the one that has more rules, where nothing else is said. Both see every
    /// packet, but an accept in one does not lift a drop in the other.
    async fn suffix(&mut self) -> &'static str {
        if let Some(suffix) = self.suffix {
            return suffix;
        }
        let suffix = match self.variant {
            IptablesVariant::Legacy => "-legacy",
            IptablesVariant::Nft => "-nft",
            IptablesVariant::Auto => {
                let legacy = count("iptables-legacy-save").await;
                let nft = count("iptables-nft-save").await;
                if legacy > nft { "-legacy" } else { "-nft" }
            }
        };
        tracing::info!(variant = suffix.trim_start_matches('-'), "Chosen iptables");
        self.suffix = Some(suffix);
        suffix
    }
}

fn prefix(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// Rules that somebody else made.
async fn count(program: &str) -> usize {
    let text = exec::run(program, &[], "").await.unwrap_or_default();
    text.lines()
        .filter(|l| l.starts_with("-A ") && !l.contains("WEFT-"))
        .count()
}

fn summary(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} and {more} more lines"),
    }
}
