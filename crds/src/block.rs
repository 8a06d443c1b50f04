//! `IPBlock`: one node's piece of a pool, claimed in two phases.
//!
//! The operator creates the block for a node (no status: `Pending`). The node's router confirms it
//! with its Node UID and the epoch (`Confirmed`). Only a confirmed block routes and allocates.
//! Server-side apply is no compare-and-swap, so blocks are created (AlreadyExists = lost the race),
//! updated with resourceVersion and deleted with UID and resourceVersion preconditions.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node's piece of a pool. Made by the operator, confirmed by the node; not for users to edit.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "IPBlock",
    plural = "ipblocks",
    category = "weft",
    derive = "PartialEq",
    status = "IPBlockStatus",
    selectable = ".spec.node.name",
    selectable = ".spec.pool",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(
        name = "Epoch",
        type_ = "integer",
        json_path = ".spec.epoch",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPBlockSpec {
    /// Pool the block was cut from.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("pool is immutable"))]
    pub pool: String,
    /// The block.
    #[schemars(length(max = 43))]
    #[x_kube(validation = Rule::new("isCIDR(self) && cidr(self) == cidr(self).masked()").message("must be a canonical CIDR"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cidr is immutable"))]
    pub cidr: String,
    /// The node it is granted to.
    pub node: BlockNode,
    /// Grows with every grant of this CIDR; a confirmation with an old epoch is void.
    #[schemars(range(min = 1))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("epoch never goes back"))]
    pub epoch: i64,
}

/// A Node, by name and by identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockNode {
    /// `metadata.name` of the Node.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `metadata.uid` of the Node.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// Observed state of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IPBlockStatus {
    /// How far the claim is.
    pub phase: BlockPhase,
    /// UID of the Node that confirmed; must equal `spec.node.uid` to count.
    #[serde(rename = "nodeUID")]
    pub node_uid: String,
    /// Epoch that was confirmed; must equal `spec.epoch` to count.
    pub epoch: i64,
    /// Addresses in use, as last reported.
    pub used: u32,
}

/// Phase of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BlockPhase {
    /// Granted, not yet confirmed: routes nothing, allocates nothing.
    #[default]
    Pending,
    /// The node may allocate from it.
    Confirmed,
    /// On its way back to the pool: nobody may allocate from it.
    Releasing,
}

impl IPBlock {
    /// Whether the node may allocate from the block: confirmed by the right Node at the current
    /// epoch, and not being deleted.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.metadata.deletion_timestamp.is_none()
            && self.status.as_ref().is_some_and(|s| {
                s.phase == BlockPhase::Confirmed
                    && s.node_uid == self.spec.node.uid
                    && s.epoch == self.spec.epoch
            })
    }
}

/// Object name of a block: its canonical CIDR, spelled with DNS label characters. IPv4
/// `10.32.0.64/26` is `10-32-0-64-26`; IPv6 is written with all eight groups of four digits, so
/// that one CIDR has one name: `fd00-0010-0000-0000-0000-0000-0000-0000-122` (43 characters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockName(pub IpNet);

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.network() {
            IpAddr::V4(a) => {
                let [a, b, c, d] = a.octets();
                write!(f, "{a}-{b}-{c}-{d}-{}", self.0.prefix_len())
            }
            IpAddr::V6(a) => {
                for group in a.segments() {
                    write!(f, "{group:04x}-")?;
                }
                write!(f, "{}", self.0.prefix_len())
            }
        }
    }
}
