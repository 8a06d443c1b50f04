//! Links, addresses, routes and FDB entries.

use ipnet::IpNet;
use weft_netlink::{
    Address, Bridge, Desired, FdbEntry, GROUP, IfName, Kind, Link, MacAddr, Owner, Port, Route,
    Vxlan,
};

use crate::{
    identity::device_mac,
    input::Input,
    names::{self, ifname},
};

/// VXLAN network identifier of every fabric: clusters that share an underlay differ by port.
pub(crate) const VNI: u32 = 6784;
/// Seconds a learned MAC lives in the bridges (the kernel's default).
const AGEING: u32 = 300;

pub(crate) fn devices(input: &Input, mtu: u32) -> Desired {
    let mut desired = Desired::default();
    links(input, mtu, &mut desired);

    let weave = ifname(names::WEAVE);
    for gateway in &input.gateways {
        let net = input.pool_of(*gateway);
        if let Some(net) = net.and_then(|p| IpNet::new(*gateway, p.prefix_len()).ok()) {
            desired.addresses.insert(Address {
                link: weave.clone(),
                net,
            });
        }
    }
    // The pool of a gateway is on-link by the address; the others need a route.
    for pool in &input.pools {
        let by_address = input.gateways.iter().any(|g| pool.contains(g));
        let reachable = input
            .gateways
            .iter()
            .any(|g| g.is_ipv4() == pool.addr().is_ipv4());
        if !by_address && reachable {
            desired.routes.insert(Route {
                link: weave.clone(),
                destination: pool.trunc(),
            });
        }
    }
    let tunnel = ifname(&names::tunnel(input.port));
    for remote in input.remotes() {
        desired.fdb.insert(FdbEntry::Tunnel {
            link: tunnel.clone(),
            mac: MacAddr::ZERO,
            remote,
        });
    }
    for (link, pod) in &input.pods {
        desired.pod_ports.insert(link.clone(), pod_port(&weave));
        desired.fdb.insert(FdbEntry::Port {
            link: link.clone(),
            mac: pod.mac,
        });
    }
    desired
}

/// Flags of a pod's port: nothing is learned from a pod, frames to unknown MACs are not shown to
/// it, and it may reach itself through a Service.
fn pod_port(weave: &IfName) -> Port {
    Port {
        bridge: weave.clone(),
        learning: false,
        unicast_flood: false,
        hairpin: true,
    }
}

fn links(input: &Input, mtu: u32, desired: &mut Desired) {
    let alias = Owner::new(&input.cluster_id).fabric_alias();
    let link = |kind: Kind, mac: Option<MacAddr>, bridge: Option<&str>| Link {
        kind,
        alias: alias.clone(),
        group: GROUP,
        mac,
        mtu: Some(mtu),
        up: Some(true),
        port: bridge.map(|b| Port {
            bridge: ifname(b),
            learning: true,
            unicast_flood: true,
            hairpin: false,
        }),
    };
    let bridge = |filtered: bool| {
        Kind::Bridge(Bridge {
            ageing: AGEING,
            // Without a querier snooping would prune groups; Weave floods them.
            multicast_snooping: false,
            // On `weave` itself, so that policies hold whatever becomes of the sysctl; never on
            // `datapath`, where a second pass would collide with the first after DNAT.
            nf_call_iptables: filtered,
            nf_call_ip6tables: filtered,
            nf_call_arptables: false,
        })
    };
    let veth = |peer: &str| Kind::Veth {
        peer: Some(ifname(peer)),
    };
    let mac = |device| Some(device_mac(&input.node_uid, device));
    let tunnel = Kind::Vxlan(Vxlan {
        vni: VNI,
        port: input.port,
        local: Some(input.underlay),
        learning: true,
    });
    let tunnel_name = names::tunnel(input.port);
    let all = [
        (names::WEAVE, link(bridge(true), mac(names::WEAVE), None)),
        (
            names::DATAPATH,
            link(bridge(false), mac(names::DATAPATH), None),
        ),
        (
            names::VETH_BRIDGE,
            link(veth(names::VETH_DATAPATH), None, Some(names::WEAVE)),
        ),
        (
            names::VETH_DATAPATH,
            link(veth(names::VETH_BRIDGE), None, Some(names::DATAPATH)),
        ),
        (&tunnel_name, link(tunnel, None, Some(names::DATAPATH))),
    ];
    desired
        .links
        .extend(all.into_iter().map(|(name, link)| (ifname(name), link)));
}
