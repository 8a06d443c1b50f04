//! Command line and environment.

use std::path::PathBuf;

/// The router of a node: builds the fabric, gives pods their addresses.
#[derive(Debug, clap::Parser)]
#[command(name = "weft-router", version)]
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
    /// Run on this node until told to stop; what was built stays.
    Run(RunArgs),
    /// Install the CNI plugins into a directory of the host.
    InstallCni(InstallArgs),
    /// Remove everything of weft from this node.
    Cleanup(CleanupArgs),
}

/// Where things are on the node.
#[derive(Debug, Clone, clap::Args)]
pub struct Paths {
    /// Configuration that the operator renders.
    #[arg(long, default_value = "/etc/weft/node.json")]
    pub config: PathBuf,
    /// Durable state.
    #[arg(long, default_value = "/var/lib/weft")]
    pub state_dir: PathBuf,
    /// Sockets.
    #[arg(long, default_value = "/run/weft")]
    pub run_dir: PathBuf,
    /// Where the container runtime looks for CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Kernel settings of the network namespace (`/proc/sys/net` of the host).
    #[arg(long, default_value = "/proc/sys/net")]
    pub sysctl_dir: PathBuf,
}

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Paths.
    #[command(flatten)]
    pub paths: Paths,
    /// Name of the Node we run on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Name of the Pod we run in, for events.
    #[arg(long, env = "POD_NAME", default_value = "weft-router")]
    pub pod_name: String,
    /// Where probes and status are served.
    #[arg(long, default_value = "127.0.0.1:6784")]
    pub status_address: std::net::SocketAddr,
    /// Where metrics are served.
    #[arg(long, default_value = "[::]:6782")]
    pub metrics_address: std::net::SocketAddr,
}

/// Arguments of `install-cni`.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallArgs {
    /// Plugins that come with us.
    #[arg(long, default_value = "/opt/weft/cni")]
    pub source_dir: PathBuf,
    /// Directory of the host.
    #[arg(long)]
    pub bin_dir: PathBuf,
}

/// Arguments of `cleanup`.
#[derive(Debug, Clone, clap::Args)]
pub struct CleanupArgs {
    /// Paths.
    #[command(flatten)]
    pub paths: Paths,
    /// Directory of the CNI plugins, as we see it.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,
}
