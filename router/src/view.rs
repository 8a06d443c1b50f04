//! What the last sync found: read by the socket server, the status page and the reporter.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::Serialize;
use weft_netlink::MacAddr;

/// Whether something works, and if not, why: a condition without its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) ok: bool,
    /// UpperCamelCase.
    pub(crate) reason: String,
    /// What was tried, on which object, what to do next.
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn good(reason: &str, message: impl Into<String>) -> Self {
        Self {
            ok: true,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    pub(crate) fn bad(reason: &str, message: impl Into<String>) -> Self {
        Self {
            ok: false,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The fabric as last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) fabric: Verdict,
    pub(crate) policy: Verdict,
    pub(crate) node_uid: String,
    pub(crate) underlay: Vec<IpAddr>,
    pub(crate) mtu: Option<u32>,
    pub(crate) bridge_mac: Option<MacAddr>,
    pub(crate) gateways: BTreeSet<IpAddr>,
    pub(crate) pools: BTreeSet<IpNet>,
    /// Confirmed blocks of this node.
    pub(crate) blocks: BTreeSet<IpNet>,
    pub(crate) peers: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Largest PeerSlice generation that is in the kernel.
    pub(crate) generation: i64,
    pub(crate) unreachable: BTreeSet<String>,
    pub(crate) npc_backend: String,
    pub(crate) npc_version: String,
}

impl Default for View {
    fn default() -> Self {
        Self {
            fabric: Verdict::bad(
                "Starting",
                "the first lists from the API have not arrived yet",
            ),
            policy: Verdict::bad("Starting", "npc was not asked yet"),
            node_uid: String::new(),
            underlay: Vec::new(),
            mtu: None,
            bridge_mac: None,
            gateways: BTreeSet::new(),
            pools: BTreeSet::new(),
            blocks: BTreeSet::new(),
            peers: BTreeMap::new(),
            generation: 0,
            unreachable: BTreeSet::new(),
            npc_backend: String::new(),
            npc_version: String::new(),
        }
    }
}

impl View {
    /// Why an ADD would be refused, one sentence each; empty if it would be served.
    pub(crate) fn obstacles(&self) -> Vec<String> {
        let verdicts = [&self.fabric, &self.policy];
        let bad = verdicts.into_iter().filter(|v| !v.ok);
        let mut reasons: Vec<String> = bad
            .map(|v| format!("{}: {}", v.reason, v.message))
            .collect();
        if self.fabric.ok && self.blocks.is_empty() {
            reasons.push(
                "NoBlock: this node has no confirmed IPBlock; the operator grants them: see its log \
                 and `kubectl get ipblocks`"
                    .to_owned(),
            );
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_tells_why_an_add_would_be_refused() {
        let mut view = View::default();
        assert_eq!(view.obstacles().len(), 2);
        view.fabric = Verdict::good("FabricUp", "");
        view.policy = Verdict::good("PolicyUp", "");
        assert!(
            view.obstacles()[0].starts_with("NoBlock: "),
            "{:?}",
            view.obstacles()
        );
        view.blocks.insert("10.32.0.0/26".parse().unwrap());
        assert_eq!(view.obstacles(), [""; 0]);
    }
}
