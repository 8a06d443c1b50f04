//! API types of `weft.dev/v1alpha1`: what users and weft's own parts say to each other through the
//! Kubernetes API (design: `docs/architecture.md`, "API").
//!
//! The crate holds types, their OpenAPI schema and CEL rules, and the conversions that belong to a
//! type alone (the name of an [`IPBlock`], a condition's transition). It must not know a client, a
//! clock, the environment or any other weft crate.
//!
//! ```text
//! WeftNetwork  what the cluster wants      (user)      -> operator
//! IPPool       where pod addresses come from (user)    -> operator
//! IPBlock      one node's piece of a pool  (operator)  -> router confirms
//! WeftNode     one node                    (operator writes spec, router writes status)
//! PeerSlice    up to 100 peers             (operator)  -> every router
//! ```

#![allow(
    unreachable_pub,
    reason = "KubeSchema derives a copy of each type inside a function body"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "kube's print columns repeat `type_` and the lint reads them as one attribute"
)]

mod block;
mod condition;
mod config;
#[cfg(any(test, feature = "examples"))]
pub mod examples;
mod network;
mod node;
mod peers;
mod pool;

pub use block::{BlockName, BlockNode, BlockPhase, IPBlock, IPBlockSpec, IPBlockStatus};
pub use condition::{Condition, ConditionStatus, condition, set_condition};
pub use config::NodeConfig;
pub use network::{
    Cni, Encryption, Fabric, IptablesVariant, Nat, Policy, PolicyBackend, Rollout, Toggle,
    Underlay, VersionCount, WeftNetwork, WeftNetworkSpec, WeftNetworkStatus,
};
pub use node::{PolicyState, Relay, Versions, WeftNode, WeftNodeSpec, WeftNodeStatus};
pub use peers::{Peer, PeerSlice, PeerSliceSpec};
pub use pool::{BlockSize, IPPool, IPPoolSpec, IPPoolStatus, PoolNodeUsage, PoolPhase};

/// API group of every kind of weft.
pub const GROUP: &str = "weft.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Finalizer on `IPPool` and `WeftNetwork`.
pub const FINALIZER: &str = "weft.dev/finalizer";
/// Pod or Namespace annotation that names the IPPools to take an address from, comma separated,
/// first match wins.
pub const ANNOTATION_POOLS: &str = "weft.dev/pools";
/// Namespace annotation: with the value `true`, npc logs new connections that policies allow from and
/// to pods of the namespace.
pub const ANNOTATION_LOG_ALLOWED: &str = "weft.dev/log-allowed";
/// Every annotation that users may write: its name, on which objects, what it does.
pub const ANNOTATIONS: [(&str, &str, &str); 2] = [
    (
        ANNOTATION_POOLS,
        "Pod, Namespace",
        "IPPools to take an address from, comma separated; the first that may be used wins.",
    ),
    (
        ANNOTATION_LOG_ALLOWED,
        "Namespace",
        "`true`: npc logs new connections that policies allow from and to pods of the namespace \
         (rate limited, only with `spec.policy.denyLog: Enabled`). Any other value: nothing.",
    ),
];
/// Name of the only `WeftNetwork`, and of the pool that is used when nothing else is chosen.
pub const DEFAULT_NAME: &str = "default";

/// Every CustomResourceDefinition of weft, in a fixed order.
#[must_use]
pub fn all()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>
{
    use kube::CustomResourceExt;
    vec![
        WeftNetwork::crd(),
        IPPool::crd(),
        IPBlock::crd(),
        WeftNode::crd(),
        PeerSlice::crd(),
    ]
}

#[cfg(test)]
mod tests;
