//! Command line and environment.

use std::path::PathBuf;

/// The network policy controller of a node.
#[derive(Debug, clap::Parser)]
#[command(name = "weft-npc", version)]
pub struct Args {
    /// Which log lines are written (syntax of RUST_LOG).
    #[arg(long, env = "WEFT_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How they are written: text or json.
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: weft_runtime::logging::Format,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Enforce policies on this node until told to stop; the rules stay.
    Run(RunArgs),
    /// Print the rules that the running npc wants in the kernel.
    Dump(SocketArgs),
    /// Ask the running npc whether a flow passes this node, and because of which policy and rule.
    /// Exit status: 0 allowed, 1 denied (or, with --compare, the kernel disagrees), 2 no answer.
    Query(QueryArgs),
    /// Remove every rule and set of npc from this node. npc must not be running.
    Cleanup,
}

/// Where the sockets are.
#[derive(Debug, Clone, clap::Args)]
pub struct SocketArgs {
    /// Sockets.
    #[arg(long, default_value = "/run/weft")]
    pub run_dir: PathBuf,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// The answer as npc gave it, one object; an error is `{"error": {...}}`.
    Json,
}

/// Arguments of `query`.
#[derive(Debug, Clone, clap::Args)]
pub struct QueryArgs {
    /// Source: NAMESPACE/POD, an address, or "node" for the node that is asked.
    #[arg(long)]
    pub from: String,
    /// Destination: the same. Services are translated before policy is asked: name the pod or
    /// address behind it.
    #[arg(long)]
    pub to: String,
    /// tcp, udp, sctp or icmp.
    #[arg(long, default_value = "tcp")]
    pub protocol: String,
    /// Destination port, by number or by the name of a container port of the destination; must be
    /// given unless the protocol is icmp.
    #[arg(long)]
    pub port: Option<String>,
    /// Also take the packet through the rules that are in the kernel, and say whether they agree,
    /// and where the kernel holds something else than npc wants.
    #[arg(long)]
    pub compare: bool,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
    /// Where npc listens.
    #[command(flatten)]
    pub sockets: SocketArgs,
}

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Name of the Node we run on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Configuration that the operator renders.
    #[arg(long, default_value = "/etc/weft/node.json")]
    pub config: PathBuf,
    /// Sockets.
    #[command(flatten)]
    pub sockets: SocketArgs,
    /// Durable state: the last state that was in force, for a reboot without the API.
    #[arg(long, default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,
    /// Where probes and metrics are served.
    #[arg(long, default_value = "0.0.0.0:6781")]
    pub metrics_address: std::net::SocketAddr,
}
