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
/// A variant that can be run could not be swept.
pub async fn cleanup() -> anyhow::Result<()> {
    for variant in [Variant::Legacy, Variant::Nft] {
        let tools = match HostTools::probe(Runner::default(), variant).await {
            Ok(tools) => tools,
            Err(error) => {
                tracing::info!(%error, "{} cannot be run: nothing to remove there", variant.name());
                continue;
            }
        };
        let done = Iptables::new(owner(), tools)
            .sweep()
            .await
            .with_context(|| format!("cannot remove npc's rules from {}", variant.name()))?;
        if done.changed() {
            tracing::info!("removed npc's rules from {}", variant.name());
        }
    }
    let nft = HostNft::new(Runner::default());
    match nft.tables().await {
        Ok(_) => {
            let done = Nftables::new(owned(), nft)
                .sweep()
                .await
                .context("cannot remove npc's tables from nftables")?;
            if done.changed() {
                tracing::info!("removed npc's tables from nftables");
            }
        }
        Err(error) => {
            tracing::info!(%error, "nftables cannot be looked at: nothing to remove there");
        }
    }
    Ok(())
}
