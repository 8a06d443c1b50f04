//! The configuration file of the node agent: what the operator renders into the ConfigMap
//! `weft-node` and every router and npc reads at start (`/etc/weft/node.json`).

use serde::{Deserialize, Serialize};

use crate::WeftNetworkSpec;

/// Contents of `/etc/weft/node.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// Identity of the cluster: the UID of the Namespace `kube-system`. Marks our links
    /// (`ifalias weft/<cluster id>/<container id>`).
    pub cluster_id: String,
    /// `metadata.generation` of the WeftNetwork this was rendered from.
    pub generation: i64,
    /// The network, with every default filled in.
    pub network: WeftNetworkSpec,
}
