//! Command line. Every flag can be given by environment: that is how the chart does it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use weft_runtime::logging::Format;

#[derive(Debug, Parser)]
#[command(name = "weft-operator", version, about = "The weft operator")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controllers (the leader) or wait warm (the others).
    Run(Box<Run>),
    /// Ask a running operator in the same container whether it is well (exec probe).
    Health(Health),
    /// Delete every object of weft and strip finalizers after a time limit (pre-delete hook).
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Values of the chart as JSON: `{"network": {...}, "pools": [...]}`.
    #[arg(long, env = "WEFT_CONFIG", default_value = "/etc/weft/config.json")]
    pub(crate) config: PathBuf,
    /// Namespace of weft.
    #[arg(long, env = "WEFT_NAMESPACE", default_value = "kube-system")]
    pub(crate) namespace: String,
    /// Image of the node agent, unless the WeftNetwork names another: the operator's own.
    #[arg(long, env = "WEFT_IMAGE")]
    pub(crate) image: String,
    /// Pull secrets for the node agent, comma separated.
    #[arg(long, env = "WEFT_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub(crate) image_pull_secrets: Vec<String>,
    /// Pull policy of the node agent's containers.
    #[arg(long, env = "WEFT_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub(crate) image_pull_policy: String,
    /// Install and upgrade the CustomResourceDefinitions; otherwise wait for somebody to do it.
    #[arg(long, env = "WEFT_MANAGE_CRDS", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) manage_crds: bool,
    /// API server for the node agent as `host:port`, when it is not reached by the in-cluster
    /// Service.
    #[arg(long, env = "WEFT_API_SERVER", value_parser = host_port)]
    pub(crate) api_server: Option<(String, u16)>,
    /// Name of this pod: the identity in the election.
    #[arg(long, env = "POD_NAME")]
    pub(crate) pod_name: String,
    /// Name of the node this pod runs on, for logs.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub(crate) node_name: String,
    /// Unix socket of `/livez` and `/readyz`.
    #[arg(long, env = "WEFT_HEALTH_SOCKET", default_value = SOCKET)]
    pub(crate) health_socket: PathBuf,
    /// Where the leader serves `/metrics`.
    #[arg(long, env = "WEFT_METRICS", default_value = "0.0.0.0:6785")]
    pub(crate) metrics: SocketAddr,
    /// How long the blocks of a deleted node rest before they come back, in seconds.
    #[arg(long, env = "WEFT_RECLAIM_GRACE", default_value = "30", value_parser = seconds)]
    pub(crate) reclaim_grace: Duration,
    /// What to log, in the syntax of `RUST_LOG`.
    #[arg(long, env = "WEFT_LOG", default_value = "info")]
    pub(crate) log: String,
    /// `text` or `json`.
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value_t)]
    pub(crate) log_format: Format,
}

/// The exec probe and the operator share a container, and so its file system.
const SOCKET: &str = "/run/weft/operator.sock";

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Unix socket of the running operator.
    #[arg(long, env = "WEFT_HEALTH_SOCKET", default_value = SOCKET)]
    pub(crate) health_socket: PathBuf,
    /// `/livez` or `/readyz`.
    #[arg(default_value = "/readyz")]
    pub(crate) path: String,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Namespace of weft.
    #[arg(long, env = "WEFT_NAMESPACE", default_value = "kube-system")]
    pub(crate) namespace: String,
    /// After this time finalizers are stripped.
    #[arg(long, default_value = "60s", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// `192.0.2.1:6443`, `api.example.org:6443` or `[2001:db8::1]:6443`.
fn host_port(text: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{text:?} is no host:port such as 192.0.2.1:6443");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| wrong())?))
}

/// `90`, `90s` or `2m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.strip_suffix('m') {
        Some(digits) => (digits, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    digits
        .parse::<u32>()
        .map(|n| Duration::from_secs(u64::from(n) * unit))
        .map_err(|_| format!("{text:?} is no duration such as 90s or 2m"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn api_servers() {
        assert_eq!(
            host_port("172.30.0.1:6443"),
            Ok(("172.30.0.1".into(), 6443))
        );
        assert_eq!(
            host_port("2001:db8::1:6443"),
            Ok(("2001:db8::1".into(), 6443))
        );
        assert_eq!(
            host_port("[2001:db8::1]:443"),
            Ok(("2001:db8::1".into(), 443))
        );
        for wrong in ["", "host", ":6443", "host:port"] {
            assert!(host_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("90"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(seconds("2m"), Ok(Duration::from_secs(120)));
        assert!(seconds("soon").is_err());
    }
}
