//! What the compiler must know of the node besides policy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_netfilter::{Family, IfPattern};
use weft_policy::{Packet, Path, PolicyModel, Standing, State};

/// The node, as far as rules depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Families that pods have on this cluster. What policies say of others is inert.
    pub families: BTreeSet<Family>,
    /// Confirmed blocks of this node: an address in them that belongs to no known pod is closed.
    pub blocks: BTreeSet<IpNet>,
    /// The node's own addresses on the bridge: never closed.
    pub gateways: BTreeSet<IpAddr>,
    /// Further addresses that are not closed: what the kernel's set or the snapshot held at start,
    /// until the router's list arrived.
    pub also_known: BTreeSet<IpAddr>,
    /// The bridge of the pods.
    pub bridge: IfPattern,
    /// Its port towards the other nodes.
    pub bridge_port: IfPattern,
    /// The switch behind that port; what crosses it was judged on the bridge.
    pub datapath: IfPattern,
    /// The bit that says "allowed" between our chains. Never seen outside of them.
    pub mark: u32,
    /// The bit of a flow's mark (connmark) that says "cut": it was allowed, and policies forbid it
    /// now. Who sets it looks at the flows that there are; the rules only obey it.
    pub cut: u32,
    /// NFLOG group that denied packets are copied to; `None`: nobody reads them.
    pub log_group: Option<u16>,
    /// Namespaces whose pods' allowed new connections are copied to that group too.
    pub log_allowed: BTreeSet<Arc<str>>,
}

impl Default for NodeView {
    /// A node of an IPv4 cluster under Weave Net's names, without blocks.
    fn default() -> Self {
        let device = |name| IfPattern::exact(name).expect("shorter than 16 characters, no slash");
        Self {
            families: BTreeSet::from([Family::V4]),
            blocks: BTreeSet::new(),
            gateways: BTreeSet::new(),
            also_known: BTreeSet::new(),
            bridge: device("weave"),
            bridge_port: device("vethwe-bridge"),
            datapath: device("datapath"),
            // weave-npc's own bit for "egress allowed"; not among kube-proxy's (0x4000, 0x8000).
            mark: 0x40000,
            // Marks of flows are not marks of packets. Of those who mark flows of a host: kube-proxy
            // does not, Cilium has 0xf00, the AWS CNI 0x80, Istio 0x539, Tailscale 0xff0000, mwan3
            // 0x3f00.
            cut: 0x0800_0000,
            log_group: Some(86),
            log_allowed: BTreeSet::new(),
        }
    }
}

impl NodeView {
    /// Whether an address is closed because it lies in a block of this node and belongs to no pod
    /// that policy could be applied to.
    #[must_use]
    pub fn is_closed(&self, model: &PolicyModel, address: IpAddr) -> bool {
        self.blocks.iter().any(|block| block.contains(&address))
            && !self.gateways.contains(&address)
            && !self.also_known.contains(&address)
            && !model
                .subject_at(address)
                .is_some_and(|(_, subject)| subject.standing != Standing::Unknown)
    }

    /// Whether a packet is dropped because an end of it is closed. Comes before the verdict of
    /// [`weft_policy::evaluate`], which knows no blocks; it never judges what the node sends, nor
    /// neighbour discovery, nor flows that were allowed.
    #[must_use]
    pub fn closes(&self, model: &PolicyModel, packet: &Packet) -> bool {
        let judged = !packet.is_neighbour_discovery()
            && !matches!(packet.state, State::Established | State::Related);
        let closed = |address| self.is_closed(model, address);
        judged
            && match packet.path {
                Path::Forward { .. } => closed(packet.source) || closed(packet.destination),
                Path::Input => closed(packet.source),
                Path::Output => false,
            }
    }
}
