//! The table of `make e2e-faults`: one row per experiment.

use serde::{Deserialize, Serialize};

/// How an experiment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict", content = "why")]
pub enum Verdict {
    /// Everything within its limits.
    Passed,
    /// What was not.
    Failed(Vec<String>),
    /// It cannot be done here, or another suite does it.
    NotRun(String),
}

/// Median, 99th percentile and largest of some times, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Median.
    pub p50: u64,
    /// 99th percentile, by nearest rank.
    pub p99: u64,
    /// Largest.
    pub max: u64,
}

impl Spread {
    /// Of `times`; none if there are none.
    #[must_use]
    pub fn of(mut times: Vec<u64>) -> Option<Self> {
        times.sort_unstable();
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        let max = *times.last()?;
        Some(Self {
            count: times.len(),
            p50: rank(50),
            p99: rank(99),
            max,
        })
    }
}

/// What was counted in an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Seconds of probing, rounded.
    pub seconds: u64,
    /// Forbidden attempts.
    pub forbidden: u64,
    /// Allowed attempts.
    pub allowed: u64,
    /// Forbidden attempts that were answered.
    pub wrongly_allowed: u64,
    /// Allowed attempts that were not answered.
    pub wrongly_refused: u64,
    /// Attempts that the prober could not make; they say nothing.
    pub untried: u64,
    /// Packets (UDP) and numbers (TCP) of the established allowed flows that were lost.
    pub lost: u64,
    /// Packets and numbers sent in them.
    pub held: u64,
    /// Longest silence in one of those flows.
    pub longest_gap_ms: u64,
    /// Longest time in which forbidden attempts were answered.
    pub longest_window_ms: u64,
    /// Longest time without a forbidden attempt on some target: a shorter window may be unseen.
    pub longest_pause_ms: u64,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `E2`.
    pub id: String,
    /// What was done.
    pub what: String,
    /// What the same attempts came to without an enforcer.
    pub control: String,
    /// What was counted.
    pub counts: Counts,
    /// How long repairs (restarts, cuts: see the notes) took.
    pub repair: Option<Spread>,
    /// What else a reader wants to know.
    pub notes: Vec<String>,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long the whole experiment took, rounded.
    pub took_seconds: u64,
}

const HEAD: [&str; 9] = [
    "experiment",
    "wrongly allowed",
    "window ms",
    "wrongly refused",
    "lost",
    "gap ms",
    "repair ms p50/p99",
    "verdict",
    "what",
];

impl Row {
    fn cells(&self) -> [String; 9] {
        let counts = &self.counts;
        let of = |part: u64, whole: u64| format!("{part} of {whole}");
        let measured = counts.seconds > 0;
        let number = |text: String| if measured { text } else { "-".into() };
        [
            self.id.clone(),
            number(of(counts.wrongly_allowed, counts.forbidden)),
            number(counts.longest_window_ms.to_string()),
            number(of(counts.wrongly_refused, counts.allowed)),
            number(of(counts.lost, counts.held)),
            number(counts.longest_gap_ms.to_string()),
            self.repair.map_or_else(
                || "-".into(),
                |spread| format!("{}/{}", spread.p50, spread.p99),
            ),
            match &self.verdict {
                Verdict::Passed => "passed".into(),
                Verdict::Failed(_) => "FAILED".into(),
                Verdict::NotRun(_) => "not run".into(),
            },
            self.what.clone(),
        ]
    }
}

/// The rows as a table for people, with controls, notes and reasons below it.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let cells: Vec<[String; 9]> = std::iter::once(HEAD.map(String::from))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let mut widths = [0; 9];
    for line in &cells {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &cells {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(widths) {
            row.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    for row in rows {
        text.push_str(&remarks(row));
    }
    text
}

/// Control, notes and reasons of one row.
fn remarks(row: &Row) -> String {
    let mut lines = Vec::new();
    if !row.control.is_empty() {
        lines.push(format!("control: {}", row.control));
    }
    lines.extend(row.notes.iter().cloned());
    match &row.verdict {
        Verdict::Passed => {}
        Verdict::Failed(reasons) => {
            lines.extend(reasons.iter().map(|reason| format!("FAILED: {reason}")));
        }
        Verdict::NotRun(why) => lines.push(format!("not run: {why}")),
    }
    let mut text = String::new();
    for line in lines {
        text.push_str(&format!("  {}: {line}\n", row.id));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, verdict: Verdict) -> Row {
        Row {
            id: id.into(),
            what: "npc is killed".into(),
            control: "100 of 100 forbidden attempts pass".into(),
            counts: Counts {
                seconds: 10,
                forbidden: 5000,
                allowed: 4990,
                held: 2000,
                longest_gap_ms: 12,
                ..Counts::default()
            },
            repair: Spread::of(vec![900, 1200]),
            notes: vec!["2 kills".into()],
            verdict,
            took_seconds: 15,
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        assert_eq!(
            Spread::of((1..=200).rev().collect()),
            Some(Spread {
                count: 200,
                p50: 100,
                p99: 198,
                max: 200
            })
        );
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(
            Spread::of(vec![7]),
            Some(Spread {
                count: 1,
                p50: 7,
                p99: 7,
                max: 7
            })
        );
    }

    #[test]
    fn table_shows_each_experiment_and_why_it_failed() {
        let mut away = row("E3", Verdict::NotRun("see the tests of npc".into()));
        away.counts = Counts::default();
        away.repair = None;
        away.control = String::new();
        away.notes = vec![];
        let rows = [
            row("E2", Verdict::Passed),
            away,
            row("E24", Verdict::Failed(vec!["open for 1300 ms".into()])),
        ];
        assert_eq!(
            table(&rows),
            "\
experiment  wrongly allowed  window ms  wrongly refused  lost       gap ms  repair ms p50/p99  verdict  what
E2          0 of 5000        0          0 of 4990        0 of 2000  12      900/1200           passed   npc is killed
E3          -                -          -                -          -       -                  not run  npc is killed
E24         0 of 5000        0          0 of 4990        0 of 2000  12      900/1200           FAILED   npc is killed
  E2: control: 100 of 100 forbidden attempts pass
  E2: 2 kills
  E3: not run: see the tests of npc
  E24: control: 100 of 100 forbidden attempts pass
  E24: 2 kills
  E24: FAILED: open for 1300 ms
"
        );
    }

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        for verdict in [
            Verdict::Passed,
            Verdict::NotRun("why".into()),
            Verdict::Failed(vec!["a".into(), "b".into()]),
        ] {
            let row = row("E2", verdict);
            let text = serde_json::to_string(&row).expect("JSON");
            assert_eq!(serde_json::from_str::<Row>(&text).expect("a row"), row);
        }
    }
}
