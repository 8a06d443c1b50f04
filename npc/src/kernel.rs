//! Which interface of the kernel holds the rules, and the way from one to another, at start and
//! while npc runs.

mod auto;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use weft_crds::{IptablesVariant, Policy, PolicyBackend};
use weft_netfilter::{
    Ruleset,
    backend::{Backend, Done, Error, Iptables, Nftables, ToolError, Traced, nft_text},
    exec::{HostNft, HostTools, Runner, Variant, detect, saved},
    plan::{Observed, diff},
    trace::{Packet, Pass},
};

use self::auto::Auto;
use crate::config::{owned, owner};

/// Name of the nftables backend in status and metrics.
const NFTABLES: &str = "nftables";

/// Name of the backend that holds the rules. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct InUse(Arc<Mutex<String>>);

impl InUse {
    /// The backend of this name.
    pub(crate) fn new(name: &str) -> Self {
        Self(Arc::new(Mutex::new(name.to_owned())))
    }

    pub(crate) fn get(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, name: &str) {
        name.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A backend that another one may have to take over from, because the host changed.
pub(crate) trait Changing: Backend {
    /// Looks at the host from time to time. `true`: another backend has taken over, under another
    /// name; the next sync brings the rules there, and sweeps the old place.
    fn reconsider(&mut self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

/// One of the two interfaces.
pub enum Kernel {
    /// Chains of iptables and sets of ipset.
    Iptables(Iptables<HostTools>),
    /// Tables of nftables.
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

    fn set_sizes(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Iptables(backend) => backend.set_sizes(),
            Self::Nftables(backend) => backend.set_sizes(),
        }
    }

    async fn trace(
        &mut self,
        desired: &Ruleset,
        packet: &Packet,
        passes: &[Pass],
    ) -> Result<Traced, Error> {
        match self {
            Self::Iptables(backend) => backend.trace(desired, packet, passes).await,
            Self::Nftables(backend) => backend.trace(desired, packet, passes).await,
        }
    }
}

/// A backend that takes over from others: their rules go when its own are in force, and not
/// before. Meanwhile a packet must pass both, so there is no moment at which it passes neither.
pub(crate) struct Successor<B, P> {
    current: B,
    before: Vec<P>,
    auto: Option<Auto>,
}

impl<B: Backend, P: Backend> Successor<B, P> {
    fn new(current: B, before: Vec<P>, auto: Option<Auto>) -> Self {
        Self {
            current,
            before,
            auto,
        }
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

    fn set_sizes(&self) -> BTreeMap<String, usize> {
        self.current.set_sizes()
    }

    async fn trace(
        &mut self,
        desired: &Ruleset,
        packet: &Packet,
        passes: &[Pass],
    ) -> Result<Traced, Error> {
        self.current.trace(desired, packet, passes).await
    }
}

impl Changing for Successor<Kernel, Kernel> {
    async fn reconsider(&mut self) -> bool {
        let (Some(auto), true) = (&mut self.auto, self.before.is_empty()) else {
            return false;
        };
        let Some(successor) = auto.look(&self.current).await else {
            return false;
        };
        self.before
            .push(std::mem::replace(&mut self.current, successor));
        true
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

    fn kube_proxy_in_nftables(&self) -> bool {
        self.holds(&["ip kube-proxy", "ip6 kube-proxy"])
    }

    /// Follows kube-proxy: a node whose Services are in nftables may have no iptables in use at all.
    /// Without a kube-proxy (yet) what is in force stays, or what was before a reboot.
    fn choose(&self) -> PolicyBackend {
        let nftables = match (self.nft, self.iptables) {
            (false, _) => false,
            (true, false) => true,
            (true, true) => {
                self.kube_proxy_in_nftables()
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

/// What is found, and the variants of iptables that hold rules of ours.
///
/// # Errors
/// Nobody knows what one of them holds: what stays there unseen would go on denying.
async fn gather(runner: &Runner) -> Result<(Evidence, Vec<Variant>), ToolError> {
    let mut evidence = Evidence::default();
    match HostNft::new(runner.clone()).tables().await {
        Ok(tables) => evidence.tables.extend(tables),
        Err(error) if error.is_absent() => tracing::info!(%error, "no nftables here"),
        Err(error) => return Err(error),
    }
    let mut ours = Vec::new();
    for variant in [Variant::Legacy, Variant::Nft] {
        match saved(runner, variant).await {
            Ok(rules) => {
                evidence.iptables = true;
                evidence.kube_proxy_in_iptables |= rules.contains(":KUBE-SERVICES ");
                if rules.contains(":WEFT-NPC ") {
                    ours.push(variant);
                }
            }
            Err(error) if error.is_absent() => {
                tracing::info!(%error, "no {} here", variant.name());
            }
            Err(error) => return Err(error),
        }
    }
    Ok((evidence, ours))
}

/// The variant of iptables that is asked for.
async fn variant(runner: &Runner, asked: IptablesVariant) -> Result<Variant, ToolError> {
    match asked {
        IptablesVariant::Auto => detect(runner).await,
        IptablesVariant::Legacy => Ok(Variant::Legacy),
        IptablesVariant::Nft => Ok(Variant::Nft),
    }
}

impl Kernel {
    /// With npc's own tables, if the kernel takes what is written there.
    ///
    /// # Errors
    /// [`ToolError`]: it does not, or there is no `nft`.
    pub async fn nftables(runner: &Runner) -> Result<Self, ToolError> {
        let nft = HostNft::probe(runner.clone()).await?;
        Ok(Self::Nftables(Nftables::new(owned(), nft)))
    }

    /// With npc's own chains and sets.
    ///
    /// # Errors
    /// [`ToolError`]: not even IPv4 can be filtered by this variant.
    pub async fn iptables(runner: &Runner, variant: Variant) -> Result<Self, ToolError> {
        let tools = HostTools::probe(runner.clone(), variant).await?;
        Ok(Self::Iptables(Iptables::new(owner(), tools)))
    }
}

/// The backend that the configuration and the host ask for, as the successor of whatever holds
/// rules of npc now; `last`: the name of the backend that held them before a reboot.
///
/// # Errors
/// What was asked for cannot be run here, or nobody knows whether something else holds rules of npc.
pub(crate) async fn backend(
    policy: &Policy,
    last: Option<&str>,
) -> Result<Successor<Kernel, Kernel>, ToolError> {
    let runner = Runner::default();
    let (mut evidence, mut ours) = gather(&runner).await?;
    evidence.nftables_last = ours.is_empty() && last == Some(NFTABLES);
    let mut auto = None;
    let choice = match policy.backend {
        PolicyBackend::Auto => {
            evidence.nft = HostNft::probe(runner.clone()).await.is_ok();
            let choice = evidence.choose();
            tracing::info!(?evidence, ?choice, "chose where rules are kept");
            auto = Some(Auto::new(policy.iptables_variant));
            choice
        }
        asked @ (PolicyBackend::Iptables | PolicyBackend::Nftables) => asked,
    };
    let mut before = Vec::new();
    let current = if choice == PolicyBackend::Nftables {
        if ours.is_empty() && sets_remain(&runner).await? {
            ours.push(Variant::Nft);
        }
        Kernel::nftables(&runner).await?
    } else {
        let variant = variant(&runner, policy.iptables_variant).await?;
        let [inet, bridge] = owned().tables();
        if evidence.holds(&[&inet, &bridge]) {
            let nft = HostNft::new(runner.clone());
            before.push(Kernel::Nftables(Nftables::new(owned(), nft)));
        }
        ours.retain(|other| *other != variant);
        Kernel::iptables(&runner, variant).await?
    };
    for variant in ours {
        before.push(Kernel::iptables(&runner, variant).await?);
    }
    Ok(Successor::new(current, before, auto))
}

/// Sets without rules: left by a sweep that was interrupted.
async fn sets_remain(runner: &Runner) -> Result<bool, ToolError> {
    match runner.run("ipset", &["list", "-n"], "").await {
        Ok(names) => Ok(names.lines().any(|name| owner().owns_set(name))),
        Err(error) if error.is_absent() => Ok(false),
        // Many kernels that nftables is chosen for have no ipset, and sets alone judge nothing.
        Err(error) if error.class == "exit" => {
            tracing::warn!(%error, "cannot find out whether sets of npc are left");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
