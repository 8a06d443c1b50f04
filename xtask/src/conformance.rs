//! `cargo xtask conformance`: the NetworkPolicy suite of upstream Kubernetes, built from the
//! version that the lab runs, against the lab.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    cluster,
    command::{at, command, exists, run},
    install, programs,
};

/// Specs that are chosen. `Netpol` is the table-driven suite of sig-network.
const FOCUS: &str = r"\[sig-network\] Netpol";
/// Specs that are left out: what needs a feature this version does not have.
const SKIP: &str = r"\[Feature:SCTPConnectivity\]|\[Feature:IPv6DualStack\]|\[Disruptive\]";

/// Runs the suite.
///
/// # Errors
/// No lab with weft, the suite cannot be built, or a spec failed.
pub(crate) fn suite(arguments: &[String]) -> Result<()> {
    ensure!(
        cluster::is_up() && install::is_installed(),
        "conformance needs a running lab with weft: start one by `make demo`, or `make lab-up install`"
    );
    let program = build()?;
    let reports = at("target/reports");
    fs::create_dir_all(&reports)?;
    let kubeconfig = cluster::kubeconfig();
    let mut line = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--provider=skeleton".into(),
        "--node-os-distro=custom".into(),
        format!("--ginkgo.focus={FOCUS}"),
        format!("--ginkgo.skip={SKIP}"),
        "--ginkgo.silence-skips".into(),
        "--ginkgo.no-color".into(),
        format!(
            "--ginkgo.junit-report={}",
            reports.join("conformance.xml").display()
        ),
    ];
    line.extend(arguments.iter().cloned());
    run(command(&program.to_string_lossy(), &line))
}

/// Builds `e2e.test`; minutes when cold.
fn build() -> Result<PathBuf> {
    let sources = at("e2e/lab/kubernetes");
    let go_mod = fs::read_to_string(sources.join("go.mod"))?;
    let version = programs::version(&go_mod, "k8s.io/kubernetes")?;
    let program = programs::cache()?.join(format!("e2e-test-{version}"));
    if program.is_file() {
        return Ok(program);
    }
    ensure!(
        exists("go"),
        "go is not installed: it builds the suite (https://go.dev/dl)"
    );
    println!("building the suite of Kubernetes {version} (six minutes when cold)");
    let partial = program.with_extension("partial");
    let out = partial.to_string_lossy();
    let mut build = command(
        "go",
        &[
            "test",
            "-c",
            "-ldflags",
            "-s -w",
            "-o",
            &out,
            "k8s.io/kubernetes/test/e2e",
        ],
    );
    build.current_dir(&sources).env("CGO_ENABLED", "0");
    run(build)?;
    fs::rename(&partial, &program).with_context(|| format!("keep {}", program.display()))?;
    Ok(program)
}
