//! Rules about single files.

use super::{Finding, Sources};

/// Lines after which a source needs a written reason (tests not counted).
const LONGEST: usize = 800;

/// Longer files, with the reason.
const LONG: [(&str, &str); 0] = [];

/// Sources longer than the limit.
pub(super) fn length(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources {
        if !path.ends_with(".rs") || path.ends_with("/tests.rs") || path.contains("/tests/") {
            continue;
        }
        let lines = text.lines().count();
        let listed = LONG.iter().any(|(name, _)| name == path);
        if lines > LONGEST && !listed {
            findings.push(format!(
                "{path} has {lines} lines; split it by subject, or list it with a reason in xtask/src/tidy/files.rs"
            ));
        }
    }
    findings
}

/// Beginnings of paths that exist on one person's machine only.
const MACHINE: [&str; 3] = ["/work/", "/root/", "/home/"];

/// Files that name a path of one machine.
pub(super) fn machine_paths(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources {
        // This check and its tests name what they look for.
        if path == "xtask/src/tidy/files.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for machine in MACHINE {
                if names(line, machine) {
                    findings.push(format!("{path}:{}: a path below {machine}", number + 1));
                }
            }
        }
    }
    findings
}

/// Whether the path begins in `line`: not in the middle of another one (`target/work/`,
/// `https://host/work/`).
fn names(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        !line[..at].ends_with(|before: char| {
            before.is_alphanumeric() || matches!(before, '/' | '.' | '_' | '-' | '}' | ')' | '~')
        })
    })
}

/// Generated CRDs that are too large.
pub(super) fn large_crds(sources: &Sources) -> Vec<Finding> {
    sources
        .iter()
        .filter(|(path, text)| path.starts_with("crds/yaml/") && text.len() >= 100_000)
        .map(|(path, text)| format!("{path} has {} bytes, the limit is 100000", text.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, text: &str) -> Sources {
        Sources::from([(path.to_owned(), text.to_owned())])
    }

    #[test]
    fn a_long_source_is_found_and_a_long_test_is_not() {
        let text = "x\n".repeat(801);
        assert_eq!(length(&one("a/src/lib.rs", &text)).len(), 1);
        assert_eq!(length(&one("a/src/lib/tests.rs", &text)).len(), 0);
        assert_eq!(length(&one("a/src/lib.rs", &"x\n".repeat(800))).len(), 0);
    }

    #[test]
    fn a_path_of_a_machine_is_found_and_lookalikes_are_not() {
        assert_eq!(
            machine_paths(&one(
                "a.md",
                "see /work/main\n`/root/.cache`\nhttps://x/work/y ~/work/z"
            )),
            ["a.md:1: a path below /work/", "a.md:2: a path below /root/"]
        );
    }

    #[test]
    fn a_large_crd_is_found() {
        assert_eq!(
            large_crds(&one("crds/yaml/x.yaml", &"y".repeat(100_000))).len(),
            1
        );
        assert_eq!(large_crds(&one("crds/yaml/x.yaml", "small")).len(), 0);
    }
}
