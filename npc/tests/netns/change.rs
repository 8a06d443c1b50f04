//! A change of policies and pods, and the packets that tell its two ends apart.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::networking::v1::NetworkPolicyPort, apimachinery::pkg::util::intstr::IntOrString,
};
use weft_netfilter::{
    Family, Ruleset,
    trace::{Names, Packet, Pass, Way},
};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey};
use weft_policy_compile::compile;
use weft_testkit::builders::{ip_block, make_namespace, make_network_policy, make_pod, pods};

use crate::node;

fn address(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 32, 0, host]),
        Family::V6 => format!("fd10:32::{host:x}").parse().expect("address"),
    }
}

fn outside(family: Family, host: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, host]),
        Family::V6 => format!("2001:db8::{host:x}").parse().expect("address"),
    }
}

/// Pods by the last part of their addresses; 70 is on another node.
const PODS: [(&str, u8); 6] = [("a", 2), ("b", 3), ("c", 4), ("d", 5), ("e", 6), ("r", 70)];

fn index(present: &str) -> Index {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    for (name, host) in PODS.into_iter().filter(|(name, _)| present.contains(name)) {
        let addresses = Family::ALL.map(|family| address(family, host));
        let server = if "ac".contains(name) { "yes" } else { "no" };
        let mut pod = make_pod("x", name)
            .label("app", name)
            .label("server", server)
            .port("http", "TCP", 8080)
            .node(if name == "r" { "n2" } else { "n1" });
        for address in addresses {
            pod = pod.address(&address.to_string());
        }
        index.apply_pod(&pod.build());
        if name != "r" {
            let endpoint = Endpoint {
                pod: ObjectKey::new("x", name),
                uid: format!("uid-x-{name}").as_str().into(),
                addresses: addresses.into(),
                host_ifname: format!("vethwepl{name}"),
            };
            index.apply_endpoint(EndpointId::new(name, "eth0"), endpoint);
        }
    }
    index
}

fn port(protocol: &str, port: IntOrString) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(port),
        ..NetworkPolicyPort::default()
    }
}

fn app(name: &str) -> Vec<k8s_openapi::api::networking::v1::NetworkPolicyPeer> {
    vec![pods(&[("app", name)])]
}

/// A change with something of everything: pods come and go, a policy gets other subjects, peers,
/// blocks and ports, others appear and disappear.
pub(crate) fn rulesets() -> (Ruleset, Ruleset) {
    let blocks =
        |v4: &str, except: &[&str]| vec![ip_block(v4, except), ip_block("2001:db8::/64", &[])];
    let tcp = |number| vec![port("TCP", IntOrString::Int(number))];
    let mut old = index("abcdr");
    for policy in [
        make_network_policy("x", "p")
            .selects(&[("app", "a")])
            .types(&["Ingress"])
            .ingress(app("b"), tcp(80))
            .ingress(blocks("203.0.113.0/24", &["203.0.113.128/25"]), vec![]),
        make_network_policy("x", "q")
            .selects(&[("app", "b")])
            .types(&["Egress"])
            .egress(app("a"), tcp(80))
            .egress(app("r"), vec![]),
        make_network_policy("x", "r")
            .selects(&[("app", "d")])
            .types(&["Ingress", "Egress"]),
    ] {
        old.apply_network_policy(&policy.build());
    }
    let mut new = index("abcer");
    for policy in [
        make_network_policy("x", "p")
            .selects(&[("server", "yes")])
            .types(&["Ingress"])
            .ingress(app("e"), vec![])
            .ingress(app("r"), vec![port("UDP", IntOrString::Int(53))])
            .ingress(blocks("203.0.112.0/23", &[]), tcp(80)),
        make_network_policy("x", "q")
            .selects(&[("app", "b")])
            .types(&["Egress"])
            .egress(
                app("c"),
                vec![port("TCP", IntOrString::String("http".to_owned()))],
            )
            .egress(app("r"), vec![]),
        make_network_policy("x", "s")
            .selects(&[("app", "e")])
            .types(&["Ingress"])
            .ingress(app("a"), vec![]),
    ] {
        new.apply_network_policy(&policy.build());
    }
    (
        compile(&old.model(), &node()),
        compile(&new.model(), &node()),
    )
}

/// Every end to every other, by everything that policies tell apart.
pub(crate) fn packets() -> Vec<(Packet, Vec<Pass>)> {
    let mut packets = Vec::new();
    let names = Names::default();
    for family in Family::ALL {
        let mut ends: BTreeMap<IpAddr, &str> = PODS
            .into_iter()
            .map(|(name, host)| (address(family, host), name))
            .collect();
        ends.insert(address(family, 60), "stray");
        ends.insert(outside(family, 9), "outside");
        ends.insert(outside(family, 200), "outside");
        let device = |name: &str| format!("vethwepl{}", &name[..1]);
        for (from, source) in &ends {
            for (to, destination) in &ends {
                let (here, there) = (device(source), device(destination));
                let way = match (*source, *destination) {
                    ("r" | "outside", "r" | "outside") => continue,
                    ("r", _) => Way::RemoteToPod { to: there },
                    ("outside", _) => Way::OutsideToPod,
                    (_, "r") => Way::PodToRemotePod { from: here },
                    (_, "outside") => Way::PodToOutside { from: here },
                    _ => Way::PodToPod {
                        from: here,
                        to: there,
                    },
                };
                for packet in [
                    Packet::tcp(*from, *to, 80),
                    Packet::tcp(*from, *to, 8080),
                    Packet::udp(*from, *to, 53),
                    Packet::ping(*from, *to),
                ] {
                    packets.push((packet, way.passes(&names)));
                }
            }
        }
    }
    packets
}
