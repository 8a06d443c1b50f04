//! `IPPool`: ranges that pod addresses come from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// Ranges that pod addresses come from, and who may take from them.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "IPPool",
    plural = "ippools",
    category = "weft",
    derive = "PartialEq",
    status = "IPPoolStatus",
    printcolumn(name = "CIDRs", type_ = "string", json_path = ".spec.cidrs"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".status.blocks"),
    printcolumn(name = "Allocated", type_ = "integer", json_path = ".status.allocated"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.free"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.cidrs.all(c, !isCIDR(c) || cidr(c).ip().family() != 4 || (cidr(c).prefixLength() <= self.blockSize.v4 && self.blockSize.v4 - cidr(c).prefixLength() <= 20))").message("blockSize.v4 must lie between the prefix length of every IPv4 CIDR and 20 bits more"))]
#[x_kube(validation = Rule::new("self.cidrs.all(c, !isCIDR(c) || cidr(c).ip().family() != 6 || (cidr(c).prefixLength() <= self.blockSize.v6 && self.blockSize.v6 - cidr(c).prefixLength() <= 74))").message("blockSize.v6 must lie between the prefix length of every IPv6 CIDR and 74 bits more"))]
pub struct IPPoolSpec {
    /// Ranges, IPv4 or IPv6. The list can grow while in use; nothing can be taken out.
    #[schemars(length(min = 1, max = 16), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("every entry must be a CIDR such as 10.32.0.0/12"))]
    #[x_kube(validation = Rule::new("self.all(c, !isCIDR(c) || cidr(c) == cidr(c).masked())").message("a CIDR must not have host bits set (10.32.0.0/12, not 10.32.0.1/12)"))]
    #[x_kube(validation = Rule::new("oldSelf.all(c, c in self)").message("a CIDR cannot be removed while the pool exists: set phase to Draining and make another pool"))]
    pub cidrs: Vec<String>,
    /// Size of the pieces that nodes get. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("blockSize is immutable: make another pool"))]
    pub block_size: BlockSize,
    /// Addresses and ranges inside `cidrs` that are never given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c) || isIP(c))").message("every entry must be an address or a CIDR"))]
    pub exclude: Vec<String>,
    /// Nodes that may hold blocks of this pool. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Namespaces whose pods take from this pool without naming it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Pods that take from this pool without naming it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Among pools whose selectors match, the highest wins; equal ones by name.
    #[serde(default)]
    pub priority: i32,
    /// What the pool may be used for.
    #[serde(default)]
    pub phase: PoolPhase,
    /// Seconds an address rests between two pods.
    #[serde(default = "default_cooldown")]
    #[schemars(range(min = 0, max = 1200))]
    pub cooldown_seconds: u32,
}

fn default_cooldown() -> u32 {
    30
}

/// Prefix lengths of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockSize {
    /// Prefix length of IPv4 blocks.
    #[schemars(range(min = 20, max = 32))]
    pub v4: u8,
    /// Prefix length of IPv6 blocks.
    #[schemars(range(min = 116, max = 128))]
    pub v6: u8,
}

impl Default for BlockSize {
    fn default() -> Self {
        Self { v4: 26, v6: 122 }
    }
}

/// What a pool may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolPhase {
    /// New addresses are given out.
    #[default]
    Active,
    /// No new blocks and no new addresses; what is in use stays.
    Draining,
    /// As `Draining`, and the pool is not chosen by annotation either.
    Disabled,
}

/// Observed state of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IPPoolStatus {
    /// `Ready`, `CIDROverlap`, `Exhausted`.
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Usable addresses, in decimal (an IPv6 pool has more than 64 bits of them).
    pub capacity: String,
    /// Addresses that pods hold.
    pub allocated: i64,
    /// Usable addresses that nobody holds, in decimal.
    pub free: String,
    /// Blocks that exist.
    pub blocks: i64,
    /// Blocks and addresses per node, by name.
    #[schemars(length(max = 5000))]
    pub nodes: Vec<PoolNodeUsage>,
}

/// What one node holds of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolNodeUsage {
    /// Name of the Node.
    pub node: String,
    /// Blocks granted to it.
    pub blocks: u32,
    /// Addresses its pods hold.
    pub allocated: u32,
}
