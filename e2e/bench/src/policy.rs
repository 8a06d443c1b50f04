//! `make bench-policy`: what policies cost, and how soon they are in force.
//!
//! Runs in network namespaces of its own with the real `weft-npc`; needs root, no cluster. The API
//! that npc watches is a small server here ([`api`]): "from the API write" is from the write to
//! that server. With `--lab` the change of a policy is also measured against the real API server
//! of a running lab.
//!
//! Every figure is paired in one run with the same thing done by the raw kernel (the same rules
//! loaded by a shell) or by one process of `iptables` or `ipset` per change.

mod api;
mod change;
mod cold;
mod cost;
mod lab;
mod npc;
mod objects;
mod processes;
mod restart;
mod shot;
mod space;
mod stage;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

pub(crate) use lab::{Attempting, attempting};

use crate::{node::Lab, report};

/// How long npc may take to load anything.
const READY: Duration = Duration::from_secs(60);

/// Where rules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// `table inet weft`.
    Nftables,
    /// iptables of the variant that keeps its rules in nf_tables, and ipset.
    IptablesNft,
    /// iptables of the old variant, and ipset.
    IptablesLegacy,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    /// The tool for rules; what is compared with nftables uses the variant of today's distributions.
    fn iptables(self, verb: &str) -> String {
        match self {
            Self::Nftables | Self::IptablesNft => format!("iptables-nft{verb}"),
            Self::IptablesLegacy => format!("iptables-legacy{verb}"),
        }
    }

    /// Section `policy` of npc's configuration.
    fn configuration(self) -> Value {
        match self {
            Self::Nftables => json!({"backend": "Nftables"}),
            Self::IptablesNft => json!({"backend": "Iptables", "iptablesVariant": "Nft"}),
            Self::IptablesLegacy => json!({"backend": "Iptables", "iptablesVariant": "Legacy"}),
        }
    }

    /// Can this machine keep rules there?
    fn works(self) -> bool {
        let tool = match self {
            Self::Nftables => vec!["nft".to_owned(), "list".into(), "tables".into()],
            Self::IptablesNft | Self::IptablesLegacy => {
                vec![self.iptables("-save"), "-t".into(), "filter".into()]
            }
        };
        let tried = space::Space::new().and_then(|space| space.call(&tool));
        tried.is_ok()
    }
}

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// weft-npc for this machine, a release build.
    #[arg(
        long,
        default_value = "target/x86_64-unknown-linux-gnu/release/weft-npc"
    )]
    npc: PathBuf,
    /// Where rules are kept. Default: everything that works on this machine.
    #[arg(long, value_enum, value_delimiter = ',')]
    backends: Vec<Backend>,
    /// Numbers of rules for the cost of packets, ascending.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000,10000")]
    rules: Vec<usize>,
    /// Numbers of policies for cold loads, ascending.
    #[arg(long, value_delimiter = ',', default_value = "100,500,1000,2000,10000")]
    loads: Vec<usize>,
    /// Numbers of policies that are loaded while one changes, ascending.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,2000,10000")]
    policies: Vec<usize>,
    /// Pods of other nodes.
    #[arg(long, default_value_t = 3000)]
    remotes: usize,
    /// Rounds of the cost of packets.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Changes of a policy, each to open and back; fewer where they take long.
    #[arg(long, default_value_t = 60)]
    changes: usize,
    /// Fewer rounds and smaller sizes, in two minutes.
    #[arg(long)]
    quick: bool,
    /// Also measure the change of a policy in the lab that is up, with weft installed.
    #[arg(long)]
    lab: bool,
    /// Nothing but the lab.
    #[arg(long, requires = "lab")]
    only_lab: bool,
    /// Directory for `bench-policy.json`.
    #[arg(long, default_value = "target/reports")]
    reports: PathBuf,
}

/// [`Arguments`], settled.
struct Plan {
    npc: PathBuf,
    rules: Vec<usize>,
    loads: Vec<usize>,
    policies: Vec<usize>,
    remotes: usize,
    /// Policies that are brought in by a process per change.
    by_processes: usize,
    rounds: usize,
    /// Length of one sample of the cost of packets.
    sample: Duration,
    changes: usize,
    /// How long pods change.
    busy: Duration,
}

impl Plan {
    fn new(arguments: &Arguments) -> Self {
        let plan = Self {
            npc: arguments.npc.clone(),
            rules: arguments.rules.clone(),
            loads: arguments.loads.clone(),
            policies: arguments.policies.clone(),
            remotes: arguments.remotes,
            by_processes: 100,
            rounds: arguments.rounds,
            sample: cost::SAMPLE,
            changes: arguments.changes,
            busy: Duration::from_secs(6),
        };
        if arguments.quick {
            let upto =
                |sizes: &[usize], most| sizes.iter().copied().filter(|n| *n <= most).collect();
            return Self {
                rules: upto(&plan.rules, 1000),
                loads: upto(&plan.loads, 500),
                policies: upto(&plan.policies, 1000),
                remotes: plan.remotes.min(600),
                by_processes: 20,
                rounds: plan.rounds.min(2),
                sample: cost::SAMPLE / 4,
                changes: plan.changes.min(10),
                busy: Duration::from_secs(3),
                ..plan
            };
        }
        plan
    }
}

/// Measures, prints the table and writes the report. `lab` gives the lab, if one is wanted.
pub(crate) fn run(
    arguments: &Arguments,
    lab: impl FnOnce() -> anyhow::Result<Lab>,
) -> anyhow::Result<()> {
    let plan = Plan::new(arguments);
    space::sweep();
    // A lab that is not there is missed at once, not after everything else was measured.
    let lab = arguments.lab.then(lab).transpose()?;
    let mut rows = Vec::new();
    if !arguments.only_lab {
        let backends = if arguments.backends.is_empty() {
            let all = Backend::value_variants().iter().copied();
            all.filter(|backend| backend.works()).collect()
        } else {
            arguments.backends.clone()
        };
        for backend in backends {
            rows.extend(of_backend(&plan, backend).context(backend.name())?);
        }
    }
    if let Some(lab) = lab {
        println!("lab: one change of a policy, from the write to the real API server");
        rows.extend(lab::measure(&lab, plan.changes)?);
    }
    report::print(&rows);
    report::write(&rows, &arguments.reports.join("bench-policy.json"))
}

fn of_backend(plan: &Plan, backend: Backend) -> anyhow::Result<Vec<report::Row>> {
    let begun = Instant::now();
    let step = |what: &str| {
        println!(
            "[{:5.0} s] {}: {what}",
            begun.elapsed().as_secs_f64(),
            backend.name()
        );
    };
    step("cost of packets");
    let mut rows = cost::measure(plan, backend)?;
    step("rules by a process each");
    let took = cold::processes(plan, backend)?;
    for &policies in &plan.loads {
        step(&format!("cold load of {policies} policies"));
        rows.extend(cold::measure(plan, backend, policies, took)?);
    }
    for &policies in &plan.policies {
        step(&format!("changes with {policies} policies"));
        rows.extend(change::measure(plan, backend, policies)?);
    }
    let policies = plan.policies.iter().copied().filter(|n| *n <= 2_000).max();
    let policies = policies.unwrap_or(10);
    step(&format!("restarts with {policies} policies"));
    rows.extend(restart::measure(plan, backend, policies)?);
    step("done");
    Ok(rows)
}
