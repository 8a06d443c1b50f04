//! `cargo xtask bench` and `bench-policy`: start `weft-bench`, which measures; this file only finds
//! its inputs.

use anyhow::{Result, ensure};

use crate::{
    cluster,
    command::{at, command, run},
    image::{self, Arch},
    install, lab, packages,
};

/// Measures on the lab with weft installed.
///
/// # Errors
/// No lab, weft is not installed, a node does not become Ready, or a measurement failed.
pub(crate) fn run_on_lab(arguments: &[String]) -> Result<()> {
    lab_is_ready()?;
    packages::install("bench", &["iperf3", "iproute2"])?;
    let plugins = lab::of_this_checkout()?.cni_plugins(Arch::host().name())?;
    let probe = at("target/x86_64-unknown-linux-gnu/release/weft-probe");
    ensure!(
        probe.exists(),
        "{} is missing: run `make image`",
        probe.display()
    );
    let plugins = plugins.to_string_lossy();
    weft_bench(&["run", "--plugins", &plugins], arguments)
}

/// A lab with weft, and its nodes Ready: before that its pods are not there.
fn lab_is_ready() -> Result<()> {
    ensure!(
        cluster::is_up() && install::is_installed(),
        "bench measures a running lab with weft: start one by `make demo`, or `make lab-up install`"
    );
    install::wait_for_nodes()
}

/// Measures policies in namespaces of its own; with `--lab` also in the lab that is up.
///
/// # Errors
/// A build or a measurement failed; with `--lab` also as [`run_on_lab`].
pub(crate) fn run_policy(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|word| word == "--lab") {
        lab_is_ready()?;
    }
    packages::install(
        "bench-policy",
        &["iptables", "ipset", "nftables", "conntrack", "iproute2"],
    )?;
    let programs = image::compile(Arch::host(), &["weft-npc"])?;
    let npc = programs.join("weft-npc");
    weft_bench(&["policy", "--npc", &npc.to_string_lossy()], arguments)
}

/// A release build: what is measured runs inside this program, or against its clock.
fn weft_bench(own: &[&str], arguments: &[String]) -> Result<()> {
    let mut line = vec![
        "run",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        "weft-bench",
        "--",
    ];
    line.extend(own);
    line.extend(arguments.iter().map(String::as_str));
    run(command("cargo", &line))
}
