//! `cargo xtask bench`: starts `weft-bench`, which measures; this file only finds its inputs.

use anyhow::{Result, ensure};

use crate::{
    cluster,
    command::{at, command, run},
    image::Arch,
    install, lab, packages,
};

/// Measures on the lab with weft installed.
///
/// # Errors
/// No lab, weft is not installed, or a measurement failed.
pub(crate) fn run_on_lab(arguments: &[String]) -> Result<()> {
    ensure!(
        cluster::is_up() && install::is_installed(),
        "bench measures a running lab with weft: start one by `make demo`, or `make lab-up install`"
    );
    packages::install("bench", &["iperf3", "iproute2"])?;
    let plugins = lab::of_this_checkout()?.cni_plugins(Arch::host().name())?;
    let probe = at("target/x86_64-unknown-linux-gnu/release/weft-probe");
    ensure!(
        probe.exists(),
        "{} is missing: run `make image`",
        probe.display()
    );
    let plugins = plugins.to_string_lossy();
    // A release build: the CNI measurement runs inside this program.
    let mut line = vec![
        "run",
        "--release",
        "--quiet",
        "--locked",
        "--package",
        "weft-bench",
        "--",
        "run",
        "--plugins",
        &plugins,
    ];
    line.extend(arguments.iter().map(String::as_str));
    run(command("cargo", &line))
}
