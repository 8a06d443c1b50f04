//! `cargo xtask tidy`: rules of this repository that neither rustc nor clippy knows.
//!
//! Every check is a function from what it looks at (metadata, file texts) to a list of findings,
//! so that a test can show it biting; this file collects them and fails when there is one.

mod crates;
mod docs;
mod files;
mod licences;
mod metadata;
mod reachable;
mod suites;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::command::{at, command, output, workspace};

/// One thing that is wrong: where, what, and what to do.
type Finding = String;

/// Path below the workspace -> text.
type Sources = BTreeMap<String, String>;

/// Runs every check.
///
/// # Errors
/// There are findings (all are printed), or the repository cannot be read.
pub(crate) fn run() -> Result<()> {
    let metadata = metadata::read()?;
    let sources = sources()?;
    let deny = fs::read_to_string(at("deny.toml")).context("read deny.toml")?;

    let mut findings = Vec::new();
    let mut check = |name: &str, found: Vec<Finding>| {
        println!(
            "tidy: {name}: {}",
            if found.is_empty() {
                "ok".into()
            } else {
                format!("{} findings", found.len())
            }
        );
        findings.extend(
            found
                .into_iter()
                .map(|finding| format!("{name}: {finding}")),
        );
    };
    check(
        "pure crates reach no IO",
        crates::purity(&metadata, crates::tree)?,
    );
    check(
        "pure sources name no IO",
        crates::pure_sources(&metadata, &sources),
    );
    check("direction of dependencies", crates::direction(&metadata));
    check(
        "every source is reachable",
        reachable::orphans(&metadata, &sources),
    );
    check(
        "every netns test is run",
        suites::netns(&metadata, &sources),
    );
    check(
        "licences, sources, bans, duplicates",
        licences::check(&metadata, &deny)?,
    );
    check("length of files", files::length(&sources));
    check("paths of a machine", files::machine_paths(&sources));
    check("size of CRDs", files::large_crds(&sources));
    check("docs name every crate", docs::crates(&metadata, &sources));
    check("docs name tests that exist", docs::tests(&sources));
    if findings.is_empty() {
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
}

/// Text files of the repository as git sees them: tracked, and new ones that are not ignored.
fn sources() -> Result<Sources> {
    let list = output(command(
        "git",
        &[
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ],
    ))?;
    read(
        &workspace(),
        list.split('\0').filter(|name| !name.is_empty()),
    )
}

fn read<'a>(root: &Path, names: impl Iterator<Item = &'a str>) -> Result<Sources> {
    let mut sources = Sources::new();
    for name in names {
        let path = root.join(name);
        match fs::read(&path) {
            // What is not text is no source.
            Ok(bytes) => {
                if let Ok(text) = String::from_utf8(bytes) {
                    sources.insert(name.to_owned(), text);
                }
            }
            // Deleted but not yet committed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_files_are_no_sources_and_deleted_ones_are_skipped() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a.rs"), "fn a() {}").unwrap();
        fs::write(root.path().join("b.bin"), [0xff, 0xfe]).unwrap();
        let found = read(root.path(), ["a.rs", "b.bin", "gone.rs"].into_iter()).unwrap();
        assert_eq!(found, Sources::from([("a.rs".into(), "fn a() {}".into())]));
    }
}
