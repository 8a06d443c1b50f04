//! What the fabric of a node shall be: from configuration, peers and pods to devices, sysctls,
//! iptables rules and port rules, as values that print and compare.
//!
//! ```text
//!  pod eth0 -- vethwepl1a2b3c4 -- [weave] -- vethwe-bridge|vethwe-datapath -- [datapath] -- vxlan-6784
//!
//!  Input (node, peers, pools, pods) -> fabric() -> Fabric { devices, sysctls, rules, ports, shortcut, mtu }
//! ```
//!
//! The crate decides and does nothing: the router dumps, compares and applies. It must not know
//! Kubernetes, a clock, the environment, or how anything is written to the kernel.

mod devices;
mod identity;
mod input;
pub mod names;
mod ports;
mod rules;
mod shortcut;
mod sysctl;

pub use identity::device_mac;
pub use input::{Input, InputError, PodPort, check};
pub use ports::{Change, Delta, PortRules, TABLE, TABLE_KEY};
pub use shortcut::{SHORTCUT, Shortcut};
pub use sysctl::{Sysctl, Value};

use weft_netfilter::Ruleset;
use weft_netlink::Desired;

/// Everything a node's fabric consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric {
    /// MTU of new pods, in bytes: what fits through the tunnel in one packet. Bridges and tunnel
    /// have it too, or more while pods of a larger MTU live.
    pub mtu: u32,
    /// Links, addresses, routes and FDB entries.
    pub devices: Desired,
    /// Kernel settings, in the order in which they are written (devices exist by then).
    pub sysctls: Vec<Sysctl>,
    /// Chains and sets of the router in iptables and ip6tables.
    pub rules: Ruleset,
    /// `table bridge weft`: what may come in by a pod's port.
    pub ports: PortRules,
    /// `table netdev weft`: the straight way through `datapath`.
    pub shortcut: Shortcut,
}

/// Decides the whole fabric of a node.
///
/// # Errors
/// The input contradicts itself; see [`InputError`].
pub fn fabric(input: &Input) -> Result<Fabric, InputError> {
    let mtu = check(input)?;
    Ok(Fabric {
        mtu,
        // A bridge drops a frame that is larger than the port it leaves by, without a word. The
        // tunnel answers it with ICMP by the underlay's path MTU (Linux 5.9), or sends it in
        // fragments where the sender allows that: so the large frames of older pods must get there.
        devices: devices::devices(input, mtu.max(input.pods_mtu.unwrap_or(0))),
        sysctls: sysctl::sysctls(input),
        rules: rules::rules(input),
        ports: ports::ports(input),
        shortcut: shortcut::shortcut(input),
    })
}

#[cfg(test)]
mod tests;
