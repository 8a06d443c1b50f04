//! `cargo xtask mutants`: are the fast tests of policy able to fail? Each fault of the list is put
//! into a copy of the tree, and one of the tests of those crates must notice.
//!
//! A fault is a replacement of a text that occurs exactly once. Where it does not any more, the
//! code has moved on and the list must follow: that is an error, not a survivor.

mod list;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{at, command, output, stream};

/// A fault.
struct Mutation {
    /// What would be wrong then.
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

/// What became of one.
enum Fate {
    /// By these tests, of this crate.
    Caught(&'static str, Vec<String>),
    Survived,
}

/// Seconds, beyond what the tests take on this machine without a fault. A test that does not end is a
/// test that failed.
const LIMIT: u64 = 300;
/// Words of the tests that notice most and take little: they are run before the others.
const QUICK: [&str; 4] = ["every_case", "every_change", "no_step", "plan::tests"];
/// As timeout(1) says it.
const UNLIMITED: u64 = 0;

/// Puts in every fault, or those with one of these in their name.
///
/// # Errors
/// A fault survived, or does not fit the code any more.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let chosen: Vec<&Mutation> = list::ALL
        .iter()
        .filter(|mutation| only.is_empty() || only.iter().any(|word| mutation.name.contains(word)))
        .collect();
    ensure!(!chosen.is_empty(), "no fault has {only:?} in its name");
    let tree = at("target/mutants");
    copy(&tree)?;
    let outdated: Vec<String> = chosen
        .iter()
        .filter_map(|mutation| mutated(&tree, mutation).err())
        .map(|error| error.to_string())
        .collect();
    ensure!(outdated.is_empty(), "outdated:\n{}", outdated.join("\n"));
    let limit = LIMIT + control(&tree)?;
    let mut survivors = Vec::new();
    println!("| fault | caught by | of | s |\n|---|---|---|---|");
    for mutation in chosen {
        let begun = Instant::now();
        let fate = fate(&tree, mutation, limit)?;
        let seconds = begun.elapsed().as_secs();
        match fate {
            Fate::Caught(package, tests) => {
                let more = match tests.len() {
                    0 | 1 => String::new(),
                    count => format!(" and {} more", count - 1),
                };
                let first = tests.first().map_or("no end", String::as_str);
                println!(
                    "| {} | {first}{more} | {package} | {seconds} |",
                    mutation.name
                );
            }
            Fate::Survived => {
                println!("| {} | NOBODY | | {seconds} |", mutation.name);
                survivors.push(mutation.name);
            }
        }
    }
    ensure!(
        survivors.is_empty(),
        "{} survived: {}",
        survivors.len(),
        survivors.join(", ")
    );
    Ok(())
}

/// Brings the copy up to the checkout as it is now, uncommitted changes too. What is the same is
/// not written, so that cargo does not build it again.
fn copy(tree: &Path) -> Result<()> {
    let listed = output(command(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    ))?;
    for name in listed.lines() {
        let Ok(text) = fs::read(at(name)) else {
            // Deleted, and not yet committed.
            continue;
        };
        write(&tree.join(name), &text)?;
    }
    Ok(())
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let parent = path.parent().context("a file is in a directory")?;
    fs::create_dir_all(parent)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The file with the fault.
fn mutated(tree: &Path, mutation: &Mutation) -> Result<(PathBuf, String, String)> {
    let path = tree.join(mutation.file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", mutation.file))?;
    let wrong = replaced(&text, mutation)?;
    Ok((path, text, wrong))
}

fn replaced(text: &str, mutation: &Mutation) -> Result<String> {
    let Mutation {
        name,
        file,
        from,
        to,
    } = mutation;
    match text.matches(from).count() {
        1 => Ok(text.replacen(from, to, 1)),
        count => bail!("outdated mutation {name:?}: {file} has {count} times {from:?}"),
    }
}

/// The crates whose tests may notice a fault in a file, the nearest first.
fn packages(file: &str) -> &'static [&'static str] {
    if file.starts_with("npc/policy/") {
        &["weft-policy", "weft-policy-compile"]
    } else if file.starts_with("npc/compile/") {
        &["weft-policy-compile"]
    } else {
        &["weft-netfilter", "weft-policy-compile"]
    }
}

fn fate(tree: &Path, mutation: &Mutation, limit: u64) -> Result<Fate> {
    let (path, right, wrong) = mutated(tree, mutation)?;
    fs::write(&path, wrong)?;
    let fate = judged(tree, mutation, limit);
    fs::write(&path, right)?;
    fate
}

fn judged(tree: &Path, mutation: &Mutation, limit: u64) -> Result<Fate> {
    let all: &[&str] = &[];
    let rounds = packages(mutation.file)
        .iter()
        .flat_map(|package| [(package, &QUICK[..]), (package, all)]);
    for (package, words) in rounds {
        let (success, said) = tests(tree, package, limit, words)?;
        if success {
            continue;
        }
        ensure!(
            said.iter()
                .any(|line| line.trim_start().starts_with("Running ")),
            "mutation {:?} does not build:\n{}",
            mutation.name,
            said.join("\n")
        );
        let failed = said.iter().filter_map(|line| {
            let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
            Some(name.rsplit("::").next().unwrap_or(name).to_owned())
        });
        return Ok(Fate::Caught(package, failed.collect()));
    }
    Ok(Fate::Survived)
}

/// Without a fault nothing fails; and what the crates depend on is built. The answer is the most
/// seconds that all tests of a crate took, three times.
fn control(tree: &Path) -> Result<u64> {
    let mut longest = 0;
    for package in ["weft-policy", "weft-netfilter", "weft-policy-compile"] {
        let begun = Instant::now();
        let (success, said) = tests(tree, package, UNLIMITED, &[])?;
        ensure!(
            success,
            "the tests of {package} fail without a fault:\n{}",
            said.join("\n")
        );
        longest = longest.max(begun.elapsed().as_secs());
    }
    Ok(3 * longest)
}

/// The fast tests of a crate of the copy, or those with one of these words in their name: whether
/// they passed, and what they said.
fn tests(tree: &Path, package: &str, limit: u64, words: &[&str]) -> Result<(bool, Vec<String>)> {
    let limit = limit.to_string();
    let line = [&limit, "cargo", "test", "--locked", "--lib", "--package"];
    let line = [&line[..], &[package, "--"], words].concat();
    let mut test = command("timeout", &line);
    // Not the checkout's target: there, one crate of both trees has one name.
    test.current_dir(tree)
        .env("CARGO_TARGET_DIR", at("target/mutants-target"))
        .env("CARGO_TERM_COLOR", "never")
        .env("RUST_BACKTRACE", "0");
    let mut said = Vec::new();
    let success = stream(test, |line| said.push(line.to_owned()))?;
    Ok((success, said))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_fits_the_code_and_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = list::ALL.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), list::ALL.len());
        assert!(names.len() >= 20, "only {}", names.len());
        for mutation in &list::ALL {
            let text = fs::read_to_string(at(mutation.file)).expect(mutation.file);
            let wrong = replaced(&text, mutation).expect(mutation.name);
            assert_ne!(wrong, text, "{}", mutation.name);
        }
    }

    #[test]
    fn a_text_that_is_not_there_once_is_outdated() {
        let mutation = Mutation {
            name: "n",
            file: "f",
            from: "a",
            to: "b",
        };
        assert_eq!(replaced("xax", &mutation).expect("once"), "xbx");
        for text in ["x", "aa"] {
            let error = replaced(text, &mutation).expect_err("not once").to_string();
            assert!(
                error.starts_with("outdated mutation \"n\": f has"),
                "{error}"
            );
        }
    }
}
