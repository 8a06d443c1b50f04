//! `make bench`: what weft costs, as ratios taken in one run on the lab. `make bench-policy`: what
//! its policies cost, in namespaces without a lab ([`policy`]).
//!
//! Every figure is paired: the thing measured and what it is compared with run in turn within one
//! round (A B C C B A), and the ratio is formed inside the round. A control pair (the same thing
//! twice) tells how much of a ratio is noise. Rows go to `target/reports/bench.json` and to a
//! table. The crate drives other programs (iperf3, weft-probe, CNI plugins); it must not link any
//! crate that it measures.

#![allow(
    clippy::print_stdout,
    reason = "a command line program talks to its user"
)]

mod cni;
mod dataplane;
mod node;
mod pods;
mod policy;
mod report;
mod rss;
mod sample;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Paired measurements on a running lab with weft installed.
#[derive(Parser)]
#[command(name = "weft-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run every measurement and write the report.
    Run(Run),
    /// Measure policies and write the report.
    Policy(Policy),
    /// Try to connect for ever (started by `policy`).
    #[command(hide = true)]
    Attempting(policy::Attempting),
    /// Time CNI plugins from inside a node (started by `run`).
    #[command(hide = true)]
    Cni(cni::InNode),
}

/// What to measure of policies.
#[derive(clap::Args)]
struct Policy {
    #[command(flatten)]
    arguments: policy::Arguments,
    #[command(flatten)]
    lab: Where,
}

/// How to reach the lab.
#[derive(clap::Args)]
struct Where {
    /// The program that enters a node: `<xtask> lab enter NODE -- CMD`.
    #[arg(long, default_value = "target/debug/xtask")]
    xtask: PathBuf,
    /// kubectl.
    #[arg(long, default_value = "target/lab/bin/kubectl")]
    kubectl: PathBuf,
    /// Administrator's kubeconfig.
    #[arg(long, default_value = "target/lab/admin.kubeconfig")]
    kubeconfig: PathBuf,
}

impl Where {
    fn lab(&self) -> anyhow::Result<node::Lab> {
        node::Lab::new(&self.xtask, &self.kubectl, &self.kubeconfig)
    }
}

/// Where things are.
#[derive(clap::Args)]
struct Run {
    #[command(flatten)]
    lab: Where,
    /// weft-probe for this machine.
    #[arg(
        long,
        default_value = "target/x86_64-unknown-linux-gnu/release/weft-probe"
    )]
    probe: PathBuf,
    /// Directory with the `bridge` and `host-local` plugins.
    #[arg(long)]
    plugins: PathBuf,
    /// Rounds of the data plane measurements (the first is thrown away). One pair strays by 0.15
    /// around its ratio on two cores, so few rounds decide nothing.
    #[arg(long, default_value_t = 13)]
    rounds: usize,
    /// Seconds of one throughput sample.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Pairs of ADD and DEL per plugin.
    #[arg(long, default_value_t = 60)]
    attachments: usize,
    /// Directory for `bench.json`.
    #[arg(long, default_value = "target/reports")]
    reports: PathBuf,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Cni(arguments) => cni::in_node(&arguments),
        Command::Policy(policy) => policy::run(&policy.arguments, || policy.lab.lab()),
        Command::Attempting(arguments) => policy::attempting(&arguments),
        Command::Run(run) => {
            let lab = run.lab.lab()?;
            let mut rows = Vec::new();
            println!("[1/3] data plane: pod to pod across nodes, host to host, VXLAN floor");
            rows.extend(dataplane::measure(
                &lab,
                &run.probe,
                run.rounds,
                run.seconds,
            )?);
            println!("[2/3] CNI ADD and DEL: weft, bridge + host-local");
            rows.extend(cni::measure(&lab, &run.plugins, run.attachments)?);
            println!("[3/3] resident memory");
            rows.extend(rss::measure()?);
            report::print(&rows);
            report::write(&rows, &run.reports.join("bench.json"))
        }
    }
}
