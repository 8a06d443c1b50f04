//! `weft-npc cleanup`: leaves nothing of npc on the node.

use anyhow::Context as _;
use weft_netfilter::{
    backend::{Backend as _, Iptables, Nftables},
    exec::{HostNft, HostTools, Runner, Variant},
};

use crate::config::{owned, owner};

/// Removes chains, jumps and sets of npc, in both variants of iptables and in nftables (an earlier
/// start may have chosen another one).
///
/// # Errors
/// One of them could not be swept, or nobody knows whether it holds something; the others were.
pub async fn cleanup() -> anyhow::Result<()> {
    everywhere(&Runner::default()).await
}

async fn everywhere(runner: &Runner) -> anyhow::Result<()> {
    let mut result = Ok(());
    for swept in [
        iptables(runner, Variant::Legacy).await,
        iptables(runner, Variant::Nft).await,
        nftables(runner).await,
    ] {
        if let Err(error) = &swept {
            tracing::error!("{error:#}");
        }
        result = result.and(swept);
    }
    result
}

async fn iptables(runner: &Runner, variant: Variant) -> anyhow::Result<()> {
    let name = variant.name();
    let tools = match HostTools::probe(runner.clone(), variant).await {
        Ok(tools) => tools,
        Err(error) if error.is_absent() => {
            tracing::info!(%error, "no {name} here: nothing to remove there");
            return Ok(());
        }
        Err(error) => {
            let unknown = format!("cannot find out whether {name} holds rules of npc");
            return Err(error).context(unknown);
        }
    };
    let done = Iptables::new(owner(), tools)
        .sweep()
        .await
        .with_context(|| format!("cannot remove npc's rules from {name}"))?;
    if done.changed() {
        tracing::info!("removed npc's rules from {name}");
    }
    Ok(())
}

async fn nftables(runner: &Runner) -> anyhow::Result<()> {
    let nft = HostNft::new(runner.clone());
    match nft.tables().await {
        Ok(_) => {}
        Err(error) if error.is_absent() => {
            tracing::info!(%error, "no nftables here: nothing to remove there");
            return Ok(());
        }
        Err(error) => {
            return Err(error).context("cannot find out whether nftables holds tables of npc");
        }
    }
    let done = Nftables::new(owned(), nft)
        .sweep()
        .await
        .context("cannot remove npc's tables from nftables")?;
    if done.changed() {
        tracing::info!("removed npc's tables from nftables");
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Tools of a host without any rules, but for those that the shell pattern `which` names, which
    /// do this instead. Each writes its name into a file.
    pub(crate) fn host(which: &str, does: &str) -> (Runner, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("directory");
        let log = dir.path().join("log");
        let script = format!(
            "echo $0 >>{}; cat >/dev/null; case $0 in {which}) {does};; esac",
            log.display()
        );
        let wrapper = ["sh", "-c", &script].map(str::to_owned).into();
        let runner = Runner {
            wrapper,
            ..Runner::default()
        };
        (runner, dir)
    }

    /// What the cleanup says, and which tools it asked.
    async fn cleaned(which: &str, does: &str) -> (Result<(), String>, Vec<String>) {
        let (runner, dir) = host(which, does);
        let said = everywhere(&runner).await;
        let log = std::fs::read_to_string(dir.path().join("log")).expect("log");
        let mut asked: Vec<String> = log.lines().map(str::to_owned).collect();
        asked.sort();
        asked.dedup();
        (said.map_err(|error| error.to_string()), asked)
    }

    const TOOLS: [&str; 6] = [
        "ip6tables-legacy-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "iptables-nft-save",
        "ipset",
        "nft",
    ];

    #[tokio::test]
    async fn where_a_tool_has_nothing_to_work_on_there_is_nothing_to_remove() {
        let table = "echo 'Cannot initialize: Table does not exist (do you need to insmod?)' >&2";
        for (which, does) in [
            ("no-tool", "exit 1"),
            ("*-legacy-save", &format!("{table}; exit 1")),
            ("ip6tables-*-save", &format!("{table}; exit 1")),
            (
                "nft",
                "echo 'Error: cache initialization failed: Invalid argument' >&2; exit 1",
            ),
        ] {
            assert_eq!(cleaned(which, does).await.0, Ok(()), "{which}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_is_an_error_and_the_rest_is_removed() {
        let memory = "echo 'Memory allocation problem' >&2; exit 1";
        let iptables = |name| format!("cannot find out whether {name} holds rules of npc");
        for (which, why) in [
            ("iptables-legacy-save", iptables("iptables-legacy")),
            ("ip6tables-legacy-save", iptables("iptables-legacy")),
            ("ip6tables-nft-save", iptables("iptables-nft")),
            (
                "nft",
                "cannot find out whether nftables holds tables of npc".to_owned(),
            ),
        ] {
            let (said, asked) = cleaned(which, memory).await;
            assert_eq!(said, Err(why), "{which}");
            for tool in TOOLS {
                let unreached = which == "iptables-legacy-save" && tool == "ip6tables-legacy-save";
                assert_eq!(
                    asked.contains(&tool.to_owned()),
                    !unreached,
                    "{which}: {tool}"
                );
            }
        }
    }
}
