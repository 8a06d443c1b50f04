//! Docs that describe code are held to it: the code map names every crate, and a test that the
//! docs promise exists.

use std::collections::BTreeSet;

use super::{Finding, Sources, metadata::Metadata};

const MAP: &str = "docs/architecture.md";
/// Docs whose `code` words with three underscores or more are names of tests.
const PROMISES: [&str; 2] = [MAP, "docs/compat.md"];

/// Members that the code map does not name.
pub(super) fn crates(metadata: &Metadata, sources: &Sources) -> Vec<Finding> {
    let Some(map) = sources.get(MAP) else {
        return vec![format!("{MAP} does not exist")];
    };
    metadata
        .members
        .keys()
        .filter(|name| !map.contains(&format!("`{name}`")))
        .map(|name| format!("{MAP} does not name the crate `{name}`"))
        .collect()
}

/// Tests that the docs name and that no source has.
pub(super) fn tests(sources: &Sources) -> Vec<Finding> {
    let mut functions = BTreeSet::new();
    for (path, text) in sources {
        if !path.ends_with(".rs") {
            continue;
        }
        for line in text.lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = line.strip_prefix("async ").unwrap_or(line);
            if let Some(name) = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split(['(', '<']).next())
            {
                functions.insert(name);
            }
        }
    }
    let mut findings = Vec::new();
    for doc in PROMISES {
        let Some(text) = sources.get(doc) else {
            findings.push(format!("{doc} does not exist"));
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            for name in promised(line) {
                if !functions.contains(name) {
                    findings.push(format!("{doc}:{}: no test is named {name}", number + 1));
                }
            }
        }
    }
    findings
}

/// Names between backticks that look like a test: sentences in snake case.
fn promised(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2).filter_map(|word| {
        let name = word.rsplit("::").next().unwrap_or(word);
        let snake = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        (snake && name.matches('_').count() >= 3).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Member;
    use super::*;

    fn sources(map: &str) -> Sources {
        Sources::from([
            (MAP.to_owned(), map.to_owned()),
            ("docs/compat.md".to_owned(), String::new()),
            (
                "a.rs".to_owned(),
                "    async fn a_pod_reaches_a_pod() {\n".to_owned(),
            ),
        ])
    }

    #[test]
    fn a_crate_that_the_map_leaves_out_is_found() {
        let metadata = Metadata {
            members: ["weft-a", "weft-b"]
                .map(|name| (name.to_owned(), Member::default()))
                .into(),
            tree: [].into(),
        };
        assert_eq!(
            crates(&metadata, &sources("- `weft-a`: does a")),
            ["docs/architecture.md does not name the crate `weft-b`"]
        );
    }

    #[test]
    fn a_promised_test_that_does_not_exist_is_found() {
        let text = "`a_pod_reaches_a_pod`, `nf_call_iptables`, `mod::no_test_of_this_name`";
        assert_eq!(
            tests(&sources(text)),
            ["docs/architecture.md:1: no test is named no_test_of_this_name"]
        );
    }
}
