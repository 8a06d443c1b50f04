//! Repository tasks: the lab, the image, generated files, tidy checks, test reports, the demo.
//!
//! Everything that a person calls through `make` and that is more than one command stands here.
//! It must not be needed to build or run weft itself.

#![allow(
    clippy::print_stdout,
    reason = "a command line program talks to its user"
)]

mod bench;
mod cluster;
mod command;
mod conformance;
mod demo;
mod faults;
mod generate;
mod image;
mod install;
mod lab;
mod mutants;
mod packages;
mod test;
mod tidy;
mod wait;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository tasks of weft")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A real Kubernetes cluster on this machine.
    Lab(lab::Lab),
    /// Build weft, start a cluster, install, and show it at work.
    Demo,
    /// Remove what the demo made, the cluster with it.
    DemoDown,
    /// Speed and footprint on the lab: target/reports/bench.json.
    Bench {
        /// Further arguments of `weft-bench run`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// What policies cost and how soon they are in force, in network namespaces of its own (root):
    /// target/reports/bench-policy.json.
    BenchPolicy {
        /// Further arguments of `weft-bench policy` (`--quick`, `--lab`, `--backends nftables`).
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Fault experiments on npc in the lab: target/reports/e2e-faults.json.
    E2eFaults {
        /// Arguments of `weft-faults`: `--only E2,E24`, `--short`, `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// NetworkPolicy suite of upstream Kubernetes against the lab: target/reports/conformance.
    Conformance {
        /// How npc shall be set up, one run each; it is put back afterwards. `disabled` shows that
        /// the suite can fail.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = conformance::BACKENDS)]
        policy: Vec<conformance::Setting>,
        /// Further arguments of upstream's e2e.test.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Make the image offline: target/image/weft.tar.
    Image {
        /// Processor it is for; another one than this machine's is cross-compiled.
        #[arg(long, value_enum, default_value_t = image::Arch::host())]
        arch: image::Arch,
    },
    /// helm install of the built image into the lab.
    Install,
    /// Write generated files (CRDs, charts, manifest, API reference).
    Gen {
        /// Only say what is stale, and fail if something is.
        #[arg(long)]
        check: bool,
    },
    /// Rules of this repository that neither rustc nor clippy knows.
    Tidy,
    /// Put faults into evaluator, compiler and renderers, one by one: the fast tests must notice.
    Mutants {
        /// Only those with one of these in their name.
        only: Vec<String>,
    },
    /// Run a test suite and report it to target/reports.
    Test {
        /// Which one.
        #[arg(value_enum)]
        suite: test::Suite,
        /// Further arguments of the test programs (a name, `--nocapture`).
        #[arg(last = true)]
        filter: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, without the backtrace of `fn main() -> Result`.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Lab(lab) => lab::run(lab),
        Task::Demo => demo::up(),
        Task::DemoDown => demo::down(),
        Task::Bench { arguments } => bench::run_on_lab(&arguments),
        Task::BenchPolicy { arguments } => bench::run_policy(&arguments),
        Task::E2eFaults { arguments } => faults::run_on_lab(&arguments),
        Task::Conformance { policy, arguments } => conformance::run(&policy, &arguments),
        Task::Image { arch } => image::build(arch).map(drop),
        Task::Install => install::run_in_lab(&image::build(image::Arch::host())?),
        Task::Gen { check } => generate::run(check),
        Task::Tidy => tidy::run(),
        Task::Mutants { only } => mutants::run(&only),
        Task::Test { suite, filter } => test::run(suite, &filter),
    }
}
