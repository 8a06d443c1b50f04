//! From a WeftNetwork and cluster facts to the Kubernetes objects of the node agent: identity,
//! permissions, configuration, DaemonSet, and the admission policy that holds a node to its own
//! objects.
//!
//! Pure: equal inputs give equal objects, byte for byte. The crate must not know a client, a clock
//! or the environment; the operator applies what stands here and prunes what no longer does.
//!
//! ```text
//! WeftNetwork + Facts -> node_config -> ConfigMap weft-node ----hash----+
//!                     -> agent       -> ServiceAccount, RBAC, admission, DaemonSet weft-node
//!                     -> cleanup     -> DaemonSet weft-cleanup (at uninstall)
//! ```

mod access;
mod admission;
mod config;
mod daemon_set;

pub use access::{node_rules, operator_namespace_rules, operator_rules};
pub use config::node_config;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use weft_crds::WeftNetwork;

/// Name of everything that belongs to the node agent.
pub const NODE_AGENT: &str = "weft-node";
/// Name of the DaemonSet that cleans the nodes at uninstall.
pub const CLEANUP: &str = "weft-cleanup";
/// Selects what the operator renders, and nothing else.
pub const SELECTOR: &str =
    "app.kubernetes.io/managed-by=weft-operator,app.kubernetes.io/part-of=weft";
/// Template annotation with the hash of the configuration: a change rolls the DaemonSet.
pub const CONFIG_HASH: &str = "weft.dev/config-hash";
/// Label that tells the pods of the agent from those of the clean-up.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";

/// What rendering needs to know of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Namespace of weft.
    pub namespace: String,
    /// UID of the Namespace `kube-system`: the identity of the cluster.
    pub cluster_id: String,
    /// Image of the operator, which the agent runs too unless the WeftNetwork names another.
    pub image: String,
    /// `imagePullPolicy` of every container; empty: `IfNotPresent`.
    pub image_pull_policy: String,
    /// Names of the pull secrets in `namespace`.
    pub image_pull_secrets: Vec<String>,
    /// Where the API server is reached when not by the in-cluster Service: host and port.
    pub api_server: Option<(String, u16)>,
    /// Log filter and format of the agent (`info`, `text`).
    pub log: Option<(String, String)>,
}

/// The objects of the node agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Identity.
    pub service_account: ServiceAccount,
    /// Permissions.
    pub cluster_role: ClusterRole,
    /// Gives the permissions to the identity.
    pub cluster_role_binding: ClusterRoleBinding,
    /// Holds every agent to its own node's objects.
    pub admission_policy: ValidatingAdmissionPolicy,
    /// Puts the policy into force.
    pub admission_binding: ValidatingAdmissionPolicyBinding,
    /// `node.json`.
    pub config_map: ConfigMap,
    /// The agent.
    pub daemon_set: DaemonSet,
}

/// Renders the node agent.
///
/// # Errors
/// The configuration cannot be written as JSON.
pub fn agent(network: &WeftNetwork, facts: &Facts) -> Result<Agent, serde_json::Error> {
    let owner = owner(network);
    let config = node_config(network, facts);
    let (config_map, hash) = config::config_map(&config, facts, &owner)?;
    Ok(Agent {
        service_account: ServiceAccount {
            metadata: meta(NODE_AGENT, Some(facts), &owner),
            ..ServiceAccount::default()
        },
        cluster_role: access::cluster_role(&owner),
        cluster_role_binding: access::cluster_role_binding(facts, &owner),
        admission_policy: admission::policy(facts, &owner),
        admission_binding: admission::binding(&owner),
        config_map,
        daemon_set: daemon_set::agent(&network.spec, facts, &owner, &hash),
    })
}

/// Renders the DaemonSet that removes everything of ours from the nodes and becomes ready when it
/// has.
#[must_use]
pub fn cleanup(network: &WeftNetwork, facts: &Facts) -> DaemonSet {
    daemon_set::cleanup(&network.spec, facts, &owner(network))
}

/// Labels of everything we render.
fn labels(name: &str) -> BTreeMap<String, String> {
    [
        (NAME_LABEL, name),
        ("app.kubernetes.io/part-of", "weft"),
        ("app.kubernetes.io/managed-by", "weft-operator"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

/// Metadata of an object; `facts` gives the namespace of namespaced ones.
fn meta(name: &str, facts: Option<&Facts>, owner: &OwnerReference) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: facts.map(|f| f.namespace.clone()),
        labels: Some(labels(name)),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn owner(network: &WeftNetwork) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", weft_crds::GROUP, weft_crds::VERSION),
        kind: "WeftNetwork".into(),
        name: network.metadata.name.clone().unwrap_or_default(),
        uid: network.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests;
