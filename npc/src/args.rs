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
    /// Durable state. Nothing is kept there yet: the kernel's rules are the state that survives.
    #[arg(long, default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,
    /// Where probes and metrics are served.
    #[arg(long, default_value = "0.0.0.0:6781")]
    pub metrics_address: std::net::SocketAddr,
}
