//! What a target (evaluator, rules, kernel) did with the table: no packet is left out in silence.

use std::collections::BTreeMap;
use std::fmt;

use super::{Case, Expectation};

/// A row: its number and clause.
type Row = (u8, &'static str);

/// Packets that were judged and that were not, row by row.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Row, Judged>,
    skipped: BTreeMap<(&'static str, Row), usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Judged {
    allowed: usize,
    denied: usize,
}

impl Tally {
    /// The target judged the packet.
    pub fn judged(&mut self, case: &Case, expectation: &Expectation) {
        let row = self.rows.entry((case.number, case.clause)).or_default();
        if expectation.allowed {
            row.allowed += 1;
        } else {
            row.denied += 1;
        }
    }

    /// The target cannot judge the packet.
    pub fn skipped(&mut self, case: &Case, _: &Expectation, reason: &'static str) {
        let row = (case.number, case.clause);
        self.rows.entry(row).or_default();
        *self.skipped.entry((reason, row)).or_default() += 1;
    }

    /// Packets that were judged.
    pub fn packets(&self) -> usize {
        self.rows.values().map(|row| row.allowed + row.denied).sum()
    }

    /// Packets that were not, by reason.
    pub fn reasons(&self) -> BTreeMap<&'static str, usize> {
        let mut reasons = BTreeMap::new();
        for ((reason, _), count) in &self.skipped {
            *reasons.entry(*reason).or_default() += count;
        }
        reasons
    }

    /// Numbers of the rows of which no allowed, or no denied, packet was judged.
    pub fn one_sided(&self) -> Vec<u8> {
        let weak = |row: &&Judged| row.allowed == 0 || row.denied == 0;
        let rows = self.rows.iter();
        rows.filter(|(_, row)| weak(row))
            .map(|((number, _), _)| *number)
            .collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, packets) = (self.rows.len(), self.packets());
        writeln!(f, "{packets} packets of {rows} rows judged")?;
        for ((reason, (number, clause)), count) in &self.skipped {
            writeln!(f, "  not judged, {reason}: {count} of {number} {clause}")?;
        }
        Ok(())
    }
}
