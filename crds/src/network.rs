//! `WeftNetwork`: the one object that says what the pod network of this cluster shall be.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// Desired state of the pod network. One per cluster, named `default`. Every field has a default,
/// so an empty spec is a working network.
#[derive(CustomResource, KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "weft.dev",
    version = "v1alpha1",
    kind = "WeftNetwork",
    plural = "weftnetworks",
    shortname = "weftnet",
    category = "weft",
    derive = "PartialEq",
    status = "WeftNetworkStatus",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one WeftNetwork in a cluster and its name is 'default'"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WeftNetworkSpec {
    /// Image of the node agent. Default: the image that the operator itself runs.
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Devices, ports and MTU.
    #[serde(default)]
    pub fabric: Fabric,
    /// Address translation to the outside.
    #[serde(default)]
    pub nat: Nat,
    /// NetworkPolicy enforcement.
    #[serde(default)]
    pub policy: Policy,
    /// Where the CNI plugin and its configuration go on the nodes.
    #[serde(default)]
    pub cni: Cni,
    /// How a new version reaches the nodes.
    #[serde(default)]
    pub rollout: Rollout,
}

/// On or off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Toggle {
    /// On.
    #[default]
    Enabled,
    /// Off.
    Disabled,
}

/// Devices, ports and MTU of the fabric.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.port != self.controlPort").message("port and controlPort must differ: both are UDP ports of the node"))]
pub struct Fabric {
    /// UDP port of the tunnel between nodes; also names the device `vxlan-<port>`.
    #[serde(default = "data_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub port: u16,
    /// UDP port of the heartbeats between routers.
    #[serde(default = "control_port")]
    #[schemars(range(min = 1024, max = 65535))]
    pub control_port: u16,
    /// MTU of pods, bridge and tunnel. Default: MTU of the underlay minus 50 (70 over IPv6).
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 576, max = 65485))]
    pub mtu: Option<u32>,
    /// Which address of a node carries the tunnel. Default: the node's first InternalIP.
    #[serde(default)]
    pub underlay: Underlay,
    /// Encryption between nodes. Only `Disabled` exists in this version.
    #[serde(default)]
    pub encryption: Encryption,
}

fn data_port() -> u16 {
    6784
}

fn control_port() -> u16 {
    6783
}

impl Default for Fabric {
    fn default() -> Self {
        Self {
            port: data_port(),
            control_port: control_port(),
            mtu: None,
            underlay: Underlay::default(),
            encryption: Encryption::Disabled,
        }
    }
}

/// Selects the underlay address of a node.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.interface) && has(self.cidr))").message("set interface or cidr, not both"))]
pub struct Underlay {
    /// Name of the interface whose first global address is used, on every node.
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// The address of the node that lies in this CIDR is used.
    #[serde(default)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = Rule::new("isCIDR(self)").message("must be a CIDR such as 192.168.0.0/16"))]
    pub cidr: Option<String>,
}

/// Encryption of the tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encryption {
    /// Packets between nodes are not encrypted.
    #[default]
    Disabled,
}

/// Address translation for packets that leave the pod network.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nat {
    /// Whether packets from pods to the outside get the node's address.
    #[serde(default)]
    pub masquerade: Toggle,
    /// Destinations that see the pod's own address (they must have a route back).
    #[serde(default)]
    #[serde(rename = "noMasqueradeCIDRs")]
    #[schemars(length(max = 64), inner(length(max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("every entry must be a CIDR such as 10.0.0.0/8"))]
    pub no_masquerade_cidrs: Vec<String>,
}

/// NetworkPolicy enforcement.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Whether policies are enforced. Disabled: every packet between pods passes (Weave Net's
    /// `EXPECT_NPC=0`), and rules that were in force are removed.
    #[serde(default)]
    pub enforcement: Toggle,
    /// Kernel interface that holds the rules.
    #[serde(default)]
    pub backend: PolicyBackend,
    /// Which iptables is used when the backend is iptables, and for the router's own rules.
    #[serde(default)]
    pub iptables_variant: IptablesVariant,
    /// Whether denied packets are logged (rate limited) by npc.
    #[serde(default)]
    pub deny_log: Toggle,
}

/// Kernel interface for policy rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyBackend {
    /// Chosen on the node.
    #[default]
    Auto,
    /// iptables and ipset.
    Iptables,
    /// nftables.
    Nftables,
}

/// Which of the two iptables is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IptablesVariant {
    /// The one in which the host already keeps its rules.
    #[default]
    Auto,
    /// `iptables-legacy` (x_tables).
    Legacy,
    /// `iptables-nft`.
    Nft,
}

/// Directories of the container runtime on the nodes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cni {
    /// Where the runtime looks for CNI plugins.
    #[serde(default = "bin_dir")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("must be an absolute path"))]
    pub bin_dir: String,
    /// Where the runtime looks for CNI configuration.
    #[serde(default = "conf_dir")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("must be an absolute path"))]
    pub conf_dir: String,
}

fn bin_dir() -> String {
    "/opt/cni/bin".into()
}

fn conf_dir() -> String {
    "/etc/cni/net.d".into()
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            bin_dir: bin_dir(),
            conf_dir: conf_dir(),
        }
    }
}

/// How a new version of the node agent reaches the nodes.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes may be without a ready agent at the same time because of the roll-out.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_unavailable: u32,
}

fn one() -> u32 {
    1
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            max_unavailable: one(),
        }
    }
}

/// Observed state of the pod network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WeftNetworkStatus {
    /// `Available`, `Progressing`, `Degraded`.
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// One line that says how it stands.
    pub summary: String,
    /// `ready/total` node agents.
    pub nodes: String,
    /// Node agents that are ready.
    pub nodes_ready: u32,
    /// Node agents that are wanted.
    pub nodes_total: u32,
    /// How many nodes run which version.
    #[schemars(length(max = 16))]
    pub versions: Vec<VersionCount>,
    /// `metadata.generation` this status is about.
    pub observed_generation: i64,
}

/// How many nodes run a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionCount {
    /// Version of the router.
    pub version: String,
    /// Number of nodes.
    pub nodes: u32,
}
