//! `cargo xtask conformance`: the NetworkPolicy suite of upstream Kubernetes, built from the
//! version that the lab runs (`e2e/lab/programs/netpol`), against the lab.
//!
//! One run judges one configuration; its report is named by it, so that runs with other backends
//! stand beside each other in `target/reports/conformance`.

mod setting;

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

pub(crate) use setting::{BACKENDS, Setting};

use crate::{
    cluster,
    command::{at, command, stream},
    install, lab,
    test::{
        libtest::{Case, Outcome},
        report::{self, Report},
    },
};

/// Specs that are chosen. `Netpol` is the table-driven suite of sig-network.
const FOCUS: &str = r"\[sig-network\] Netpol";
/// Specs that are left out and named as not run: the kernel of the lab has no SCTP sockets.
const SKIP: &str = r"\[Feature:SCTPConnectivity\]";

/// Runs the suite once for each setting of npc, and puts the setting back that it found. One that
/// fails does not stop the others.
///
/// # Errors
/// No lab with weft, the suite cannot be built, or a run did not end as its setting must.
pub(crate) fn run(settings: &[Setting], arguments: &[String]) -> Result<()> {
    ensure!(
        cluster::is_up() && install::is_installed(),
        "conformance needs a running lab with weft: start one by `make demo`, or `make lab-up install`"
    );
    let program = lab::of_this_checkout()?.netpol()?;
    let proxy = lab::option("--proxy-mode")?;
    let before = setting::found()?;
    let mut failures = Vec::new();
    for setting in settings {
        let name = setting.configuration(&proxy);
        let result = setting
            .apply()
            .and_then(|()| suite(&program, &name, *setting, arguments));
        if let Err(error) = result {
            println!("conformance {name}: {error:#}");
            failures.push(name);
        }
    }
    setting::put_back(&before)?;
    ensure!(
        failures.is_empty(),
        "conformance did not end as it must with: {}",
        failures.join(", ")
    );
    Ok(())
}

fn suite(program: &Path, name: &str, setting: Setting, arguments: &[String]) -> Result<()> {
    let reports = at("target/reports/conformance");
    let json = report::empty(&reports, name)?;
    let title = format!("conformance {name}");
    println!("{title}");
    let begun = Instant::now();
    let line = arguments_of_the_suite(&json, arguments);
    let success = stream(command(&program.to_string_lossy(), &line), |line| {
        println!("{line}");
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let text = fs::read_to_string(&json)
        .with_context(|| format!("the suite wrote no report: {}", json.display()))?;
    let cases = cases(&text)?;
    let report = Report {
        title: &title,
        totals: report::totals(&cases),
        cases: &cases,
        seconds,
        words: ["specs", "the suite", "not run"],
    };
    for case in cases.iter().filter(|case| case.outcome == Outcome::Ignored) {
        println!("not run: {}", case.name);
    }
    for case in &cases {
        if matches!(case.outcome, Outcome::Failed(_)) {
            println!("failed: {}", case.name);
        }
    }
    report.write(&reports, name)?;
    if setting == Setting::Disabled {
        let (_, failed, _) = report.totals;
        ensure!(
            failed > 0,
            "every spec passed though npc enforced nothing: the suite shows nothing here"
        );
        return Ok(());
    }
    report.verdict(success)
}

/// What a caller gives comes last; a focus of the caller replaces ours, because ginkgo runs what
/// matches any of them.
fn arguments_of_the_suite(json: &Path, arguments: &[String]) -> Vec<String> {
    let mut line = vec![
        format!("--kubeconfig={}", cluster::kubeconfig().display()),
        "--provider=skeleton".into(),
        "--node-os-distro=custom".into(),
        format!("--ginkgo.skip={SKIP}"),
        "--ginkgo.silence-skips".into(),
        "--ginkgo.no-color".into(),
        "--ginkgo.timeout=3h".into(),
        format!("--ginkgo.json-report={}", json.display()),
    ];
    if !arguments.iter().any(|word| {
        word.trim_start_matches('-').starts_with("ginkgo.focus=")
            || word.trim_start_matches('-') == "ginkgo.focus"
    }) {
        line.push(format!("--ginkgo.focus={FOCUS}"));
    }
    line.extend(arguments.iter().cloned());
    line
}

/// What ginkgo writes, as far as it is read here.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Suite {
    #[serde(default)]
    spec_reports: Vec<Spec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    #[serde(default)]
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    message: String,
}

/// The specs of NetworkPolicy, run or not, and whatever else failed (the set-up of the suite).
fn cases(report: &str) -> Result<Vec<Case>> {
    let suites: Vec<Suite> = serde_json::from_str(report).context("read the report of ginkgo")?;
    let mut cases = Vec::new();
    for spec in suites.into_iter().flat_map(|suite| suite.spec_reports) {
        let mut words = spec.container_hierarchy_texts.unwrap_or_default();
        let of_the_suite = words
            .first()
            .is_some_and(|first| first.starts_with("[sig-network] Netpol"));
        words.push(match spec.leaf_node_type.as_str() {
            "It" => spec.leaf_node_text,
            other => format!("[{other}] {}", spec.leaf_node_text),
        });
        let outcome = match spec.state.as_str() {
            "passed" => Outcome::Passed,
            "skipped" | "pending" => Outcome::Ignored,
            other => Outcome::Failed(format!(
                "{other}: {}\n",
                spec.failure
                    .map(|failure| failure.message)
                    .unwrap_or_default()
            )),
        };
        let is_spec = spec.leaf_node_type == "It";
        // The framework brings specs of other features along; nothing selects them.
        let foreign = is_spec && !of_the_suite && outcome == Outcome::Ignored;
        let fixture = !is_spec && !matches!(outcome, Outcome::Failed(_));
        if !foreign && !fixture {
            cases.push(Case {
                program: "netpol".into(),
                name: words.join(" ").trim().to_owned(),
                outcome,
            });
        }
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(top: &str, text: &str, state: &str) -> Value {
        json!({
            "ContainerHierarchyTexts": [top, "between server and client"],
            "LeafNodeType": "It", "LeafNodeText": text, "State": state,
        })
    }

    #[test]
    fn specs_that_are_not_run_are_counted_by_name_and_other_features_are_not() {
        let mut timed_out = spec("[sig-network] Netpol", "c", "timedout");
        timed_out["Failure"] = json!({"Message": "too slow"});
        let report = json!([{"SpecReports": [
            {"ContainerHierarchyTexts": null, "LeafNodeType": "SynchronizedBeforeSuite",
             "LeafNodeText": "", "State": "passed"},
            spec("[sig-network] Netpol", "a", "passed"),
            spec("[sig-network] Netpol [Feature:SCTPConnectivity]", "b", "skipped"),
            timed_out,
            spec("[sig-storage] Volumes", "d", "skipped"),
        ]}]);
        let cases = cases(&report.to_string()).unwrap();
        let case = |name: &str, outcome| Case {
            program: "netpol".into(),
            name: name.into(),
            outcome,
        };
        assert_eq!(
            cases,
            [
                case(
                    "[sig-network] Netpol between server and client a",
                    Outcome::Passed
                ),
                case(
                    "[sig-network] Netpol [Feature:SCTPConnectivity] between server and client b",
                    Outcome::Ignored
                ),
                case(
                    "[sig-network] Netpol between server and client c",
                    Outcome::Failed("timedout: too slow\n".into())
                ),
            ]
        );
        assert_eq!(report::totals(&cases), (1, 1, 1));
    }

    #[test]
    fn failed_setup_of_the_suite_is_a_failure() {
        let report = json!([{"SpecReports": [
            {"LeafNodeType": "SynchronizedBeforeSuite", "LeafNodeText": "", "State": "failed",
             "Failure": {"Message": "no nodes"}},
            spec("[sig-network] Netpol", "a", "skipped"),
        ]}]);
        let cases = cases(&report.to_string()).unwrap();
        assert_eq!(report::totals(&cases), (0, 1, 1));
        assert_eq!(cases[0].name, "[SynchronizedBeforeSuite]");
    }

    #[test]
    fn focus_of_the_caller_replaces_ours() {
        let json = Path::new("r.json");
        let ours = arguments_of_the_suite(json, &[]);
        assert!(
            ours.contains(&format!("--ginkgo.focus={FOCUS}")),
            "{ours:?}"
        );
        let own = "--ginkgo.focus=egress".to_owned();
        let line = arguments_of_the_suite(json, std::slice::from_ref(&own));
        let focus: Vec<&String> = line.iter().filter(|word| word.contains("focus")).collect();
        assert_eq!(focus, [&own]);
    }
}
