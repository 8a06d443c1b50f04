//! The stage in namespaces: a node with the bridge `weave`, one namespace per local pod, one for
//! everything behind `vethwe-bridge`, one for the rest of the world.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use weft_policy::cases::{self, Cluster};
use weft_testkit::netns::Netns;

/// The namespace that an address lives in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Where {
    /// The node itself.
    Node,
    /// A pod of the node, by its host device.
    Local(String),
    /// Another node or its pods.
    Remote,
    /// Routed.
    Outside,
}

fn within(address: IpAddr, nets: &[&str]) -> bool {
    let net = |text: &&str| text.parse::<IpNet>().expect("net");
    nets.iter().any(|text| net(text).contains(&address))
}

impl Where {
    /// Where the address is at this moment of a case.
    pub(crate) fn of(address: IpAddr, cluster: &Cluster) -> Self {
        let gateway = |text: &&str| text.parse::<IpAddr>().expect("address") == address;
        let mut attached = cluster.endpoints.values();
        if cases::GATEWAYS.iter().any(gateway) {
            Self::Node
        } else if let Some(endpoint) = attached.find(|e| e.addresses.contains(&address)) {
            Self::Local(endpoint.host_ifname.clone())
        } else if within(address, &cases::BLOCKS) {
            // Nobody's: a pod that npc does not know.
            Self::Local("vethweplstray".to_owned())
        } else if within(address, &cases::POOLS) {
            Self::Remote
        } else {
            Self::Outside
        }
    }
}

/// The namespaces.
pub(crate) struct Stage {
    pub(crate) node: Netns,
    others: BTreeMap<Where, Netns>,
    addresses: BTreeMap<IpAddr, Where>,
}

/// No duplicate address detection (it takes a second), no limit on port-unreachables, pings for
/// everybody.
const SYSCTLS: &str = "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv6.conf.default.router_solicitations=0 net.ipv4.icmp_ratelimit=0 \
    net.ipv6.icmp.ratelimit=0 net.ipv4.icmp_msgs_per_sec=100000 \
    net.ipv4.ping_group_range='0 2147483647' net.ipv6.conf.all.disable_ipv6=0";

/// Routes of a pod.
const ROUTES: &str = "&& ip route replace 10.32.0.0/12 dev eth0 && \
    ip -6 route replace 2001:db8::10.32.0.0/108 dev eth0 && \
    ip route replace default via 10.32.0.1 && ip -6 route replace default via 2001:db8::10.32.0.1";

fn namespace() -> Netns {
    let ns = Netns::new();
    ns.sh(SYSCTLS);
    ns
}

impl Stage {
    /// The node, the other nodes and the world.
    pub(crate) fn new() -> Self {
        let node = namespace();
        // Only this bridge calls iptables, whatever the sysctl says. Its MAC is set: left alone it
        // would be the lowest of its ports' and change under the pods' neighbour entries.
        node.sh(
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
             net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 && \
             ip link add weave address 02:00:00:00:00:01 type bridge nf_call_iptables 1 nf_call_ip6tables 1 && \
             ip link set weave up && ip addr add 10.32.0.1/12 dev weave && \
             ip addr add 2001:db8::10.32.0.1/108 dev weave nodad",
        );
        let mut stage = Self {
            node,
            others: BTreeMap::new(),
            addresses: BTreeMap::new(),
        };
        let remote = stage.wire("vethwe-bridge", true);
        stage.others.insert(Where::Remote, remote);
        let outside = stage.wire("eth0", false);
        stage.node.sh(
            "ip addr add 198.18.0.1/24 dev eth0 && ip addr add 2001:db8:f::1/64 dev eth0 nodad && \
             ip route add default via 198.18.0.2 && ip -6 route add default via 2001:db8:f::2",
        );
        outside.sh(
            "ip addr add 198.18.0.2/24 dev eth0 && ip addr add 2001:db8:f::2/64 dev eth0 nodad && \
             ip route add 10.32.0.0/12 via 198.18.0.1 && \
             ip -6 route add 2001:db8::10.32.0.0/108 via 2001:db8:f::1",
        );
        stage.others.insert(Where::Outside, outside);
        stage
    }

    /// A namespace whose eth0 is wired to `device` of the node.
    fn wire(&self, device: &str, port: bool) -> Netns {
        let ns = namespace();
        let master = if port {
            format!(
                "ip link set {device} master weave && bridge link set dev {device} hairpin on &&"
            )
        } else {
            String::new()
        };
        self.node.sh(&format!(
            "ip link add {device} type veth peer name eth0 netns {} && {master} \
             ip link set {device} up",
            ns.name()
        ));
        ns.sh("ip link set eth0 up");
        ns
    }

    /// Sees to it that the address is where it should be.
    pub(crate) fn put(&mut self, address: IpAddr, place: &Where) {
        if *place == Where::Node {
            return;
        }
        if let Where::Local(device) = place
            && !self.others.contains_key(place)
        {
            let ns = self.wire(device, true);
            self.others.insert(place.clone(), ns);
        }
        if self.addresses.get(&address) == Some(place) {
            return;
        }
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let net = IpNet::from(address);
        let device = if *place == Where::Outside {
            "lo"
        } else {
            "eth0"
        };
        if let Some(before) = self.addresses.insert(address, place.clone()) {
            let device = if before == Where::Outside {
                "lo"
            } else {
                "eth0"
            };
            self.namespace(&before)
                .sh(&format!("ip {family} addr del {net} dev {device}"));
            // Whoever spoke with it looks again.
            for ns in self.others.values().chain([&self.node]) {
                ns.sh("ip -4 neigh flush all; ip -6 neigh flush all");
            }
        }
        // A device that loses its last address loses its routes too.
        let routes = match place {
            Where::Outside | Where::Node => "",
            Where::Local(_) | Where::Remote => ROUTES,
        };
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        self.namespace(place).sh(&format!(
            "ip {family} addr add {net} dev {device} {nodad} {routes}"
        ));
    }

    /// A namespace of the stage.
    pub(crate) fn namespace(&self, place: &Where) -> &Netns {
        match place {
            Where::Node => &self.node,
            Where::Local(_) | Where::Remote | Where::Outside => &self.others[place],
        }
    }
}
