//! `weft-router cleanup`: everything of ours off the node.
//!
//! Idempotent; goes on past errors and returns all of them. While host ends of pods of ours remain,
//! the runtime still has to tear sandboxes down: conflist, plugin and state stay, a marker says so,
//! and the plugin's last DEL removes the rest.

use std::{fs, io, path::Path};

use weft_crds::{IptablesVariant, NodeConfig};
use weft_netfilter::{
    backend::ToolError,
    exec::{Runner, Variant, saved},
};
use weft_netlink::{Kernel, Netlink, Step};
use weft_socket::{CONFLIST, NPC_SNAPSHOT, UNINSTALLED_MARKER};

use crate::{args::CleanupArgs, exec, kernel::RuleTable};

/// Removes everything of ours.
///
/// # Errors
/// All that could not be removed, one line each.
pub async fn cleanup(args: &CleanupArgs) -> anyhow::Result<()> {
    let mut problems: Vec<String> = Vec::new();
    let paths = &args.paths;
    let config: NodeConfig = fs::read_to_string(&paths.config)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();

    // Both variants: the host may have changed its own since.
    for variant in [IptablesVariant::Nft, IptablesVariant::Legacy] {
        let swept = match holds_rules(&Runner::default(), variant).await {
            Ok(true) => RuleTable::sweep(variant).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        problems.extend(swept.err());
    }
    for table in ["bridge weft", "inet weft", "bridge weft-npc", "netdev weft"] {
        // Adding first makes the deletion of a missing table no error.
        let text = format!("add table {table}\ndelete table {table}\n");
        if let Err(error) = exec::run("nft", &["-f", "-"], &text).await {
            problems.push(error.to_string());
        }
    }

    let pods_remain = match links(&config.cluster_id, &mut problems).await {
        Ok(pods) => pods,
        Err(error) => {
            problems.push(error);
            // Unknown means in use.
            true
        }
    };
    let marker = marker(&paths.state_dir);
    if pods_remain {
        let written = fs::create_dir_all(&paths.state_dir)
            .and_then(|()| fs::write(&marker, format!("{}\n", host_conf_dir(&config))));
        match written {
            Ok(()) => tracing::info!(
                "Pods of ours remain: their last DEL removes plugin and configuration"
            ),
            Err(e) => problems.push(format!("cannot write {}: {e}", marker.display())),
        }
        // Of an installation that is gone: nobody shall enforce it again.
        let snapshot = paths.state_dir.join(NPC_SNAPSHOT);
        gone(&snapshot, |p| fs::remove_file(p), &mut problems);
    } else {
        for path in [
            paths.cni_conf_dir.join(CONFLIST),
            args.bin_dir.join("weft-cni"),
        ] {
            gone(&path, |p| fs::remove_file(p), &mut problems);
        }
        empty(&paths.state_dir, &mut problems);
    }
    empty(&paths.run_dir, &mut problems);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(anyhow::anyhow!(
            "not everything could be removed:\n{}",
            problems.join("\n")
        ))
    }
}

/// Whether a variant of iptables has chains or sets of ours. Asked without a table's name, the
/// legacy tool looks only at tables that exist, and makes none.
async fn holds_rules(runner: &Runner, variant: IptablesVariant) -> Result<bool, ToolError> {
    let of_tools = match variant {
        IptablesVariant::Legacy => Variant::Legacy,
        IptablesVariant::Nft | IptablesVariant::Auto => Variant::Nft,
    };
    let there = |listed: Result<String, ToolError>| match listed {
        Err(error) if error.is_absent() => Ok(String::new()),
        listed => listed,
    };
    if there(saved(runner, of_tools).await)?.contains("WEFT-") {
        return Ok(true);
    }
    // Sets belong to no variant; one sweep takes them along.
    if variant == IptablesVariant::Legacy {
        return Ok(false);
    }
    let sets = there(runner.run("ipset", &["list", "-n"], "").await)?;
    Ok(sets.lines().any(|name| name.starts_with("weft-")))
}

/// Deletes fabric links; answers whether pod links remain. Without a cluster id (the configuration
/// is gone) every link with an alias of weft counts.
async fn links(cluster_id: &str, problems: &mut Vec<String>) -> Result<bool, String> {
    let kernel = Kernel::connect().map_err(|e| format!("cannot open a netlink socket: {e}"))?;
    let network = kernel.dump().await.map_err(|e| e.to_string())?;
    let mut pods = false;
    for (name, link) in &network.links {
        let Some((cluster, what)) = link
            .alias
            .strip_prefix("weft/")
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        if !cluster_id.is_empty() && cluster != cluster_id {
            continue;
        }
        if what == "fabric" {
            match kernel.apply(&Step::DeleteLink(name.clone())).await {
                Ok(()) => tracing::info!(link = %name, "Deleted"),
                // A veth's other end took it along.
                Err(e) if e.errno == Some(nix::errno::Errno::ENODEV as i32) => {}
                Err(e) => problems.push(e.to_string()),
            }
        } else {
            pods = true;
        }
    }
    Ok(pods)
}

fn marker(state_dir: &Path) -> std::path::PathBuf {
    let name = Path::new(UNINSTALLED_MARKER).file_name();
    state_dir.join(name.unwrap_or_default())
}

/// The directory as the plugin sees it, which runs on the host.
fn host_conf_dir(config: &NodeConfig) -> &str {
    &config.network.cni.conf_dir
}

fn gone(path: &Path, remove: impl Fn(&Path) -> io::Result<()>, problems: &mut Vec<String>) {
    match remove(path) {
        Ok(()) => tracing::info!(path = %path.display(), "Removed"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => problems.push(format!("cannot remove {}: {e}", path.display())),
    }
}

/// Empties a directory of ours; it may be a mount point, which cannot be removed itself.
fn empty(dir: &Path, problems: &mut Vec<String>) {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => {
            problems.push(format!("cannot read {}: {e}", dir.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            gone(&path, |p| fs::remove_dir_all(p), problems);
        } else {
            gone(&path, |p| fs::remove_file(p), problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tools that find nothing, but for those that the shell pattern `which` names, which do this.
    async fn held(which: &str, does: &str, variant: IptablesVariant) -> Result<bool, String> {
        let script = format!("case $0 in {which}) {does};; esac");
        let runner = Runner {
            wrapper: ["sh", "-c", &script].map(str::to_owned).into(),
            ..Runner::default()
        };
        let held = holds_rules(&runner, variant).await;
        held.map_err(|error| error.message)
    }

    #[tokio::test]
    async fn only_a_place_that_is_not_there_or_was_looked_at_holds_nothing() {
        use IptablesVariant::{Legacy, Nft};
        let absent = "echo 'Table does not exist (do you need to insmod?)' >&2; exit 1";
        let memory = "echo 'Memory allocation problem' >&2; exit 1";
        let failed = || Err("Memory allocation problem".to_owned());
        for (which, does, expected) in [
            ("no-tool", "exit 1", [Ok(false), Ok(false)]),
            ("*-save", absent, [Ok(false), Ok(false)]),
            ("*-save", "echo ':WEFT-NAT - [0:0]'", [Ok(true), Ok(true)]),
            (
                "ip6tables-legacy-save",
                "echo ':WEFT-NPC - [0:0]'",
                [Ok(true), Ok(false)],
            ),
            ("ipset", "echo weft-r-pools-4", [Ok(false), Ok(true)]),
            ("iptables-nft-save", memory, [Ok(false), failed()]),
            ("ip6tables-legacy-save", memory, [failed(), Ok(false)]),
            ("ipset", memory, [Ok(false), failed()]),
        ] {
            for (variant, expected) in [Legacy, Nft].into_iter().zip(expected) {
                let seen = held(which, does, variant).await;
                assert_eq!(seen, expected, "{which}: {does}, {variant:?}");
            }
        }
    }
}
