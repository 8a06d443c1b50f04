//! The router's chains and sets, through iptables and ipset of the variant that the host uses.

use weft_crds::IptablesVariant;
use weft_netfilter::{
    Ruleset, TableName,
    backend::{Backend, Iptables},
    exec::{HostTools, Runner, Variant, detect},
    plan::Owner,
};

/// Chains of the router are named so or start so and a dash; sets start with [`SETS`].
const ROOTS: [&str; 4] = ["WEFT-FORWARD", "WEFT-INPUT", "WEFT-NAT", "WEFT-RAW"];
/// Start of the names of our sets.
const SETS: &str = "weft-r-";
const TABLES: [TableName; 3] = [TableName::Raw, TableName::Nat, TableName::Filter];

/// Names of our chains and sets.
pub(crate) fn rule_owner() -> Owner {
    Owner::new(&ROOTS, SETS, &TABLES)
}

/// Our rules.
#[derive(Debug)]
pub struct RuleTable {
    variant: IptablesVariant,
    /// Made at the first use: which variant the host uses is found out then.
    backend: Option<Iptables<HostTools>>,
}

impl RuleTable {
    /// For a node whose configuration says `variant`.
    #[must_use]
    pub fn new(variant: IptablesVariant) -> Self {
        Self {
            variant,
            backend: None,
        }
    }

    /// Makes the kernel hold `desired`; returns what was changed. `verify`: from what is read back.
    ///
    /// # Errors
    /// For a person. The next call starts from what is read back.
    pub async fn apply(
        &mut self,
        desired: &Ruleset,
        verify: bool,
    ) -> Result<Option<String>, String> {
        let backend = self.backend().await?;
        let done = if verify {
            backend.verify(desired).await
        } else {
            backend.sync(desired).await
        };
        let done = done.map_err(|e| e.to_string())?;
        if !done.changed() {
            return Ok(None);
        }
        tracing::debug!(plan = done.plan, "Rules changed");
        Ok(Some(format!(
            "write rules of {} ({} lines)",
            backend.name(),
            done.plan.lines().count()
        )))
    }

    /// Takes all chains, jumps and sets of weft away, those of npc too, from one variant.
    ///
    /// # Errors
    /// For a person.
    pub async fn sweep(variant: IptablesVariant) -> Result<(), String> {
        let everything = [
            rule_owner(),
            Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter]),
        ];
        for owner in everything {
            let tools = tools(variant).await?;
            let mut backend = Iptables::new(owner, tools);
            backend.sweep().await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn backend(&mut self) -> Result<&mut Iptables<HostTools>, String> {
        let backend = match self.backend.take() {
            Some(backend) => backend,
            None => Iptables::new(rule_owner(), tools(self.variant).await?),
        };
        Ok(self.backend.insert(backend))
    }
}

async fn tools(variant: IptablesVariant) -> Result<HostTools, String> {
    let runner = Runner::default();
    let variant = match variant {
        IptablesVariant::Legacy => Variant::Legacy,
        IptablesVariant::Nft => Variant::Nft,
        IptablesVariant::Auto => detect(&runner).await.map_err(|e| e.to_string())?,
    };
    HostTools::probe(runner, variant)
        .await
        .map_err(|e| e.to_string())
}
