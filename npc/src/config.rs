//! Names of npc's rules, and what it is told about its node.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use weft_netfilter::{Family, TableName, nft::Owned, plan::Owner};
use weft_policy_compile::NodeView;

/// Chains and sets of npc: `WEFT-NPC`, `WEFT-NPC-*` in table `filter`, `weft-npc-*`.
#[must_use]
pub fn owner() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

/// Tables of npc where nftables holds the rules. The port rules of the router are in `bridge weft`.
#[must_use]
pub fn owned() -> Owned {
    Owned::new("weft", "weft-npc")
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
