//! `PeerSlice`: the peer list of the fabric in a few compact objects, as EndpointSlices do it, so
//! that a router watches a handful of objects and not every node's status.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Up to 100 peers. Written by the operator alone, changes coalesced over a second.
#[derive(
    CustomResource, JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "PeerSlice",
    plural = "peerslices",
    category = "weft",
    derive = "PartialEq",
    printcolumn(name = "Generation", type_ = "integer", json_path = ".spec.generation"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerSliceSpec {
    /// Grows whenever any slice changes; routers report the largest one they have programmed.
    pub generation: i64,
    /// The peers, by node name.
    #[schemars(length(max = 100))]
    pub peers: Vec<Peer>,
}

/// A node as the others see it.
#[derive(JsonSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Name of the Node.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// Addresses of its tunnel end.
    #[serde(default)]
    #[schemars(length(max = 4), inner(length(max = 39)))]
    pub underlay: Vec<String>,
    /// Addresses of its `weave` bridge.
    #[serde(default)]
    #[schemars(length(max = 4), inner(length(max = 39)))]
    pub gateways: Vec<String>,
    /// Its confirmed blocks.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 43)))]
    pub blocks: Vec<String>,
}
