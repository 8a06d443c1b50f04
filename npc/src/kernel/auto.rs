//! kube-proxy changes its mode while npc runs.
//!
//! Cheap as long as nothing changes: the names of nftables' tables tell whether kube-proxy is there.
//! Only where that would lead to another backend everything is looked at, and what is found must be
//! found twice, because a kube-proxy that starts in another mode has a moment in which it has rules
//! in both places or in none.

use std::time::{Duration, Instant};

use weft_crds::{IptablesVariant, PolicyBackend};
use weft_netfilter::exec::{HostNft, Runner};

use super::{Evidence, Kernel, gather, variant};

/// Between looks.
const PAUSE: Duration = Duration::from_secs(10);
/// Looks in a row that must find the same.
const SURE: u32 = 2;

/// Follows kube-proxy.
pub(super) struct Auto {
    runner: Runner,
    variant: IptablesVariant,
    looked: Instant,
    seen: u32,
}

impl Auto {
    pub(super) fn new(variant: IptablesVariant) -> Self {
        Self {
            runner: Runner::default(),
            variant,
            looked: Instant::now(),
            seen: 0,
        }
    }

    /// Who must take over from `current`, if anybody.
    pub(super) async fn look(&mut self, current: &Kernel) -> Option<Kernel> {
        if self.looked.elapsed() < PAUSE {
            return None;
        }
        self.looked = Instant::now();
        let current = match current {
            Kernel::Iptables(_) => PolicyBackend::Iptables,
            Kernel::Nftables(_) => PolicyBackend::Nftables,
        };
        let choice = self.choose(current).await.unwrap_or(current);
        self.seen = if choice == current { 0 } else { self.seen + 1 };
        if self.seen < SURE {
            return None;
        }
        self.seen = 0;
        let successor = match choice {
            PolicyBackend::Nftables => Kernel::nftables(&self.runner).await,
            PolicyBackend::Iptables | PolicyBackend::Auto => {
                match variant(&self.runner, self.variant).await {
                    Ok(variant) => Kernel::iptables(&self.runner, variant).await,
                    Err(error) => Err(error),
                }
            }
        };
        successor
            .inspect_err(|error| tracing::warn!(%error, ?choice, "cannot follow kube-proxy"))
            .ok()
    }

    /// `None`: nothing speaks against what is in use.
    async fn choose(&self, current: PolicyBackend) -> Option<PolicyBackend> {
        let nft = HostNft::new(self.runner.clone());
        let tables = nft.tables().await.ok()?;
        let tables = Evidence {
            tables: tables.into_iter().collect(),
            ..Evidence::default()
        };
        if tables.kube_proxy_in_nftables() == (current == PolicyBackend::Nftables) {
            return None;
        }
        let found = gather(&self.runner).await;
        let (mut evidence, _) = found
            .inspect_err(|error| tracing::warn!(%error, "cannot find out what kube-proxy does"))
            .ok()?;
        evidence.nft = HostNft::probe(self.runner.clone()).await.is_ok();
        let choice = evidence.choose();
        if choice != current {
            tracing::info!(?evidence, ?choice, "kube-proxy changed its mode");
        }
        Some(choice)
    }
}
