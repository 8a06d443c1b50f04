//! `cargo xtask e2e-faults`: starts `weft-faults` (`e2e/src/faults.rs`), which does the experiments
//! and prints their table, and turns its rows into JUnit.

use std::{fs, time::Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    cluster,
    command::{at, command, stream},
    install,
    test::{
        libtest::{Case, Outcome},
        report::{self, Report},
    },
};

/// Of the suite and its reports.
const NAME: &str = "e2e-faults";

/// Runs the experiments on the lab; `arguments` are those of `weft-faults`.
///
/// # Errors
/// No lab with weft, or an experiment failed.
pub(crate) fn run_on_lab(arguments: &[String]) -> Result<()> {
    ensure!(
        cluster::is_up() && install::is_installed(),
        "the fault experiments need a running lab with weft: start one by `make demo`, or \
         `make lab-up image install`"
    );
    let reports = at("target/reports");
    let json = report::empty(&reports, NAME)?;
    let begun = Instant::now();
    let mut line = vec![
        "run",
        "--quiet",
        "--locked",
        "--package",
        "weft-e2e",
        "--bin",
        "weft-faults",
        "--",
        "--json",
    ];
    let path = json.to_string_lossy();
    line.push(&path);
    line.extend(arguments.iter().map(String::as_str));
    let mut program = command("cargo", &line);
    // The experiments need the lab of this checkout, whatever cluster the caller works with.
    program.env("KUBECONFIG", cluster::kubeconfig());
    let success = stream(program, |line| println!("{line}"))?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = fs::read_to_string(&json)
        .with_context(|| format!("no experiment ended: {} was not written", json.display()))?;
    let cases = cases(&text)?;
    let report = Report {
        title: NAME,
        totals: report::totals(&cases),
        cases: &cases,
        seconds,
        words: ["experiments", "weft-faults", "not run"],
    };
    report.write(&reports, NAME)?;
    report.verdict(success)
}

/// What is read of a row.
#[derive(Deserialize)]
struct Row {
    id: String,
    what: String,
    verdict: String,
    #[serde(default)]
    why: Why,
    #[serde(default)]
    notes: Vec<String>,
}

/// Reasons of a failure, or the reason for not being run.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum Why {
    Many(Vec<String>),
    One(String),
    #[default]
    None,
}

fn cases(json: &str) -> Result<Vec<Case>> {
    let rows: Vec<Row> = serde_json::from_str(json).context("read the rows of weft-faults")?;
    let case = |row: Row| {
        let outcome = match row.verdict.as_str() {
            "passed" => Outcome::Passed,
            "notRun" => Outcome::Ignored,
            _ => {
                let reasons = match row.why {
                    Why::Many(reasons) => reasons,
                    Why::One(reason) => vec![reason],
                    Why::None => Vec::new(),
                };
                let lines: Vec<String> = reasons.into_iter().chain(row.notes).collect();
                Outcome::Failed(format!("{}\n", lines.join("\n")))
            }
        };
        Case {
            program: "faults".into(),
            name: format!("{} {}", row.id, row.what),
            outcome,
        }
    };
    Ok(rows.into_iter().map(case).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_cases() {
        let cases = cases(
            r#"[
                {"id": "E2", "what": "npc is killed", "verdict": "passed", "notes": ["20 kills"]},
                {"id": "E24", "what": "flushes", "verdict": "failed", "why": ["a", "b"], "notes": ["c"]},
                {"id": "E3", "what": "system calls", "verdict": "notRun", "why": "elsewhere"}
            ]"#,
        )
        .unwrap();
        let case = |name: &str, outcome| Case {
            program: "faults".into(),
            name: name.into(),
            outcome,
        };
        assert_eq!(
            cases,
            [
                case("E2 npc is killed", Outcome::Passed),
                case("E24 flushes", Outcome::Failed("a\nb\nc\n".into())),
                case("E3 system calls", Outcome::Ignored),
            ]
        );
        assert_eq!(report::totals(&cases), (1, 1, 1));
    }
}
