//! Which interface of the kernel holds the rules, and the way from one to another.

use std::collections::BTreeSet;

use weft_crds::{IptablesVariant, Policy, PolicyBackend};
use weft_netfilter::{
    Ruleset,
    backend::{Backend, Done, Error, Iptables, Nftables, ToolError, Traced, nft_text},
    exec::{HostNft, HostTools, Runner, Variant, detect, saved},
    plan::{Observed, diff},
    trace::{Packet, Pass},
};

use crate::config::{owned, owner};

/// Name of the nftables backend in status and metrics.
const NFTABLES: &str = "nftables";

/// One of the two interfaces.
pub(crate) enum Kernel {
    Iptables(Iptables<HostTools>),
    Nftables(Nftables<HostNft>),
}

impl Backend for Kernel {
    fn name(&self) -> &str {
        match self {
            Self::Iptables(backend) => backend.name(),
            Self::Nftables(backend) => backend.name(),
        }
    }

    async fn sync(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        match self {
            Self::Iptables(backend) => backend.sync(desired).await,
            Self::Nftables(backend) => backend.sync(desired).await,
        }
    }

    async fn verify(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        match self {
            Self::Iptables(backend) => backend.verify(desired).await,
            Self::Nftables(backend) => backend.verify(desired).await,
        }
    }

    async fn in_force(&mut self, desired: &Ruleset) -> Result<bool, Error> {
        match self {
            Self::Iptables(backend) => backend.in_force(desired).await,
            Self::Nftables(backend) => backend.in_force(desired).await,
        }
    }

    async fn trace(&mut self, packet: &Packet, passes: &[Pass]) -> Result<Option<Traced>, Error> {
        match self {
            Self::Iptables(backend) => backend.trace(packet, passes).await,
            Self::Nftables(backend) => backend.trace(packet, passes).await,
        }
    }
}

/// A backend that takes over from others: their rules go when its own are in force, and not
/// before. Meanwhile a packet must pass both, so there is no moment at which it passes neither.
pub(crate) struct Successor<B, P> {
    current: B,
    before: Vec<P>,
}

impl<B: Backend, P: Backend> Successor<B, P> {
    pub(crate) fn new(current: B, before: Vec<P>) -> Self {
        Self { current, before }
    }

    /// A failure is one of the sync: what the predecessor still drops nobody would look for.
    async fn retire(&mut self) -> Result<(), Error> {
        while let Some(predecessor) = self.before.last_mut() {
            predecessor.sweep().await?;
            tracing::info!(
                from = predecessor.name(),
                to = self.current.name(),
                "the rules moved"
            );
            self.before.pop();
        }
        Ok(())
    }
}

impl<B: Backend, P: Backend> Backend for Successor<B, P> {
    fn name(&self) -> &str {
        self.current.name()
    }

    async fn sync(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        let done = self.current.sync(desired).await?;
        self.retire().await?;
        Ok(done)
    }

    async fn verify(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        let done = self.current.verify(desired).await?;
        self.retire().await?;
        Ok(done)
    }

    async fn in_force(&mut self, desired: &Ruleset) -> Result<bool, Error> {
        for predecessor in &mut self.before {
            if predecessor.in_force(desired).await? {
                return Ok(true);
            }
        }
        self.current.in_force(desired).await
    }

    async fn trace(&mut self, packet: &Packet, passes: &[Pass]) -> Result<Option<Traced>, Error> {
        self.current.trace(packet, passes).await
    }
}

/// The rules as the backend of this name would write them on an empty kernel.
pub(crate) fn text(backend: &str, ruleset: &Ruleset) -> String {
    let text = if backend == NFTABLES {
        nft_text(&owned(), ruleset)
    } else {
        diff(&Observed::default(), ruleset)
            .map(|plan| plan.to_string())
            .map_err(Error::from)
    };
    text.unwrap_or_else(|error| format!("# {error}\n"))
}

/// What is found on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Evidence {
    /// The kernel takes what we would write in nftables.
    nft: bool,
    /// iptables can be run.
    iptables: bool,
    /// Tables of nftables, `family name` each.
    tables: BTreeSet<String>,
    /// kube-proxy keeps its rules in iptables.
    kube_proxy_in_iptables: bool,
    /// The kernel holds nothing of ours, and what it held before it was started was in nftables.
    nftables_last: bool,
}

impl Evidence {
    fn holds(&self, tables: &[&str]) -> bool {
        tables.iter().any(|table| self.tables.contains(*table))
    }

    /// Follows kube-proxy: a node whose Services are in nftables may have no iptables in use at all.
    /// Without a kube-proxy (yet) what is in force stays, or what was before a reboot.
    fn choose(&self) -> PolicyBackend {
        let nftables = match (self.nft, self.iptables) {
            (false, _) => false,
            (true, false) => true,
            (true, true) => {
                self.holds(&["ip kube-proxy", "ip6 kube-proxy"])
                    || !self.kube_proxy_in_iptables
                        && (self.nftables_last || self.holds(&["inet weft"]))
            }
        };
        if nftables {
            PolicyBackend::Nftables
        } else {
            PolicyBackend::Iptables
        }
    }
}

/// The backend that the configuration and the host ask for, as the successor of whatever holds
/// rules of npc now; `last`: the name of the backend that held them before a reboot.
///
/// # Errors
/// What was asked for cannot be run here.
pub(crate) async fn backend(
    policy: &Policy,
    last: Option<&str>,
) -> Result<Successor<Kernel, Kernel>, ToolError> {
    let runner = Runner::default();
    let nft = HostNft::new(runner.clone());
    let mut evidence = Evidence::default();
    match nft.tables().await {
        Ok(tables) => evidence.tables.extend(tables),
        Err(error) => tracing::info!(%error, "nftables cannot be looked at"),
    }
    let mut ours = Vec::new();
    for variant in [Variant::Legacy, Variant::Nft] {
        match saved(&runner, variant).await {
            Ok(rules) => {
                evidence.iptables = true;
                evidence.kube_proxy_in_iptables |= rules.contains(":KUBE-SERVICES ");
                if rules.contains(":WEFT-NPC ") {
                    ours.push(variant);
                }
            }
            Err(error) => tracing::info!(%error, "{} cannot be looked at", variant.name()),
        }
    }
    evidence.nftables_last = ours.is_empty() && last == Some(NFTABLES);
    let choice = match policy.backend {
        PolicyBackend::Auto => {
            evidence.nft = HostNft::probe(runner.clone()).await.is_ok();
            let choice = evidence.choose();
            tracing::info!(?evidence, ?choice, "chose where rules are kept");
            choice
        }
        asked @ (PolicyBackend::Iptables | PolicyBackend::Nftables) => asked,
    };
    let mut before = Vec::new();
    let current = if choice == PolicyBackend::Nftables {
        if ours.is_empty() && sets_remain(&runner).await {
            ours.push(Variant::Nft);
        }
        Kernel::Nftables(Nftables::new(
            owned(),
            HostNft::probe(runner.clone()).await?,
        ))
    } else {
        let variant = match policy.iptables_variant {
            IptablesVariant::Auto => detect(&runner).await?,
            IptablesVariant::Legacy => Variant::Legacy,
            IptablesVariant::Nft => Variant::Nft,
        };
        let [inet, bridge] = owned().tables();
        if evidence.holds(&[&inet, &bridge]) {
            before.push(Kernel::Nftables(Nftables::new(owned(), nft)));
        }
        ours.retain(|other| *other != variant);
        let tools = HostTools::probe(runner.clone(), variant).await?;
        Kernel::Iptables(Iptables::new(owner(), tools))
    };
    for variant in ours {
        let tools = HostTools::probe(runner.clone(), variant).await?;
        before.push(Kernel::Iptables(Iptables::new(owner(), tools)));
    }
    Ok(Successor::new(current, before))
}

/// Sets without rules: left by a sweep that was interrupted.
async fn sets_remain(runner: &Runner) -> bool {
    let names = runner.run("ipset", &["list", "-n"], "").await;
    names.is_ok_and(|names| names.lines().any(|name| owner().owns_set(name)))
}

#[cfg(test)]
mod tests;
