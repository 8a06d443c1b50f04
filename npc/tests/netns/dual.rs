//! The bridge and the pods of a node with both families.

use std::net::IpAddr;

use weft_socket::Endpoint;
use weft_testkit::netns::Netns;

use crate::world::{self, World};

/// IPv6 even where it is off, and no duplicate address detection: it takes a second.
const SYSCTLS: &str = "sysctl -qw net.ipv6.conf.all.accept_dad=0 \
    net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.disable_ipv6=0";

/// Addresses of pod `n`: IPv4, IPv6.
pub(crate) fn addresses(n: u8) -> [IpAddr; 2] {
    [format!("10.32.0.{n}"), format!("fd10:32::{n}")].map(|a| a.parse().expect("address"))
}

/// Pod `n` as the router lists it.
pub(crate) fn endpoint(n: u8) -> Endpoint {
    Endpoint {
        addresses: addresses(n).into(),
        ..world::endpoint(n)
    }
}

impl World {
    /// The bridge as the router sets it up, and the router says so. Only the bridge itself says that
    /// its frames meet rules.
    pub(crate) fn dual_bridge(&self) {
        self.ns.sh(&format!(
            "{SYSCTLS} net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 && \
             ip link add weave address 02:00:00:00:00:01 type bridge nf_call_iptables 1 \
             nf_call_ip6tables 1 && ip link set weave alias weft/c/fabric && \
             ip link set weave up && ip addr add 10.32.0.1/12 dev weave && \
             ip addr add fd10:32::1/64 dev weave nodad"
        ));
        let mut attached = self.attached.lock().expect("attachments");
        attached.blocks.push("fd10:32::/122".parse().expect("net"));
        let gateway = "fd10:32::1".parse().expect("address");
        attached.gateways.push(gateway);
    }

    /// A namespace that is pod `n`.
    pub(crate) fn dual_wire(&self, n: u8) -> Netns {
        let ns = self.port(&format!("vethwepl{n}"));
        ns.sh(&format!(
            "{SYSCTLS} && ip link set eth0 up && ip addr add 10.32.0.{n}/12 dev eth0 && \
             ip addr add fd10:32::{n}/64 dev eth0 nodad"
        ));
        ns
    }
}
