//! `cargo xtask test`: the suites of docs in CONTRIBUTING.md, run by cargo, reported as JUnit.
//!
//! A suite in which no test ran is a failure: a filter that matches nothing must not be green.

mod junit;
pub(crate) mod libtest;
pub(crate) mod report;

use std::{fs, time::Instant};

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    cluster,
    command::{at, command, stream},
    install, packages,
};
use report::Report;

/// What can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Without root, kernel or cluster.
    Unit,
    /// Against this kernel, in network namespaces of its own.
    Netns,
    /// The lab itself: comes up, goes down, leaves nothing. No lab may be up.
    Lab,
    /// Against a running cluster.
    E2e,
    /// All of them, with a cluster made for it.
    All,
}

/// Runs a suite; `filter` are further arguments for the test programs.
///
/// # Errors
/// A test failed, none ran, or the suite could not be started.
pub(crate) fn run(suite: Suite, filter: &[String]) -> Result<()> {
    match suite {
        Suite::Unit => unit(filter),
        Suite::Netns => netns(filter),
        Suite::Lab => lab(filter),
        Suite::E2e => e2e(filter),
        Suite::All => all(),
    }
}

fn unit(filter: &[String]) -> Result<()> {
    suite(
        "unit",
        &["--workspace", "--locked", "--no-fail-fast"],
        &[],
        filter,
    )
}

fn netns(filter: &[String]) -> Result<()> {
    packages::install(
        "tests against the kernel",
        &[
            "iptables",
            "ipset",
            "nftables",
            "conntrack",
            "iproute2",
            "iputils-ping",
            "strace",
        ],
    )?;
    suite(
        "netns",
        &[
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--test",
            "netns",
        ],
        &["--ignored", "--test-threads=1"],
        filter,
    )
}

fn lab(filter: &[String]) -> Result<()> {
    suite(
        "lab",
        &[
            "--package",
            "weft-lab",
            "--locked",
            "--no-fail-fast",
            "--test",
            "lifecycle",
        ],
        &["--ignored", "--test-threads=1"],
        filter,
    )
}

fn e2e(filter: &[String]) -> Result<()> {
    suite(
        "e2e",
        &["--package", "weft-e2e", "--locked", "--no-fail-fast"],
        &["--ignored", "--test-threads=1"],
        filter,
    )
}

/// Every suite, the cheap ones first. A cluster that was already up is used and stays up.
fn all() -> Result<()> {
    unit(&[])?;
    netns(&[])?;
    let ours = !cluster::is_up();
    if ours {
        lab(&[])?;
    } else {
        println!("a lab is up and is used; its own tests need it to be down and are not run");
    }
    let result = on_a_cluster(ours);
    if ours {
        println!("taking down the cluster that the tests started");
        let down = cluster::down();
        result?;
        return down;
    }
    result
}

fn on_a_cluster(up: bool) -> Result<()> {
    let archive = crate::image::build(crate::image::Arch::host())?;
    if up {
        cluster::up()?;
    }
    install::run_in_lab(&archive)?;
    e2e(&[])
}

/// One `cargo test` with its report in `target/reports`.
fn suite(name: &str, cargo: &[&str], harness: &[&str], filter: &[String]) -> Result<()> {
    let mut line = vec!["test"];
    line.extend(cargo);
    line.push("--");
    line.extend(harness);
    line.extend(filter.iter().map(String::as_str));
    let mut test = command("cargo", &line);
    test.env("CARGO_TERM_COLOR", "never");
    if name == "e2e" {
        cluster::environment(&mut test)?;
    }
    let reports = at("target/reports");
    fs::create_dir_all(&reports)?;
    let begun = Instant::now();
    let mut results = libtest::Results::default();
    let success = stream(test, |line| {
        println!("{line}");
        results.line(line);
    })?;
    results.end();
    let report = Report {
        title: name,
        cases: &results.cases,
        totals: results.totals(),
        seconds: begun.elapsed().as_secs_f64(),
        words: ["tests", "cargo test", "ignored"],
    };
    report.write(&reports, name)?;
    report.verdict(success)
}
