//! `WeftNode`: one node of the fabric. The operator writes `spec`, the node's router `status`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// One node of the fabric, named after its Node and owned by it.
#[derive(
    CustomResource, JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "WeftNode",
    plural = "weftnodes",
    category = "weft",
    derive = "PartialEq",
    status = "WeftNodeStatus",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Underlay",
        type_ = "string",
        json_path = ".status.underlayAddresses"
    ),
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gateways"),
    printcolumn(name = "MTU", type_ = "integer", json_path = ".status.mtu"),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.versions.router"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct WeftNodeSpec {
    /// UID of the Node this object stands for. A router of another Node UID must not use it.
    #[serde(rename = "nodeUID")]
    #[schemars(length(max = 64))]
    pub node_uid: String,
    /// InternalIPs of the Node, in the Node's order; the router chooses the underlay among them.
    #[schemars(length(max = 16), inner(length(max = 39)))]
    pub addresses: Vec<String>,
    /// Gateway addresses on `weave`, one per family, kept for the life of the node and never given
    /// to a pod. Plain addresses without prefix length.
    #[schemars(length(max = 4), inner(length(max = 39)))]
    pub gateways: Vec<String>,
    /// Next hops for nodes that cannot be reached directly.
    #[schemars(length(max = 500))]
    pub relays: Vec<Relay>,
}

/// A next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Node that packets are for.
    pub destination: String,
    /// Node that passes them on.
    pub next_hop: String,
}

/// Observed state of a node. Written on transitions only: live figures are in the router's
/// `/status` and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WeftNodeStatus {
    /// `Ready`, `FabricReady`, `PolicyReady`.
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// UID of the Node the router runs on.
    #[serde(rename = "nodeUID")]
    pub node_uid: String,
    /// Addresses the tunnel uses.
    #[schemars(length(max = 4))]
    pub underlay_addresses: Vec<String>,
    /// MTU of pods, bridge and tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// MAC of the `weave` bridge.
    #[serde(rename = "bridgeMAC")]
    pub bridge_mac: String,
    /// Nodes that do not answer heartbeats.
    #[schemars(length(max = 500))]
    pub unreachable_peers: Vec<String>,
    /// Largest `PeerSlice` generation whose peers are programmed in the kernel.
    pub peers_generation: i64,
    /// What npc last reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyState>,
    /// Versions of the parts on the node.
    pub versions: Versions,
}

/// State of npc on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyState {
    /// Backend in use: `iptables-legacy`, `iptables-nft` or `nftables`.
    pub backend: String,
}

/// Versions of the parts on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Versions {
    /// Version of the router.
    pub router: String,
    /// Version of npc, empty until it was heard.
    pub npc: String,
    /// Version of the installed CNI plugin.
    pub cni: String,
}
