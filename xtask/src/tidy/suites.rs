//! Tests that plain `cargo test` ignores are run by a suite of `cargo xtask test`. One that no suite
//! runs looks like a test and is none.

use std::collections::BTreeSet;

use super::{Finding, Sources, metadata::Metadata, reachable::follow};

/// Says that a test is one of `make test-netns`.
const NETNS: &str = "#[ignore = \"needs root: own network namespaces\"]";
/// Roots of the only targets that `make test-netns` runs: those named `netns`.
const RUN: [&str; 2] = ["tests/netns.rs", "tests/netns/main.rs"];

/// Tests in network namespaces of their own in a target that `make test-netns` does not run.
pub(super) fn netns(metadata: &Metadata, sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in metadata.members.values() {
        for root in &member.roots {
            let below = root.strip_prefix(&member.directory).unwrap_or(root);
            if RUN.contains(&below.trim_start_matches('/')) {
                continue;
            }
            let mut reached = BTreeSet::new();
            follow(root, true, sources, &mut reached);
            for path in reached {
                let lines = sources.get(&path).into_iter().flat_map(|text| text.lines());
                let count = lines.filter(|line| line.trim() == NETNS).count();
                if count > 0 {
                    findings.push(format!(
                        "{path}: `make test-netns` runs none of its {count} tests in network \
                         namespaces, because the target {root} is not named netns; make the file a \
                         module of {}/{}",
                        member.directory, RUN[0]
                    ));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::metadata::Member;
    use super::*;

    #[test]
    fn a_netns_test_in_a_target_of_another_name_is_found_and_nothing_else() {
        let roots = [
            "a/src/lib.rs",
            "a/tests/netns.rs",
            "a/tests/netns_flows.rs",
            "a/tests/other/main.rs",
        ];
        let member = Member {
            directory: "a".into(),
            roots: roots.map(str::to_owned).into(),
            ..Member::default()
        };
        let metadata = Metadata {
            members: [("weft-a".into(), member)].into(),
            tree: [].into(),
        };
        let test = format!("#[test]\n{NETNS}\nfn a() {{}}\n");
        let twice = format!("mod tests {{\n    {NETNS}\n    fn a() {{}}\n    {NETNS}\n}}\n");
        let text = [
            ("a/src/lib.rs", "mod one;\n".to_owned()),
            ("a/src/one.rs", twice),
            (
                "a/tests/netns.rs",
                format!("#[path = \"netns/flows.rs\"]\nmod flows;\n{test}"),
            ),
            ("a/tests/netns/flows.rs", test.clone()),
            ("a/tests/netns_flows.rs", test),
            (
                "a/tests/other/main.rs",
                format!("// {NETNS}\n#[ignore = \"needs a cluster\"]\n"),
            ),
        ];
        let sources: Sources = text
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text))
            .collect();
        let why = |count, root: &str| {
            format!(
                "`make test-netns` runs none of its {count} tests in network namespaces, because \
                 the target {root} is not named netns; make the file a module of a/tests/netns.rs"
            )
        };
        assert_eq!(
            netns(&metadata, &sources),
            [
                format!("a/src/one.rs: {}", why(2, "a/src/lib.rs")),
                format!(
                    "a/tests/netns_flows.rs: {}",
                    why(1, "a/tests/netns_flows.rs")
                ),
            ]
        );
    }
}
