//! What crates may depend on (docs/architecture.md, "Code map").
//!
//! Binaries -> runtime and adapters -> pure crates -> IR and API types. Binaries never depend on
//! each other; they meet through the Kubernetes API, the CNI contract or the two unix sockets.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    Finding, Sources,
    metadata::{Member, Metadata},
};
use crate::command::{command, output};

/// Crates that do IO; no pure crate may reach one.
const IO: [&str; 8] = [
    "tokio",
    "kube-client",
    "kube-runtime",
    "nix",
    "rtnetlink",
    "netlink-sys",
    "netlink-proto",
    "hyper",
];

/// What the sources of a pure crate may not name, with the reason.
const WORDS: [(&str, &str); 10] = [
    ("std::process", "a pure crate starts no process"),
    ("std::env", "a pure crate knows no environment"),
    ("std::fs", "a pure crate reads and writes no file"),
    ("std::net::TcpStream", "a pure crate opens no socket"),
    ("std::net::UdpSocket", "a pure crate opens no socket"),
    ("std::thread", "a pure crate starts no thread"),
    ("SystemTime::now", "time is an argument"),
    ("Instant::now", "time is an argument"),
    ("rand::", "randomness is an argument"),
    (
        "RandomState",
        "iteration order would differ from run to run",
    ),
];

/// Layers of the code map, lowest first; a crate depends on lower layers, and inside its own layer
/// only where `SAME_LAYER` says so. Crates that are not named are binaries or tests of the top layer.
const LAYERS: [&[&str]; 3] = [
    // API types and intermediate representations, with adapters behind features.
    &["weft-crds", "weft-socket", "weft-netfilter", "weft-netlink"],
    // Decisions.
    &[
        "weft-ipam",
        "weft-fabric",
        "weft-policy",
        "weft-policy-compile",
        "weft-render",
    ],
    // How binaries run.
    &["weft-runtime"],
];

/// Edges inside one layer that are meant.
const SAME_LAYER: [(&str, &str); 1] = [("weft-policy-compile", "weft-policy")];

/// Programs that are part of the product: none may depend on another one.
const TOOLS: [&str; 6] = [
    "xtask",
    "weft-lab",
    "weft-e2e",
    "weft-bench",
    "weft-testkit",
    "weft-probe",
];

/// `cargo tree` of one crate, normal dependencies of the crate built alone.
pub(super) fn tree(name: &str) -> Result<String> {
    output(command(
        "cargo",
        &[
            "tree",
            "--locked",
            "--package",
            name,
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ],
    ))
}

/// Pure crates whose dependency tree reaches a crate that does IO.
pub(super) fn purity(
    metadata: &Metadata,
    tree: impl Fn(&str) -> Result<String>,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (name, member) in &metadata.members {
        if !member.pure {
            continue;
        }
        let tree = tree(name)?;
        for io in IO {
            if tree.lines().any(|line| line.split(' ').next() == Some(io)) {
                findings.push(format!(
                    "{name} is pure but reaches {io}; see `cargo tree -p {name} -e normal -i {io}`"
                ));
            }
        }
    }
    Ok(findings)
}

/// Lines of pure crates' sources that name IO. Tests may do so; an adapter behind a feature says
/// `weft: adapter` in its first line.
pub(super) fn pure_sources(metadata: &Metadata, sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, member) in metadata.members.iter().filter(|(_, member)| member.pure) {
        let directory = format!("{}/src/", member.directory);
        for (path, text) in sources.range(directory.clone()..) {
            if !path.starts_with(&directory) {
                break;
            }
            if !path.ends_with(".rs") || is_test(path) || is_adapter(text) {
                continue;
            }
            for (number, line) in text.lines().enumerate() {
                if line.trim() == "#[cfg(test)]" {
                    break;
                }
                let code = line.split("//").next().unwrap_or_default();
                for (word, reason) in WORDS {
                    if code.contains(word) {
                        findings.push(format!(
                            "{path}:{}: {word} in pure crate {name}: {reason}",
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    findings
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn is_adapter(text: &str) -> bool {
    text.lines()
        .next()
        .is_some_and(|line| line.contains("weft: adapter"))
}

/// Edges between members that go up or sideways.
pub(super) fn direction(metadata: &Metadata) -> Vec<Finding> {
    let layers: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer)))
        .collect();
    let mut findings = Vec::new();
    for (name, member) in &metadata.members {
        for dependency in &member.dependencies {
            if let Some(finding) = edge(metadata, &layers, name, member, dependency) {
                findings.push(finding);
            }
        }
    }
    findings
}

fn edge(
    metadata: &Metadata,
    layers: &BTreeMap<&str, usize>,
    name: &str,
    member: &Member,
    dependency: &str,
) -> Option<Finding> {
    let target = metadata.members.get(dependency)?;
    if TOOLS.contains(&dependency) && !TOOLS.contains(&name) {
        return Some(format!(
            "{name} -> {dependency}: the product does not depend on tools"
        ));
    }
    if member.binary && target.binary && !TOOLS.contains(&name) {
        return Some(format!(
            "{name} -> {dependency}: binaries do not depend on each other; they meet through the API or a socket"
        ));
    }
    if member.pure && !target.pure && !layers.contains_key(dependency) {
        return Some(format!(
            "{name} -> {dependency}: a pure crate depends on pure crates and IR only"
        ));
    }
    let (from, to) = (layers.get(name)?, layers.get(dependency)?);
    if from > to || SAME_LAYER.contains(&(name, dependency)) {
        return None;
    }
    Some(format!(
        "{name} -> {dependency}: dependencies go down the layers of xtask/src/tidy/crates.rs"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pure: bool, binary: bool, dependencies: &[&str]) -> Member {
        Member {
            directory: "d".into(),
            pure,
            binary,
            roots: [].into(),
            dependencies: dependencies.iter().map(|d| (*d).to_owned()).collect(),
        }
    }

    fn metadata(members: &[(&str, Member)]) -> Metadata {
        Metadata {
            members: members
                .iter()
                .map(|(name, member)| ((*name).to_owned(), member.clone()))
                .collect(),
            tree: [].into(),
        }
    }

    #[test]
    fn a_pure_crate_that_reaches_tokio_is_found() {
        let metadata = metadata(&[("weft-ipam", member(true, false, &[]))]);
        let tree = |_: &str| Ok("weft-ipam v0.1.0\ntokio v1.0.0\ntokio-util-free v1.0.0\n".into());
        assert_eq!(
            purity(&metadata, tree).unwrap(),
            [
                "weft-ipam is pure but reaches tokio; see `cargo tree -p weft-ipam -e normal -i tokio`"
            ]
        );
    }

    #[test]
    fn a_pure_source_that_reads_the_clock_is_found_and_tests_and_adapters_are_not() {
        let metadata = metadata(&[("weft-ipam", member(true, false, &[]))]);
        let bad = "fn f() {\n  std::time::SystemTime::now();\n}\n";
        let sources = Sources::from([
            ("d/src/lib.rs".into(), bad.into()),
            ("d/src/lib/tests.rs".into(), bad.into()),
            (
                "d/src/file.rs".into(),
                format!("//! weft: adapter, feature `file`.\n{bad}"),
            ),
            (
                "d/src/note.rs".into(),
                "// never SystemTime::now\n#[cfg(test)]\nInstant::now()".into(),
            ),
            ("e/src/lib.rs".into(), bad.into()),
        ]);
        assert_eq!(
            pure_sources(&metadata, &sources),
            ["d/src/lib.rs:2: SystemTime::now in pure crate weft-ipam: time is an argument"]
        );
    }

    #[test]
    fn a_binary_that_depends_on_a_binary_is_found() {
        let metadata = metadata(&[
            ("weft-router", member(false, true, &["weft-npc"])),
            ("weft-npc", member(false, true, &[])),
        ]);
        assert_eq!(direction(&metadata).len(), 1);
    }

    #[test]
    fn an_edge_up_the_layers_is_found_and_the_meant_ones_pass() {
        let metadata = metadata(&[
            ("weft-crds", member(true, false, &["weft-ipam"])),
            ("weft-ipam", member(true, false, &["weft-crds"])),
            ("weft-policy", member(true, false, &["weft-policy-compile"])),
            (
                "weft-policy-compile",
                member(true, false, &["weft-policy", "weft-netfilter"]),
            ),
            ("weft-netfilter", member(false, false, &[])),
            (
                "weft-router",
                member(false, true, &["weft-ipam", "weft-runtime", "weft-lab"]),
            ),
            ("weft-runtime", member(false, false, &[])),
            ("weft-lab", member(false, false, &[])),
        ]);
        let found = direction(&metadata);
        assert_eq!(
            found
                .iter()
                .map(|finding| finding.split(':').next().unwrap())
                .collect::<Vec<_>>(),
            [
                "weft-crds -> weft-ipam",
                "weft-policy -> weft-policy-compile",
                "weft-router -> weft-lab",
            ]
        );
    }
}
