//! JUnit XML: what CI systems read.

use std::{collections::BTreeMap, fmt::Write};

use super::libtest::{Case, Outcome};

/// The report of a suite: one `testsuite` per test program. `totals` are passed, failed, ignored.
pub(crate) fn text(suite: &str, cases: &[Case], totals: (u64, u64, u64), seconds: f64) -> String {
    let mut programs: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        programs.entry(&case.program).or_default().push(case);
    }
    let (passed, failed, ignored) = totals;
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<testsuites name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{ignored}\" time=\"{seconds:.3}\">",
        escape(suite),
        passed + failed + ignored,
    );
    for (program, cases) in programs {
        let count =
            |wanted: fn(&Outcome) -> bool| cases.iter().filter(|c| wanted(&c.outcome)).count();
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
            escape(program),
            cases.len(),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
            count(|outcome| *outcome == Outcome::Ignored),
        );
        for case in cases {
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}\"",
                escape(program),
                escape(&case.name)
            );
            let _ = match &case.outcome {
                Outcome::Passed => writeln!(text, "{head}/>"),
                Outcome::Ignored => writeln!(text, "{head}><skipped/></testcase>"),
                Outcome::Failed(output) => {
                    writeln!(
                        text,
                        "{head}><failure>{}</failure></testcase>",
                        escape(output)
                    )
                }
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// XML knows no escape for control characters; they are left out.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            other if other.is_control() => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{super::libtest::Results, *};

    #[test]
    fn report_holds_every_case_and_is_escaped() {
        let mut results = Results::default();
        for line in [
            "     Running unittests src/lib.rs (target/debug/deps/weft_a-01)",
            "test one ... ok",
            "test two ... FAILED",
            "---- two stdout ----",
            "a < b & \u{1b}[31mred",
            "failures:",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ] {
            results.line(line);
        }
        assert_eq!(
            text("unit", &results.cases, results.totals(), 1.5),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuites name=\"unit\" tests=\"2\" failures=\"1\" skipped=\"0\" time=\"1.500\">\n  \
             <testsuite name=\"weft_a\" tests=\"2\" failures=\"1\" skipped=\"0\">\n    \
             <testcase classname=\"weft_a\" name=\"one\"/>\n    \
             <testcase classname=\"weft_a\" name=\"two\"><failure>a &lt; b &amp; [31mred\n</failure></testcase>\n  \
             </testsuite>\n\
             </testsuites>\n"
        );
    }
}
