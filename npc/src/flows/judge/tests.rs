use std::net::IpAddr;

use weft_policy::Index;
use weft_testkit::builders::{
    ip_block, make_namespace, make_network_policy, make_pod, pods, selector,
};

use super::*;
use crate::state::tests::attached;

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Pods of this node: `x/web` (10.32.0.2, fd10:32::2) lets `x/friend` (10.32.0.3) in by TCP 80 and
/// sends to nobody but 203.0.113.0/24; `x/free` (10.32.0.4); `x/late` (10.32.0.5), which has no Pod
/// yet. Another node's: `x/far` (10.32.1.9), a friend too.
fn model() -> PolicyModel {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    let http = serde_json::from_value(serde_json::json!([{"port": 80, "protocol": "TCP"}]));
    let mut policy = make_network_policy("x", "p")
        .types(&["Ingress", "Egress"])
        .ingress(vec![pods(&[("app", "friend")])], http.expect("ports"))
        .egress(vec![ip_block("203.0.113.0/24", &[])], vec![])
        .build();
    policy.spec.get_or_insert_default().pod_selector = Some(selector(&[("app", "web")]));
    index.apply_network_policy(&policy);
    for (name, last) in [("web", 2), ("friend", 3), ("free", 4), ("late", 5)] {
        if name != "late" {
            let pod = make_pod("x", name).label("app", name).uid(name).node("n1");
            index.apply_pod(&pod.build());
        }
        let addresses = [format!("10.32.0.{last}"), format!("fd10:32::{last}")];
        let (id, endpoint) = attached(&format!("x/{name}"), &addresses.each_ref().map(|a| &**a));
        index.apply_endpoint(id, endpoint);
    }
    let far = make_pod("x", "far").label("app", "friend").node("n2");
    index.apply_pod(&far.address("10.32.1.9").build());
    index.model()
}

/// Addresses and ports of one direction.
fn tuple(protocol: u8, source: (&str, u16), destination: (&str, u16)) -> Tuple {
    Tuple {
        source: address(source.0),
        destination: address(destination.0),
        protocol: weft_netfilter::Protocol(protocol),
        ports: Some((source.1, destination.1)),
        icmp_type: None,
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

fn forbids(original: &Tuple, reply: &Tuple) -> bool {
    let own = ["10.32.0.1", "192.0.2.1"].map(address).into();
    Judge::new(&model(), &own).forbids(original, reply)
}

/// A flow without translation.
fn plain(protocol: u8, source: &str, destination: &str, port: u16) -> bool {
    let (client, server) = ((source, 40_000), (destination, port));
    forbids(
        &tuple(protocol, client, server),
        &tuple(protocol, server, client),
    )
}

#[test]
fn a_flow_is_judged_as_its_first_packet_would_be() {
    for (protocol, source, destination, port, expected) in [
        (TCP, "10.32.0.3", "10.32.0.2", 80, false),
        (TCP, "10.32.1.9", "10.32.0.2", 80, false),
        (TCP, "10.32.0.3", "10.32.0.2", 81, true),
        (UDP, "10.32.0.3", "10.32.0.2", 80, true),
        (TCP, "10.32.0.4", "10.32.0.2", 80, true),
        (TCP, "10.32.1.8", "10.32.0.2", 80, true),
        (TCP, "198.51.100.7", "10.32.0.2", 80, true),
        (TCP, "10.32.0.2", "203.0.113.7", 443, false),
        (TCP, "10.32.0.2", "198.51.100.7", 443, true),
        (UDP, "10.32.0.2", "10.32.0.4", 53, true),
        // Both ends without policy, and one of nobody here.
        (TCP, "10.32.0.3", "10.32.0.4", 80, false),
        (TCP, "10.32.1.9", "198.51.100.7", 80, false),
        (TCP, "10.32.0.50", "198.51.100.7", 80, false),
        // To itself.
        (TCP, "10.32.0.2", "10.32.0.2", 81, false),
        // Nobody knows yet which policies it has.
        (TCP, "10.32.0.5", "198.51.100.7", 443, true),
        (TCP, "fd10:32::3", "fd10:32::2", 80, false),
        (TCP, "fd10:32::4", "fd10:32::2", 80, true),
    ] {
        let found = plain(protocol, source, destination, port);
        assert_eq!(
            found, expected,
            "{protocol} {source} -> {destination}:{port}"
        );
    }
}

#[test]
fn answers_are_not_asked_about() {
    // The server may not send to its client by itself.
    assert!(plain(TCP, "10.32.0.2", "10.32.0.3", 40_000));
    assert!(!plain(TCP, "10.32.0.3", "10.32.0.2", 80));
}

#[test]
fn a_service_is_judged_by_the_pod_behind_it() {
    for (client, expected) in [("10.32.0.3", false), ("10.32.0.4", true)] {
        let original = tuple(TCP, (client, 40_000), ("10.96.0.10", 8080));
        let reply = tuple(TCP, ("10.32.0.2", 80), (client, 40_000));
        assert_eq!(forbids(&original, &reply), expected, "{client}");
    }
    // Also for the client: 203.0.113.7 is the Service, what is behind it is forbidden.
    let original = tuple(TCP, ("10.32.0.2", 40_000), ("203.0.113.7", 443));
    let reply = tuple(TCP, ("10.32.1.9", 443), ("10.32.0.2", 40_000));
    assert!(forbids(&original, &reply));
}

#[test]
fn a_source_that_is_hidden_on_leaving_is_judged_by_its_own_address() {
    for (server, expected) in [("203.0.113.7", false), ("198.51.100.7", true)] {
        let original = tuple(TCP, ("10.32.0.2", 40_000), (server, 443));
        let reply = tuple(TCP, (server, 443), ("192.0.2.1", 51_234));
        assert_eq!(forbids(&original, &reply), expected, "{server}");
    }
}

#[test]
fn what_the_node_sends_is_never_cut_and_what_it_is_sent_is() {
    for node in ["10.32.0.1", "192.0.2.1"] {
        assert!(!plain(TCP, node, "10.32.0.2", 81), "from {node}");
        assert!(plain(TCP, "10.32.0.2", node, 10_250), "to {node}");
        assert!(!plain(TCP, "10.32.0.3", node, 10_250), "to {node}");
    }
    // A node port, asked on the node itself.
    let original = tuple(TCP, ("127.0.0.1", 40_000), ("127.0.0.1", 30_080));
    let reply = tuple(TCP, ("10.32.0.2", 80), ("10.32.0.1", 40_000));
    assert!(!forbids(&original, &reply));
}

#[test]
fn echoes_and_other_protocols_pass_rules_without_ports_only() {
    let echo = |source, destination, kinds: [u8; 2]| {
        let one = |source, destination, kind| Tuple {
            ports: None,
            icmp_type: Some(kind),
            ..tuple(1, (source, 0), (destination, 0))
        };
        let [ask, answer] = kinds;
        forbids(
            &one(source, destination, ask),
            &one(destination, source, answer),
        )
    };
    assert!(echo("10.32.0.3", "10.32.0.2", [8, 0]));
    assert!(!echo("10.32.0.2", "203.0.113.7", [8, 0]));
    assert!(!echo("10.32.0.4", "10.32.0.3", [8, 0]));
    let gre = |source, destination| {
        let one = |source, destination| tuple(47, (source, 1), (destination, 2));
        forbids(&one(source, destination), &one(destination, source))
    };
    assert!(gre("10.32.0.3", "10.32.0.2"));
    assert!(!gre("10.32.0.2", "203.0.113.7"));
}

#[test]
fn a_node_without_policies_forbids_nothing() {
    assert!(has_closed(&model()));
    let mut open = model();
    open.subjects.retain(|key, _| &*key.pod.name == "free");
    assert!(!has_closed(&open));
}

#[test]
fn loopback_is_among_the_node_s_addresses() {
    let own = own_addresses().expect("addresses");
    assert!(own.contains(&address("127.0.0.1")), "{own:?}");
}
