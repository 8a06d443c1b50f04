//! Rows of `target/reports/bench.json` and `bench-policy.json`, and the table.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::sample::Spread;

/// What a ratio must satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Budget {
    /// Median at least this.
    AtLeast(f64),
    /// Median at most this.
    AtMost(f64),
    /// Reported only.
    None,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured against what.
    pub(crate) name: String,
    /// Where: profile of the underlay, backend of npc, or the lab.
    pub(crate) profile: String,
    /// Median of our figure, in the unit that `name` tells.
    pub(crate) ours: f64,
    /// Median of the other's figure.
    pub(crate) other: f64,
    /// `ours / other`, formed inside each round.
    pub(crate) ratio: Spread,
    /// The same for two runs of the same thing: how far from 1 it is, is noise.
    pub(crate) noise: Option<Spread>,
    /// Budget for the median of `ratio`.
    pub(crate) budget: Budget,
    /// Whether the budget holds (`null` without one).
    pub(crate) holds: Option<bool>,
}

impl Row {
    /// A row; `holds` follows from ratio and budget.
    pub(crate) fn new(
        name: &str,
        profile: &str,
        (ours, other): (f64, f64),
        ratio: Spread,
        noise: Option<Spread>,
        budget: Budget,
    ) -> Self {
        let holds = match budget {
            Budget::AtLeast(limit) => Some(ratio.median >= limit),
            Budget::AtMost(limit) => Some(ratio.median <= limit),
            Budget::None => None,
        };
        Self {
            name: name.to_owned(),
            profile: profile.to_owned(),
            ours,
            other,
            ratio,
            noise,
            budget,
            holds,
        }
    }
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) {
    let widest = |text: fn(&Row) -> &str, least: usize| {
        let widths = rows.iter().map(|row| text(row).len());
        widths.max().unwrap_or_default().max(least)
    };
    let (name, profile) = (widest(|row| &row.name, 4), widest(|row| &row.profile, 5));
    println!(
        "\n{:<name$} {:<profile$} {:>9} {:>9}  {:>20}  {:>20}  {:>8}  holds",
        "name", "prof.", "ours", "other", "ratio min/med/max", "noise min/med/max", "budget"
    );
    for row in rows {
        let spread = |s: &Spread| format!("{:.2}/{:.2}/{:.2}", s.min, s.median, s.max);
        let budget = match row.budget {
            Budget::AtLeast(limit) => format!(">= {limit:.2}"),
            Budget::AtMost(limit) => format!("<= {limit:.2}"),
            Budget::None => "-".to_owned(),
        };
        let holds = match row.holds {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        println!(
            "{:<name$} {:<profile$} {:>9.3} {:>9.3}  {:>20}  {:>20}  {:>8}  {holds}",
            row.name,
            row.profile,
            row.ours,
            row.other,
            spread(&row.ratio),
            row.noise.as_ref().map_or_else(|| "-".to_owned(), spread),
            budget,
        );
    }
}

/// Writes the report.
pub(crate) fn write(rows: &[Row], path: &Path) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(rows)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median: f64, budget: Budget) -> Option<bool> {
        let ratio = Spread {
            min: 0.0,
            median,
            max: 9.0,
        };
        Row::new("x", "full", (1.0, 1.0), ratio, None, budget).holds
    }

    #[test]
    fn a_budget_can_fail() {
        assert_eq!(row(0.79, Budget::AtLeast(0.8)), Some(false));
        assert_eq!(row(0.80, Budget::AtLeast(0.8)), Some(true));
        assert_eq!(row(1.21, Budget::AtMost(1.2)), Some(false));
        assert_eq!(row(1.0, Budget::None), None);
    }
}
