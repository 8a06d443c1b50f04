//! Licences, sources, bans and duplicates of the whole tree, by the rules of `deny.toml`.
//!
//! The part of cargo-deny that needs no network and no advisory database, read from the same file:
//! cargo-deny itself takes minutes to compile, more than every check of `make lint` together.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, ParseMode};

use super::{
    Finding,
    metadata::{Metadata, Package},
};

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
    sources: Sources,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
    skip: Vec<Ban>,
}

/// A crate (with `@version` or without) and the reason.
#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// Every rule.
pub(super) fn check(metadata: &Metadata, deny: &str) -> Result<Vec<Finding>> {
    let deny: Deny = toml::from_str(deny).context("parse deny.toml")?;
    let mut findings = Vec::new();
    for package in &metadata.tree {
        let name = format!("{} {}", package.name, package.version);
        findings.extend(licence(package, &deny.licenses.allow).map(|why| format!("{name}: {why}")));
        if let Some(source) = &package.source {
            let registry = source.strip_prefix("registry+");
            if !registry.is_some_and(|registry| deny.sources.allow_registry.contains(registry)) {
                findings.push(format!("{name}: source {source} is not allowed"));
            }
        }
        for ban in &deny.bans.deny {
            if ban.name == package.name {
                findings.push(format!("{name}: banned: {}", ban.reason));
            }
        }
    }
    findings.extend(duplicates(&metadata.tree, &deny.bans.skip));
    Ok(findings)
}

fn licence(package: &Package, allowed: &BTreeSet<String>) -> Option<String> {
    let Some(text) = &package.licence else {
        return Some("no licence in its manifest".into());
    };
    // Old manifests write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(text, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("licence `{text}`: {}", error.reason)),
    };
    let accept = |requirement: &LicenseReq| allowed.contains(&requirement.to_string());
    (!expression.evaluate(accept)).then(|| format!("licence `{text}` is not allowed by deny.toml"))
}

/// Crates in more than one version, unless all but one are listed with a reason; and entries of
/// the list that are of no use any more.
fn duplicates(tree: &BTreeSet<Package>, skip: &[Ban]) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in tree {
        versions
            .entry(&package.name)
            .or_default()
            .push(&package.version);
    }
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    for (name, versions) in versions {
        if versions.len() < 2 {
            continue;
        }
        let rest: Vec<&str> = versions
            .into_iter()
            .filter(|version| {
                let listed = skip.iter().find(|ban| {
                    ban.name == name
                        || ban
                            .name
                            .split_once('@')
                            .is_some_and(|(crate_name, wanted)| {
                                crate_name == name && version_matches(version, wanted)
                            })
                });
                if let Some(ban) = listed {
                    used.insert(ban.name.as_str());
                }
                listed.is_none()
            })
            .collect();
        if rest.len() > 1 {
            findings.push(format!(
                "{name} is in the tree as {}; unify, or list the older in deny.toml with a reason",
                rest.join(" and ")
            ));
        }
    }
    for ban in skip {
        if !used.contains(ban.name.as_str()) {
            findings.push(format!(
                "deny.toml skips {}, which is no duplicate",
                ban.name
            ));
        } else if ban.reason.trim().is_empty() {
            findings.push(format!("deny.toml skips {} without a reason", ban.name));
        }
    }
    findings
}

/// `0.2` matches `0.2.17`: a patch release must not break the list.
fn version_matches(version: &str, wanted: &str) -> bool {
    version == wanted || version.starts_with(&format!("{wanted}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Unicode-3.0"]
        [sources]
        allow-registry = ["https://index"]
        [bans]
        deny = [{ crate = "openssl-sys", reason = "static" }]
        skip = [{ crate = "syn@2.0", reason = "derive macros move slowly" }]
    "#;

    fn package(name: &str, version: &str, licence: &str, source: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            licence: Some(licence.into()),
            source: Some(source.into()),
        }
    }

    fn findings(tree: &[Package]) -> Vec<String> {
        let syn = ["2.0.1", "3.0.0"].map(|v| package("syn", v, "MIT", "registry+https://index"));
        let metadata = Metadata {
            members: BTreeMap::new(),
            tree: tree.iter().chain(&syn).cloned().collect(),
        };
        check(&metadata, DENY).unwrap()
    }

    #[test]
    fn allowed_licences_pass_in_every_spelling() {
        let tree = [
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR ISC) AND Unicode-3.0",
        ]
        .map(|licence| package(licence, "1.0.0", licence, "registry+https://index"));
        assert_eq!(findings(&tree), Vec::<String>::new());
    }

    #[test]
    fn a_copyleft_licence_a_git_source_and_a_banned_crate_are_found() {
        assert_eq!(
            findings(&[
                package("a", "1.0.0", "GPL-3.0-only", "registry+https://index"),
                package("b", "1.0.0", "MIT", "git+https://example.org/b"),
                package("openssl-sys", "1.0.0", "MIT", "registry+https://index"),
            ]),
            [
                "a 1.0.0: licence `GPL-3.0-only` is not allowed by deny.toml",
                "b 1.0.0: source git+https://example.org/b is not allowed",
                "openssl-sys 1.0.0: banned: static",
            ]
        );
    }

    #[test]
    fn a_duplicate_without_reason_and_a_reason_without_duplicate_are_found() {
        let tree = ["1.0.0", "2.0.0"].map(|v| package("a", v, "MIT", "registry+https://index"));
        assert_eq!(
            findings(&tree),
            [
                "a is in the tree as 1.0.0 and 2.0.0; unify, or list the older in deny.toml with a reason"
            ]
        );
        assert_eq!(
            duplicates(
                &BTreeSet::new(),
                &[Ban {
                    name: "x@1".into(),
                    reason: "r".into()
                }]
            ),
            ["deny.toml skips x@1, which is no duplicate"]
        );
    }
}
