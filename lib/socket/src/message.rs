//! Messages of the two sockets.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// CNI error codes (CNI spec 1.1.0, "Well-known Error Codes"; 100 and above are the plugin's own).
pub mod code {
    /// Incompatible CNI version.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// Unsupported field in network configuration.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// Container unknown or does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// Invalid necessary environment variables.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// I/O failure.
    pub const IO_FAILURE: u32 = 5;
    /// Failed to decode content.
    pub const DECODING_FAILURE: u32 = 6;
    /// Invalid network configuration.
    pub const INVALID_NETWORK_CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// The plugin is not available (it cannot serve ADD).
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    /// Weft's own: CHECK found a difference.
    pub const CHECK_FAILED: u32 = 100;
    /// Anything else.
    pub const INTERNAL: u32 = 999;
}

/// A pod, as the runtime names it in `CNI_ARGS`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`.
    pub uid: String,
}

/// An attachment: one interface of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// What the router is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum RouterRequest {
    /// Reserve addresses (durable before the reply) and say how the pod is to be attached.
    Add(AddRequest),
    /// The devices exist, the host side is still down: load port rules, FDB entry and policy for
    /// the attachment and answer when they are in force. Replies with the same [`AddReply`].
    Enforce(AttachmentId),
    /// The attachment is gone: take everything back. Unknown is success.
    Del(AttachmentId),
    /// What the router holds for the attachment, as [`AddReply`]; `UNKNOWN_CONTAINER` if nothing.
    Check(AttachmentId),
    /// Everything not listed is gone.
    Gc(GcRequest),
    /// Could an ADD be served now? Replies [`RouterStatus`], never an error.
    Status,
    /// Every attachment of this node, as [`Endpoints`] (asked by npc at its start).
    Endpoints,
}

/// ADD, as the plugin hands it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    /// Container and interface.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// Path of the pod's network namespace (`CNI_NETNS`).
    pub netns: String,
    /// The pod.
    pub pod: PodRef,
}

/// How a pod is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddReply {
    /// The pod's addresses, with the prefix length of the pool CIDR (on-link). One per family.
    pub addresses: Vec<IpNet>,
    /// Default gateway per family (addresses of `weave` on this node).
    pub gateways: Vec<IpAddr>,
    /// Further on-link routes: every other pool CIDR.
    pub on_link: Vec<IpNet>,
    /// MAC of the pod's interface, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// MTU of the pod's interface and its peer.
    pub mtu: u32,
    /// Name of the host end.
    pub host_ifname: String,
    /// `ifalias` of the host end: `weft/<cluster id>/<container id>`.
    pub host_ifalias: String,
    /// Bridge the host end is a port of.
    pub bridge: String,
}

/// CNI GC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// `cni.dev/valid-attachments`.
    pub valid: Vec<AttachmentId>,
}

/// What GC took back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReply {
    /// Attachments whose addresses are free again.
    pub released: Vec<AttachmentId>,
}

/// Answer to [`RouterRequest::Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// An ADD would be served.
    pub ready: bool,
    /// Why not, for a person; empty when ready.
    pub reasons: Vec<String>,
    /// Version of the router.
    pub version: String,
}

/// One attachment of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Container and interface.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// The pod.
    pub pod: PodRef,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Name of the host end.
    pub host_ifname: String,
}

/// Answer to [`RouterRequest::Endpoints`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Every attachment.
    pub endpoints: Vec<Endpoint>,
    /// Blocks of this node: addresses in them that belong to no endpoint are closed.
    pub blocks: Vec<IpNet>,
    /// The node's own addresses on `weave`: never subject to policy.
    pub gateways: Vec<IpAddr>,
}

/// What npc is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum NpcRequest {
    /// A pod is about to get its interface. Answered with `null` when its policy is in the kernel;
    /// `TRY_AGAIN_LATER` when that was not possible within the deadline (it stays closed).
    Pod(Endpoint),
    /// The attachment is gone.
    PodGone(AttachmentId),
    /// Blocks or gateways of this node changed (endpoints are ignored here).
    Blocks(Endpoints),
    /// State of npc, as [`NpcStatus`].
    Status,
    /// The rules npc wants in the kernel, as the text its tools would get (a string).
    Dump,
    /// Would the first packet of a flow pass, and why? Replies [`QueryReply`].
    Query(Query),
}

/// A question about a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// `namespace/pod`, an address, or `node` for npc's own node.
    pub from: String,
    /// The same (after DNAT: of a Service's endpoint, not of the Service).
    pub to: String,
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// Destination port: a number, or the name of a container port of the destination; none for
    /// ICMP.
    pub port: Option<String>,
    /// Also take the packet through the rules that are in the kernel.
    #[serde(default)]
    pub compare: bool,
}

/// Answer to [`NpcRequest::Query`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryReply {
    /// This node lets the packet pass. (The other end's node judges its own direction.)
    pub allowed: bool,
    /// Source.
    pub from: QueryEnd,
    /// Destination.
    pub to: QueryEnd,
    /// `tcp`, `udp`, `sctp` or `icmp`.
    pub protocol: String,
    /// Destination port; none for ICMP.
    pub port: Option<u16>,
    /// What the source's policies say.
    pub egress: Judged,
    /// What the destination's policies say.
    pub ingress: Judged,
    /// What the rules in the kernel say, if that was asked.
    pub kernel: Option<KernelJudged>,
}

/// An end of a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryEnd {
    /// Its address.
    pub address: IpAddr,
    /// `namespace/pod` it belongs to, if any.
    pub pod: Option<String>,
    /// The pod's Node, where it is known; without a pod: the Node that the address is one of.
    pub node: Option<String>,
}

/// What one direction's policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// They let it pass, or are not asked.
    pub allowed: bool,
    /// Why, for a person.
    pub reason: String,
    /// The policy that allows it, `namespace/name`.
    pub policy: Option<String>,
    /// Index of its rule in `spec.ingress` or `spec.egress`.
    pub rule: Option<usize>,
    /// The policies that isolate the pod, where none allows it.
    pub isolated_by: Vec<String>,
}

/// What the rules in the kernel do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelJudged {
    /// They let it pass; `None`: that cannot be said, because not all of them are npc's.
    pub allowed: Option<bool>,
    /// The same as the policies say.
    pub agrees: bool,
    /// Rules that matched, in order.
    pub path: Vec<String>,
    /// Where the kernel holds something else than npc wants; empty: nowhere.
    pub drift: Vec<String>,
}

/// Answer to [`NpcRequest::Status`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NpcStatus {
    /// First lists arrived and the ruleset is in the kernel.
    pub ready: bool,
    /// Why not, for a person; empty when ready.
    pub reasons: Vec<String>,
    /// `iptables-legacy`, `iptables-nft` or `nftables`.
    pub backend: String,
    /// Version of npc.
    pub version: String,
}

/// The reply envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// It worked.
    Ok(T),
    /// It did not.
    Error(ErrorReply),
}

/// An error with a CNI code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct ErrorReply {
    /// CNI error code.
    pub code: u32,
    /// What was tried, on which object.
    pub msg: String,
    /// What to do next.
    #[serde(default)]
    pub details: String,
}
