//! Which hooks a packet passes on a node, by where it comes from and goes to. Tried on a kernel:
//! the table in docs of the bridge hooks (bridged packets show the bridge as device, and pass a
//! second time on `datapath` where that bridge calls iptables too).

use super::Pass;
use crate::Hook;

/// Names of the devices on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The pods' bridge.
    pub bridge: String,
    /// Its port towards the switch.
    pub bridge_port: String,
    /// The switch.
    pub datapath: String,
    /// Its port towards the bridge.
    pub datapath_port: String,
    /// Its port towards other nodes.
    pub tunnel: String,
    /// The node's device to the world.
    pub uplink: String,
    /// Does the switch call iptables too (the sysctl is 1)?
    pub datapath_filters: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            bridge: "weave".to_owned(),
            bridge_port: "vethwe-bridge".to_owned(),
            datapath: "datapath".to_owned(),
            datapath_port: "vethwe-datapath".to_owned(),
            tunnel: "vxlan-6784".to_owned(),
            uplink: "eth0".to_owned(),
            datapath_filters: true,
        }
    }
}

/// How a packet travels through one node. Pods are named by their host device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Between two pods of the node (also a pod to itself).
    PodToPod {
        /// Sender.
        from: String,
        /// Receiver.
        to: String,
    },
    /// On the sender's node.
    PodToRemotePod {
        /// Sender.
        from: String,
    },
    /// On the receiver's node; also from the host of another node.
    RemoteToPod {
        /// Receiver.
        to: String,
    },
    /// The node itself to one of its pods.
    NodeToPod,
    /// A pod to its node.
    PodToNode {
        /// Sender.
        from: String,
    },
    /// The node itself to a pod of another node.
    NodeToRemotePod,
    /// Routed in.
    OutsideToPod,
    /// Routed out.
    PodToOutside {
        /// Sender.
        from: String,
    },
}

impl Way {
    /// The passes in order.
    #[must_use]
    pub fn passes(&self, names: &Names) -> Vec<Pass> {
        let Names {
            bridge,
            bridge_port,
            datapath,
            datapath_port,
            tunnel,
            uplink,
            ..
        } = names;
        let bridged = |device: &str, phys_in: &str, phys_out: &str| {
            vec![
                Pass::new(Hook::Prerouting, Some(device), None).ports(Some(phys_in), None),
                Pass::new(Hook::Forward, Some(device), Some(device))
                    .ports(Some(phys_in), Some(phys_out)),
                Pass::new(Hook::Postrouting, None, Some(device))
                    .ports(Some(phys_in), Some(phys_out)),
            ]
        };
        let switched = |phys_in: &str, phys_out: &str| {
            if names.datapath_filters {
                bridged(datapath, phys_in, phys_out)
            } else {
                Vec::new()
            }
        };
        match self {
            Self::PodToPod { from, to } => bridged(bridge, from, to),
            Self::PodToRemotePod { from } => [
                bridged(bridge, from, bridge_port),
                switched(datapath_port, tunnel),
            ]
            .concat(),
            Self::RemoteToPod { to } => [
                switched(tunnel, datapath_port),
                bridged(bridge, bridge_port, to),
            ]
            .concat(),
            Self::NodeToPod => vec![
                Pass::new(Hook::Output, None, Some(bridge)),
                Pass::new(Hook::Postrouting, None, Some(bridge)),
            ],
            Self::PodToNode { from } => vec![
                Pass::new(Hook::Prerouting, Some(bridge), None).ports(Some(from), None),
                Pass::new(Hook::Input, Some(bridge), None).ports(Some(from), None),
            ],
            Self::NodeToRemotePod => [
                vec![
                    Pass::new(Hook::Output, None, Some(bridge)),
                    Pass::new(Hook::Postrouting, None, Some(bridge)),
                ],
                switched(datapath_port, tunnel),
            ]
            .concat(),
            Self::OutsideToPod => vec![
                Pass::new(Hook::Prerouting, Some(uplink), None),
                Pass::new(Hook::Forward, Some(uplink), Some(bridge)),
                Pass::new(Hook::Postrouting, None, Some(bridge)),
            ],
            Self::PodToOutside { from } => vec![
                Pass::new(Hook::Prerouting, Some(bridge), None).ports(Some(from), None),
                Pass::new(Hook::Forward, Some(bridge), Some(uplink)).ports(Some(from), None),
                Pass::new(Hook::Postrouting, None, Some(uplink)).ports(Some(from), None),
            ],
        }
    }
}
