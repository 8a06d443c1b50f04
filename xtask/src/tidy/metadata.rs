//! The part of `cargo metadata` that the checks look at.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::command::{command, output, workspace};

/// Crates of the workspace and of the whole tree.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metadata {
    /// By name.
    pub(super) members: BTreeMap<String, Member>,
    /// Every crate that is compiled for the targets of deny.toml.
    pub(super) tree: BTreeSet<Package>,
}

/// A crate of the workspace.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Member {
    /// Directory below the workspace.
    pub(super) directory: String,
    /// `package.metadata.weft.pure`.
    pub(super) pure: bool,
    /// Whether it has a binary target.
    pub(super) binary: bool,
    /// Root files of its targets (`src/lib.rs`, `tests/netns.rs`), below the workspace.
    pub(super) roots: BTreeSet<String>,
    /// Members it depends on, without dev-dependencies.
    pub(super) dependencies: BTreeSet<String>,
}

/// A crate of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// Name.
    pub(super) name: String,
    /// Version.
    pub(super) version: String,
    /// SPDX expression of its manifest.
    pub(super) licence: Option<String>,
    /// `registry+...`, `git+...`; none for a path.
    pub(super) source: Option<String>,
}

#[derive(Deserialize)]
struct Raw {
    packages: Vec<RawPackage>,
    workspace_members: BTreeSet<String>,
    resolve: RawResolve,
}

#[derive(Deserialize)]
struct RawResolve {
    nodes: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawNode {
    id: String,
}

#[derive(Deserialize)]
struct RawPackage {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: String,
    #[serde(default)]
    metadata: Value,
    targets: Vec<RawTarget>,
    dependencies: Vec<RawDependency>,
}

#[derive(Deserialize)]
struct RawTarget {
    kind: Vec<String>,
    src_path: String,
}

#[derive(Deserialize)]
struct RawDependency {
    name: String,
    kind: Option<String>,
}

/// Asks cargo.
///
/// # Errors
/// cargo failed, for instance because `Cargo.lock` is not up to date.
pub(super) fn read() -> Result<Metadata> {
    let text = output(command(
        "cargo",
        &[
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform=x86_64-unknown-linux-gnu",
        ],
    ))?;
    parse(&text, &workspace().to_string_lossy())
}

fn parse(text: &str, root: &str) -> Result<Metadata> {
    let raw: Raw = serde_json::from_str(text).context("parse the output of cargo metadata")?;
    let resolved: BTreeSet<&str> = raw
        .resolve
        .nodes
        .iter()
        .map(|node| node.id.as_str())
        .collect();
    let below = |path: &str| {
        path.strip_prefix(root)
            .unwrap_or(path)
            .trim_start_matches('/')
            .to_owned()
    };
    let names: BTreeSet<&str> = raw
        .packages
        .iter()
        .filter(|package| raw.workspace_members.contains(&package.id))
        .map(|package| package.name.as_str())
        .collect();
    let mut metadata = Metadata::default();
    for package in &raw.packages {
        if raw.workspace_members.contains(&package.id) {
            let is = |kind: &str| {
                package
                    .targets
                    .iter()
                    .any(|target| target.kind.iter().any(|k| k == kind))
            };
            metadata.members.insert(
                package.name.clone(),
                Member {
                    directory: below(package.manifest_path.trim_end_matches("/Cargo.toml")),
                    pure: package.metadata["weft"]["pure"] == Value::Bool(true),
                    binary: is("bin"),
                    roots: package.targets.iter().map(|t| below(&t.src_path)).collect(),
                    dependencies: package
                        .dependencies
                        .iter()
                        .filter(|d| d.kind.as_deref() != Some("dev"))
                        .filter(|d| names.contains(d.name.as_str()))
                        .map(|d| d.name.clone())
                        .collect(),
                },
            );
        }
        if resolved.contains(package.id.as_str()) {
            metadata.tree.insert(Package {
                name: package.name.clone(),
                version: package.version.clone(),
                licence: package.license.clone(),
                source: package.source.clone(),
            });
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_with_purity_roots_and_dependencies() {
        let text = r#"{
          "packages": [
            {"id": "a", "name": "weft-a", "version": "1.0.0", "license": "Apache-2.0", "source": null,
             "manifest_path": "/w/lib/a/Cargo.toml", "metadata": {"weft": {"pure": true}},
             "targets": [{"kind": ["lib"], "src_path": "/w/lib/a/src/lib.rs"}],
             "dependencies": [{"name": "weft-b", "kind": null}, {"name": "weft-c", "kind": "dev"},
                              {"name": "serde", "kind": null}]},
            {"id": "b", "name": "weft-b", "version": "1.0.0", "license": null, "source": null,
             "manifest_path": "/w/b/Cargo.toml", "metadata": null,
             "targets": [{"kind": ["bin"], "src_path": "/w/b/src/main.rs"}], "dependencies": []},
            {"id": "c", "name": "weft-c", "version": "1.0.0", "license": null, "source": null,
             "manifest_path": "/w/c/Cargo.toml", "targets": [], "dependencies": []},
            {"id": "s", "name": "serde", "version": "1.2.3", "license": "MIT", "source": "registry+x",
             "manifest_path": "/r/serde/Cargo.toml", "targets": [], "dependencies": []},
            {"id": "w", "name": "winapi", "version": "1.0.0", "license": "MIT", "source": "registry+x",
             "manifest_path": "/r/winapi/Cargo.toml", "targets": [], "dependencies": []}
          ],
          "workspace_members": ["a", "b", "c"],
          "resolve": {"nodes": [{"id": "a"}, {"id": "b"}, {"id": "s"}]}
        }"#;
        let metadata = parse(text, "/w").unwrap();
        assert_eq!(
            metadata.members["weft-a"],
            Member {
                directory: "lib/a".into(),
                pure: true,
                binary: false,
                roots: ["lib/a/src/lib.rs".into()].into(),
                dependencies: ["weft-b".into()].into(),
            }
        );
        assert!(metadata.members["weft-b"].binary);
        let tree: Vec<_> = metadata.tree.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(
            tree,
            ["serde", "weft-a", "weft-b"],
            "winapi is of another platform"
        );
    }
}
