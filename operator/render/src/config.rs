//! The agent's configuration file.

use std::fmt::Write;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};
use sha2::{Digest, Sha256};
use weft_crds::{NodeConfig, Rollout, WeftNetwork};

use crate::{Facts, NODE_AGENT, meta};

/// Key of the configuration in the ConfigMap.
pub(crate) const FILE: &str = "node.json";

/// What routers and npcs shall run with.
#[must_use]
pub fn node_config(network: &WeftNetwork, facts: &Facts) -> NodeConfig {
    NodeConfig {
        cluster_id: facts.cluster_id.clone(),
        generation: network.metadata.generation.unwrap_or_default(),
        network: network.spec.clone(),
    }
}

/// The ConfigMap, and the hash of what an agent must be restarted for: neither the generation nor
/// how and with which image it is rolled out.
pub(crate) fn config_map(
    config: &NodeConfig,
    facts: &Facts,
    owner: &OwnerReference,
) -> Result<(ConfigMap, String), serde_json::Error> {
    let mut relevant = config.clone();
    relevant.generation = 0;
    relevant.network.image = None;
    relevant.network.rollout = Rollout::default();
    let digest = Sha256::digest(serde_json::to_vec(&relevant)?);
    let mut hash = String::new();
    for byte in &digest[..8] {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    let map = ConfigMap {
        metadata: meta(NODE_AGENT, Some(facts), owner),
        data: Some(
            [(
                FILE.to_owned(),
                serde_json::to_string_pretty(config)? + "\n",
            )]
            .into(),
        ),
        ..ConfigMap::default()
    };
    Ok((map, hash))
}
