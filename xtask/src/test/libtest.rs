//! Reads what libtest prints for people; the machine-readable form is unstable.

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// It failed; what it printed.
    Failed(String),
    /// It was not run.
    Ignored,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// Test program (`weft_ipam`, `netns`, `doc weft_crds`).
    pub(crate) program: String,
    /// Path of the test in it.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Tests in the order in which they ended.
    pub(super) cases: Vec<Case>,
    program: String,
    /// A test whose verdict has not come yet: something that it started wrote to the output.
    open: Option<String>,
    /// The failed test whose output follows.
    section: Option<usize>,
    /// Sums of the `test result:` lines.
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Results {
    /// Takes the next line.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(program) = program(line) {
            self.end();
            self.program = program;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.end();
            self.passed += count(result, "passed");
            self.failed += count(result, "failed");
            self.ignored += count(result, "ignored");
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            let found = self
                .cases
                .iter()
                .rposition(|case| case.name == name && case.program == self.program);
            self.section = found;
        } else if line == "failures:" {
            self.section = None;
        } else if let Some(index) = self.section {
            if let Outcome::Failed(text) = &mut self.cases[index].outcome {
                text.push_str(line);
                text.push('\n');
            }
        } else if let Some((name, rest)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            self.end();
            self.open = Some(name.trim_end_matches(" - should panic").to_owned());
            self.verdict(rest);
        } else if self.open.is_some() {
            self.verdict(line);
        }
    }

    /// Ends a test that is still open: its program died in it.
    pub(super) fn end(&mut self) {
        self.section = None;
        if self.open.is_some() {
            self.failed += 1;
            self.close(Outcome::Failed(
                "the test program ended in this test\n".into(),
            ));
        }
    }

    /// Passed, failed, ignored.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        (self.passed, self.failed, self.ignored)
    }

    fn verdict(&mut self, text: &str) {
        // With other output in between, the verdict stands at the end of a line.
        let text = text.trim_end();
        if text == "ok" || text.ends_with("... ok") || is_timed(text, "ok") {
            self.close(Outcome::Passed);
        } else if text.ends_with("FAILED") || is_timed(text, "FAILED") {
            self.close(Outcome::Failed(String::new()));
        } else if text == "ignored" || text.starts_with("ignored, ") {
            self.close(Outcome::Ignored);
        } else if text.ends_with("ok") {
            self.close(Outcome::Passed);
        }
    }

    fn close(&mut self, outcome: Outcome) {
        if let Some(name) = self.open.take() {
            self.cases.push(Case {
                program: self.program.clone(),
                name,
                outcome,
            });
        }
    }
}

/// `ok <0.012s>`, as `--report-time` prints it.
fn is_timed(text: &str, word: &str) -> bool {
    text.strip_prefix(word)
        .is_some_and(|rest| rest.starts_with(" <") && rest.ends_with("s>"))
}

/// `     Running unittests src/lib.rs (target/debug/deps/weft_ipam-0123456789abcdef)` and
/// `   Doc-tests weft_ipam`.
fn program(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("doc {name}"));
    }
    let path = line
        .strip_prefix("Running ")?
        .rsplit_once('(')?
        .1
        .strip_suffix(')')?;
    let file = path.rsplit('/').next()?;
    Some(
        file.rsplit_once('-')
            .map_or(file, |(name, _)| name)
            .to_owned(),
    )
}

/// The number before `word` in `ok. 5 passed; 0 failed; 1 ignored; ...`.
fn count(result: &str, word: &str) -> u64 {
    let mut previous = "";
    for part in result.split([' ', ';']).filter(|part| !part.is_empty()) {
        if part == word {
            return previous.parse().unwrap_or(0);
        }
        previous = part;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Results {
        let mut results = Results::default();
        for line in text.lines() {
            results.line(line);
        }
        results.end();
        results
    }

    fn case(program: &str, name: &str, outcome: Outcome) -> Case {
        Case {
            program: program.into(),
            name: name.into(),
            outcome,
        }
    }

    #[test]
    fn programs_verdicts_and_output_of_failures_are_read() {
        let results = read(
            "\
   Compiling weft-a v0.1.0
     Running unittests src/lib.rs (target/debug/deps/weft_a-0123456789abcdef)

running 3 tests
test tests::one ... ok
test tests::two ... FAILED
test tests::three ... ignored, needs root

failures:

---- tests::two stdout ----

thread 'tests::two' panicked at a.rs:1:
left != right

failures:
    tests::two

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests weft_a

running 1 test
test a/src/lib.rs - f (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
",
        );
        assert_eq!(
            results.cases,
            vec![
                case("weft_a", "tests::one", Outcome::Passed),
                case(
                    "weft_a",
                    "tests::two",
                    Outcome::Failed(
                        "\nthread 'tests::two' panicked at a.rs:1:\nleft != right\n\n".into()
                    )
                ),
                case("weft_a", "tests::three", Outcome::Ignored),
                case("doc weft_a", "a/src/lib.rs - f (line 3)", Outcome::Passed),
            ]
        );
        assert_eq!(results.totals(), (2, 1, 1));
    }

    #[test]
    fn a_verdict_after_foreign_output_is_read() {
        let results = read(
            "\
     Running tests/netns.rs (target/debug/deps/netns-0123456789abcdef)
test links::one ... a child wrote this
ok
test links::two ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(
            results.cases,
            vec![
                case("netns", "links::one", Outcome::Passed),
                case("netns", "links::two", Outcome::Passed),
            ]
        );
        assert_eq!(results.totals(), (2, 0, 0));
    }

    #[test]
    fn a_program_that_dies_in_a_test_counts_as_its_failure() {
        let results =
            read("test tests::abort ... \nerror: test failed, to rerun pass `-p weft-a`\n");
        assert_eq!(results.totals(), (0, 1, 0));
    }
}
