//! What stays of a run in `target/reports`, and whether it passed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{
    junit,
    libtest::{Case, Outcome},
};

/// Passed, failed, not run.
pub(crate) type Totals = (u64, u64, u64);

/// Of these cases.
pub(crate) fn totals(cases: &[Case]) -> Totals {
    cases
        .iter()
        .fold((0, 0, 0), |(passed, failed, ignored), case| {
            match case.outcome {
                Outcome::Passed => (passed + 1, failed, ignored),
                Outcome::Failed(_) => (passed, failed + 1, ignored),
                Outcome::Ignored => (passed, failed, ignored + 1),
            }
        })
}

/// Where a program shall write what becomes a report: `<directory>/<name>.json`. What an earlier run
/// wrote there is removed, so that it is not read when this one dies.
///
/// # Errors
/// The directory cannot be made, or the old file not removed.
pub(crate) fn empty(directory: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let json = directory.join(format!("{name}.json"));
    if json.exists() {
        fs::remove_file(&json).with_context(|| format!("remove {}", json.display()))?;
    }
    Ok(json)
}

/// A run that is over.
pub(crate) struct Report<'a> {
    /// Of the suite, for people.
    pub(crate) title: &'a str,
    /// Every test.
    pub(crate) cases: &'a [Case],
    /// Those of the cases, or what the test programs said.
    pub(crate) totals: Totals,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What is run ("tests"), what runs it ("cargo test"), and what is said of those that were not
    /// run ("ignored").
    pub(crate) words: [&'static str; 3],
}

impl Report<'_> {
    /// Writes `<name>.xml` and `<name>.summary` into a directory that is there, and prints the
    /// summary.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> Result<()> {
        let (passed, failed, ignored) = self.totals;
        let summary = format!(
            "{}: {passed} passed, {failed} failed, {ignored} {} in {:.0} s\n",
            self.title, self.words[2], self.seconds
        );
        fs::write(
            directory.join(format!("{name}.xml")),
            junit::text(self.title, self.cases, self.totals, self.seconds),
        )
        .context("write the JUnit report")?;
        fs::write(directory.join(format!("{name}.summary")), &summary)
            .context("write the summary")?;
        print!("{summary}");
        Ok(())
    }

    /// Fails unless something ran and nothing failed; `success` is what the program said itself.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn verdict(&self, success: bool) -> Result<()> {
        let Self {
            title,
            totals: (passed, failed, _),
            words: [what, program, _],
            ..
        } = self;
        ensure!(*failed == 0, "{title}: {failed} {what} failed");
        ensure!(
            success,
            "{title}: {program} failed though none of its {what} did: see its output above"
        );
        ensure!(*passed > 0, "{title}: no {what} ran");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(success: bool, passed: u64, failed: u64) -> Result<(), String> {
        let report = Report {
            title: "x",
            cases: &[],
            totals: (passed, failed, 0),
            seconds: 1.0,
            words: ["tests", "cargo test", "ignored"],
        };
        report.verdict(success).map_err(|error| error.to_string())
    }

    #[test]
    fn a_suite_without_tests_fails() {
        assert_eq!(verdict(true, 0, 0), Err("x: no tests ran".into()));
    }

    #[test]
    fn a_suite_that_does_not_compile_fails() {
        let died = "x: cargo test failed though none of its tests did: see its output above";
        assert_eq!(verdict(false, 0, 0), Err(died.into()));
        assert_eq!(verdict(false, 3, 1), Err("x: 1 tests failed".into()));
        assert_eq!(verdict(true, 3, 0), Ok(()));
    }

    #[test]
    fn report_of_an_earlier_run_is_not_left() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("reports");
        let json = empty(&below, "x").unwrap();
        fs::write(&json, "[]").unwrap();
        assert_eq!(empty(&below, "x").unwrap(), json);
        assert!(!json.exists());
    }
}
