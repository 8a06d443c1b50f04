//! A stricter policy cuts the established flows that it forbids, and no others; a looser one lets
//! them go on. Servers push and clients are silent: deleting a flow would not end it.

#[path = "flows/node.rs"]
pub(crate) mod node;

use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1 as networking;
use weft_testkit::{
    builders::{ip_block, make_network_policy, pods},
    eventually::{eventually, eventually_eq},
};

use self::node::{Node, at, local, remote};
use crate::{
    api::{PODS, POLICIES},
    push::{Flow, Transport},
    world::PATIENCE,
};

/// What is promised, from the write to the API to the last byte.
const PROMISE: Duration = Duration::from_secs(1);

/// Pod 2 lets in who has one of these labels, and `peers`.
fn lets_in(
    apps: &[&str],
    mut peers: Vec<networking::NetworkPolicyPeer>,
) -> networking::NetworkPolicy {
    peers.extend(apps.iter().map(|app| pods(&[("app", app)])));
    let policy = make_network_policy("default", "p").selects(&[("app", "pod2")]);
    policy.ingress(peers, vec![]).build()
}

fn all_go_on(flows: &[Flow]) {
    for flow in flows {
        flow.goes_on(PATIENCE);
    }
}

/// All end within the promise, counted from `start`.
fn all_end(flows: &[Flow], start: Instant) {
    for flow in flows {
        let last = flow.ends(PATIENCE);
        let took = last.saturating_duration_since(start);
        assert!(took < PROMISE, "{}: {took:?}", flow.name);
    }
}

/// Nothing ever happened to them.
fn undisturbed(flows: &[Flow]) {
    all_go_on(flows);
    for flow in flows {
        let seen = flow.seen();
        assert_eq!(seen.lost, 0, "{}: {seen:?}", flow.name);
        assert!(seen.longest < PROMISE, "{}: {seen:?}", flow.name);
    }
}

fn stricter_and_looser(backend: &str) {
    let node = Node::new(backend);
    node.world.ns.sh("nft add table ip t && \
         nft add chain ip t pre '{ type nat hook prerouting priority -100; }' && \
         nft add rule ip t pre ip daddr 10.96.0.10 tcp dport 80 dnat to 10.32.0.2:7000");
    for server in ["10.32.0.2:7000", "[fd10:32::2]:7000"] {
        node.serve(2, server);
    }
    let flows = |n, far, names: [&'static str; 5]| {
        [
            node.tcp(names[0], n, "10.32.0.2:7000"),
            node.udp(names[1], n, "10.32.0.2:7000"),
            node.tcp(names[2], n, "[fd10:32::2]:7000"),
            node.tcp(names[3], n, "10.96.0.10:80"),
            node.far_tcp(names[4], far, "10.32.0.2:7000"),
        ]
    };
    let names = [
        "tcp of 3",
        "udp of 3",
        "IPv6 of 3",
        "service of 3",
        "tcp of far 5",
    ];
    let forbidden = flows(3, 5, names);
    let names = [
        "tcp of 4",
        "udp of 4",
        "IPv6 of 4",
        "service of 4",
        "tcp of far 6",
    ];
    let allowed = flows(4, 6, names);
    all_go_on(&forbidden);
    all_go_on(&allowed);

    let policy = lets_in(&["pod4"], vec![ip_block("10.32.1.6/32", &[])]);
    let start = Instant::now();
    node.world.api.add(POLICIES, &policy);
    all_end(&forbidden, start);
    eventually_eq(PATIENCE, &(5, 0), || node.counts());
    undisturbed(&allowed);

    eventually(PATIENCE, || {
        let reasons: Vec<String> = node
            .world
            .log("weft_npc::denied")
            .iter()
            .map(|line| format!("{} {}", line["direction"], line["reason"]))
            .collect();
        let expected = "\"ingress\" \"its flow was allowed before and is cut: no rule matched\"";
        match reasons.iter().any(|reason| reason == expected) {
            true => Ok(()),
            false => Err(reasons),
        }
    });

    // Looser: on in the same connections, and of those with order nothing is missing.
    node.world.api.remove(POLICIES, &policy);
    all_go_on(&forbidden);
    eventually_eq(PATIENCE, &(5, 5), || node.counts());
    for flow in &forbidden {
        let seen = flow.seen();
        assert!(
            seen.lost == 0 || flow.name.starts_with("udp"),
            "{}: {seen:?}",
            flow.name
        );
    }
    undisturbed(&allowed);
}

fn peers_change(backend: &str) {
    let node = Node::new(backend);
    let api = &node.world.api;
    node.serve(2, "10.32.0.2:7000");
    api.change(PODS, &local(3, "friend"));
    api.change(PODS, &local(4, "friend"));
    api.change(PODS, &remote(5, "friend"));
    api.change(PODS, &remote(6, "friend"));
    api.add(POLICIES, &lets_in(&["friend"], vec![]));
    eventually(PATIENCE, || {
        let metrics = node.world.metrics();
        match metrics.contains("weft_npc_policies 1\n") {
            true => Ok(()),
            false => Err(metrics),
        }
    });
    let relabelled = [
        node.tcp("tcp of 3", 3, "10.32.0.2:7000"),
        node.udp("udp of 3", 3, "10.32.0.2:7000"),
    ];
    let deleted = [node.far_tcp("tcp of far 5", 5, "10.32.0.2:7000")];
    let others = [
        node.tcp("tcp of 4", 4, "10.32.0.2:7000"),
        node.udp("udp of 4", 4, "10.32.0.2:7000"),
        node.far_tcp("tcp of far 6", 6, "10.32.0.2:7000"),
    ];
    all_go_on(&relabelled);
    all_go_on(&deleted);
    all_go_on(&others);
    assert_eq!(node.counts(), (0, 0));

    let start = Instant::now();
    api.change(PODS, &local(3, "stranger"));
    all_end(&relabelled, start);
    eventually_eq(PATIENCE, &(2, 0), || node.counts());
    undisturbed(&deleted);

    let start = Instant::now();
    api.remove(PODS, &remote(5, "friend"));
    all_end(&deleted, start);
    eventually_eq(PATIENCE, &(3, 0), || node.counts());

    api.change(PODS, &local(3, "friend"));
    all_go_on(&relabelled);
    eventually_eq(PATIENCE, &(3, 2), || node.counts());
    undisturbed(&others);
}

fn confined(backend: &str) {
    let node = Node::new(backend);
    node.traffic.serve(&node.world.ns, at("10.32.0.1:7000"));
    node.traffic.serve(&node.far, at("10.32.1.5:7000"));
    node.serve(3, "10.32.0.3:7000");
    let forbidden = [
        node.tcp("tcp of the node", 3, "10.32.0.1:7000"),
        node.udp("udp of the node", 3, "10.32.0.1:7000"),
        node.tcp("tcp of another node", 3, "10.32.1.5:7000"),
        node.far_tcp("tcp to another node", 6, "10.32.0.3:7000"),
    ];
    let allowed = [
        node.tcp("tcp of the node to 4", 4, "10.32.0.1:7000"),
        node.udp("udp of the node to 4", 4, "10.32.0.1:7000"),
        node.tcp("tcp of another node to 4", 4, "10.32.1.5:7000"),
        // From the node to its own pod: always.
        node.traffic.flow(
            "tcp to the node",
            Transport::Tcp,
            &node.world.ns,
            ["10.32.0.1:0", "10.32.0.3:7000"].map(at),
        ),
    ];
    all_go_on(&forbidden);
    all_go_on(&allowed);
    let policy = make_network_policy("default", "p")
        .selects(&[("app", "pod3")])
        .types(&["Ingress", "Egress"])
        .build();
    let start = Instant::now();
    node.world.api.add(POLICIES, &policy);
    all_end(&forbidden, start);
    eventually_eq(PATIENCE, &(4, 0), || node.counts());
    undisturbed(&allowed);
    node.world.api.remove(POLICIES, &policy);
    all_go_on(&forbidden);
    eventually_eq(PATIENCE, &(4, 4), || node.counts());
    undisturbed(&allowed);
}

/// Flows of the pods 3 and 4 with pod 2 that go on.
fn of_3_and_4(node: &Node) -> ([Flow; 2], [Flow; 2]) {
    node.serve(2, "10.32.0.2:7000");
    let flows = |n, [tcp, udp]: [&'static str; 2]| {
        [
            node.tcp(tcp, n, "10.32.0.2:7000"),
            node.udp(udp, n, "10.32.0.2:7000"),
        ]
    };
    let of_3 = flows(3, ["tcp of 3", "udp of 3"]);
    let of_4 = flows(4, ["tcp of 4", "udp of 4"]);
    all_go_on(&of_3);
    all_go_on(&of_4);
    (of_3, of_4)
}

fn restarts(backend: &str) {
    let mut node = Node::new(backend);
    let (forbidden, allowed) = of_3_and_4(&node);
    // What became stricter while npc was dead is cut when it is back.
    let policy = lets_in(&["pod4"], vec![]);
    node.restart(|world| world.api.add(POLICIES, &policy));
    all_end(&forbidden, Instant::now());
    eventually_eq(PATIENCE, &(2, 0), || node.counts());
    let last = forbidden.each_ref().map(|flow| flow.seen().next);
    // What is cut stays so while npc is dead, and when it is back.
    node.restart(|_| {});
    undisturbed(&allowed);
    assert_eq!(node.counts(), (0, 0));
    assert_eq!(forbidden.each_ref().map(|flow| flow.seen().next), last);
    // What became looser goes on.
    node.restart(|world| world.api.remove(POLICIES, &policy));
    all_go_on(&forbidden);
    eventually_eq(PATIENCE, &(0, 2), || node.counts());
    undisturbed(&allowed);
}

/// Flows beside those that are looked at. (An unoptimised npc judges them: ADR 0011 has the figures of
/// a real one.)
const MANY: u64 = 10_000;

fn many(backend: &str) {
    let node = Node::new(backend);
    let file = node.world.dir.path().join("flows");
    // Clients with 1,000 ports each.
    node.world.ns.sh(&format!(
        "awk 'BEGIN {{ for (i = 0; i < {MANY}; i++) printf \"-I -t 3600 -p tcp -s 10.33.0.%d \
         -d 10.32.0.2 --sport %d --dport 7000 --state ESTABLISHED\\n\", \
         i / 1000 + 1, i % 1000 + 10000 }}' > {file} && conntrack -R {file} 2>&1 && \
         test $(conntrack -C) -ge {MANY}",
        file = file.display()
    ));
    let (forbidden, allowed) = of_3_and_4(&node);
    // Five of the clients may stay.
    let friends = (1..=5).map(|n| ip_block(&format!("10.33.0.{n}/32"), &[]));
    let policy = lets_in(&["pod4"], friends.collect());
    let start = Instant::now();
    node.world.api.add(POLICIES, &policy);
    all_end(&forbidden, start);
    let cut = MANY - 5_000 + 2;
    eventually_eq(PATIENCE, &(cut, 0), || node.counts());
    undisturbed(&allowed);
    node.world.api.remove(POLICIES, &policy);
    all_go_on(&forbidden);
    eventually_eq(PATIENCE, &(cut, cut), || node.counts());
    undisturbed(&allowed);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_stricter_policy_cuts_and_a_looser_one_restores_with_iptables_nft() {
    stricter_and_looser("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_stricter_policy_cuts_and_a_looser_one_restores_with_iptables_legacy() {
    stricter_and_looser("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_stricter_policy_cuts_and_a_looser_one_restores_with_nftables() {
    stricter_and_looser("nftables");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_peer_that_is_relabelled_or_deleted_is_cut_with_iptables_nft() {
    peers_change("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_peer_that_is_relabelled_or_deleted_is_cut_with_iptables_legacy() {
    peers_change("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_peer_that_is_relabelled_or_deleted_is_cut_with_nftables() {
    peers_change("nftables");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_confined_pod_gets_nothing_more_from_nodes_with_iptables_nft() {
    confined("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_confined_pod_gets_nothing_more_from_nodes_with_iptables_legacy() {
    confined("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_confined_pod_gets_nothing_more_from_nodes_with_nftables() {
    confined("nftables");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn flows_are_cut_across_restarts_of_npc_with_iptables_nft() {
    restarts("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn flows_are_cut_across_restarts_of_npc_with_iptables_legacy() {
    restarts("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn flows_are_cut_across_restarts_of_npc_with_nftables() {
    restarts("nftables");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn two_flows_of_ten_thousand_are_cut_in_time_with_iptables_nft() {
    many("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn two_flows_of_ten_thousand_are_cut_in_time_with_iptables_legacy() {
    many("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn two_flows_of_ten_thousand_are_cut_in_time_with_nftables() {
    many("nftables");
}
