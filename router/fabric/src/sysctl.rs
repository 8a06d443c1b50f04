//! Kernel settings below `net`.

use crate::{input::Input, names};

/// What a setting shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// This.
    Exactly(u32),
    /// This or more.
    AtLeast(u32),
    /// The second where it is the first; anything else is somebody's choice and stays.
    Instead(u32, u32),
}

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Path below `/proc/sys/net`.
    pub path: String,
    /// Wanted value.
    pub value: Value,
    /// Without it the fabric does not work. Others may be missing (IPv6 off, a setting that only
    /// the initial network namespace has).
    pub required: bool,
}

impl Sysctl {
    /// What must be written, given what is there; `None` if it is right.
    #[must_use]
    pub fn missing(&self, current: &str) -> Option<u32> {
        let current: Option<u32> = current.trim().parse().ok();
        match self.value {
            Value::Exactly(v) => (current != Some(v)).then_some(v),
            Value::AtLeast(v) => current.is_none_or(|c| c < v).then_some(v),
            Value::Instead(old, new) => (current == Some(old)).then_some(new),
        }
    }
}

/// Settings of the node. `bridge-nf-call-iptables` is not among them: the attribute on `weave`
/// does what policies need, and others on the node may rely on theirs.
pub(crate) fn sysctls(input: &Input) -> Vec<Sysctl> {
    let set = |path: String, value: u32, required: bool| Sysctl {
        path,
        value: Value::Exactly(value),
        required,
    };
    let weave = names::WEAVE;
    let mut all = vec![
        set("ipv4/ip_forward".into(), 1, true),
        // A pod whose next hop is on the same wire must not be told so: the redirect would bypass
        // policy. The kernel takes "all" OR the device's.
        set("ipv4/conf/all/send_redirects".into(), 0, true),
        set(format!("ipv4/conf/{weave}/send_redirects"), 0, true),
        // Loose: replies to a node's other addresses come in by `weave`. The kernel takes the
        // larger of "all" and the device's, and 2 is loose.
        set(format!("ipv4/conf/{weave}/rp_filter"), 2, false),
    ];
    // An address moves to another node with its MAC, or to a pod with another one (an IPv6 address
    // of a pod whose MAC is made of its IPv4 address): notice within seconds (as Weave Net).
    for family in ["ipv4", "ipv6"] {
        for (name, value) in [
            ("base_reachable_time_ms", 5000),
            ("delay_first_probe_time", 2),
            ("ucast_solicit", 1),
        ] {
            all.push(set(format!("{family}/neigh/{weave}/{name}"), value, false));
        }
    }
    let tunnel = names::tunnel(input.port);
    let inner = [
        names::VETH_BRIDGE,
        names::VETH_DATAPATH,
        names::DATAPATH,
        &tunnel,
    ];
    // Rogue router advertisements from a pod (CVE-2020-11091).
    all.push(set(format!("ipv6/conf/{weave}/accept_ra"), 0, false));
    for device in inner {
        all.push(set(format!("ipv6/conf/{device}/accept_ra"), 0, false));
        // The inner devices speak no IPv6 themselves: no neighbour discovery of their own.
        all.push(set(format!("ipv6/conf/{device}/disable_ipv6"), 1, false));
    }
    if input.has_v6() {
        // A host may switch IPv6 off by default; `weave` has the gateway.
        all.push(set(format!("ipv6/conf/{weave}/disable_ipv6"), 0, true));
        // A host that forwards forgets the default route that it has from router advertisements,
        // unless the interface has 2 here. So before it becomes one.
        for link in &input.underlay_links {
            all.push(Sysctl {
                path: format!("ipv6/conf/{link}/accept_ra"),
                value: Value::Instead(1, 2),
                required: false,
            });
        }
        all.push(set("ipv6/conf/all/forwarding".into(), 1, true));
    }
    // Every pod of the cluster is on-link; the default of 1,024 neighbours is one per kernel.
    for family in ["ipv4", "ipv6"] {
        for (n, least) in [(1, 4096), (2, 16384), (3, 32768)] {
            all.push(Sysctl {
                path: format!("{family}/neigh/default/gc_thresh{n}"),
                value: Value::AtLeast(least),
                required: false,
            });
        }
    }
    all
}
