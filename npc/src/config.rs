//! What the configuration says about rules.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use weft_crds::{IptablesVariant, NodeConfig, PolicyBackend};
use weft_netfilter::{
    Family, TableName,
    backend::{Iptables, ToolError},
    exec::{HostTools, Runner, Variant, detect},
    plan::Owner,
};
use weft_policy_compile::NodeView;

/// Chains and sets of npc: `WEFT-NPC`, `WEFT-NPC-*` in table `filter`, `weft-npc-*`.
#[must_use]
pub fn owner() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

/// What a router said about this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Confirmed blocks.
    pub(crate) blocks: BTreeSet<IpNet>,
    /// The node's own addresses on the bridge.
    pub(crate) gateways: BTreeSet<IpAddr>,
}

impl Place {
    /// As the compiler wants it.
    pub(crate) fn view(&self) -> NodeView {
        let mut view = NodeView {
            blocks: self.blocks.clone(),
            gateways: self.gateways.clone(),
            ..NodeView::default()
        };
        view.families.extend(self.blocks.iter().map(Family::of_net));
        view.families.extend(self.gateways.iter().map(Family::of));
        view
    }
}

/// The backend that the configuration and the host ask for.
///
/// # Errors
/// iptables cannot be run at all.
pub(crate) async fn backend(config: &NodeConfig) -> Result<Iptables<HostTools>, ToolError> {
    let policy = &config.network.policy;
    if policy.backend == PolicyBackend::Nftables {
        tracing::warn!(
            "policy.backend Nftables is not built into this version: policies are enforced by \
             iptables and ipset instead"
        );
    }
    let runner = Runner::default();
    let variant = match policy.iptables_variant {
        IptablesVariant::Auto => detect(&runner).await?,
        IptablesVariant::Legacy => Variant::Legacy,
        IptablesVariant::Nft => Variant::Nft,
    };
    let tools = HostTools::probe(runner, variant).await?;
    Ok(Iptables::new(owner(), tools))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_the_families_of_its_blocks_and_always_ipv4() {
        let mut place = Place::default();
        assert_eq!(place.view().families, BTreeSet::from([Family::V4]));
        place.blocks.insert("fd00::/122".parse().expect("net"));
        assert_eq!(
            place.view().families,
            BTreeSet::from([Family::V4, Family::V6])
        );
    }
}
