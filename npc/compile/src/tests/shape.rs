//! What the rules look like, where it matters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weft_netfilter::{CtState, Element, Family, Match, Rule, Ruleset, SetKind, Table, Verdict};
use weft_policy::{
    Endpoint, EndpointId, Index, ObjectKey, Packet, Path, Payload, Protocol, State, cases, evaluate,
};
use weft_testkit::builders::{
    ip_block, make_namespace, make_network_policy, make_pod, namespaces, pods,
};

use super::judge::node;
use super::way::traced;
use crate::{NodeView, compile};

fn v4(ruleset: &Ruleset) -> &Table {
    &ruleset.tables[&Family::V4]
}

fn stage() -> Index {
    cases::Cluster::new().index()
}

fn tcp(source: &str, destination: &str, port: u16) -> Packet {
    Packet {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        payload: Payload::Port {
            protocol: Protocol::Tcp,
            port,
        },
        state: State::New,
        path: Path::Forward { out_port: None },
    }
}

#[test]
fn a_node_without_policies_has_only_the_frame() {
    let ruleset = compile(&stage().model(), &node());
    ruleset.check().expect("valid");
    let chains: Vec<_> = v4(&ruleset)
        .chains
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        chains,
        [
            "WEFT-NPC",
            "WEFT-NPC-ALLOW",
            "WEFT-NPC-CLOSED",
            "WEFT-NPC-CUT",
            "WEFT-NPC-DENY-E",
            "WEFT-NPC-DENY-I",
            "WEFT-NPC-EGRESS",
            "WEFT-NPC-GROUP",
            "WEFT-NPC-INGRESS",
            "WEFT-NPC-INPUT",
            "WEFT-NPC-PASS",
        ]
    );
    let sets: Vec<_> = v4(&ruleset).sets.keys().map(ToString::to_string).collect();
    assert_eq!(sets, ["weft-npc-blocks-4", "weft-npc-known-4"]);
}

#[test]
fn nothing_is_ever_accepted() {
    let mut index = stage();
    index.apply_network_policy(
        &make_network_policy("x", "p")
            .ingress(vec![], vec![])
            .build(),
    );
    let ruleset = compile(&index.model(), &node());
    for (name, chain) in ruleset.tables.values().flat_map(|table| &table.chains) {
        assert!(
            chain
                .rules
                .iter()
                .all(|rule| rule.verdict != Verdict::Accept),
            "{name}"
        );
    }
}

#[test]
fn names_of_two_families_differ_and_names_are_stable() {
    let mut index = stage();
    let peers = vec![
        pods(&[("pod", "b")]),
        ip_block("10.0.0.0/8", &["10.1.0.0/16"]),
    ];
    index.apply_network_policy(&make_network_policy("x", "p").ingress(peers, vec![]).build());
    let ruleset = compile(&index.model(), &node());
    let names = |family| {
        ruleset.tables[&family]
            .sets
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        names(Family::V4).intersection(&names(Family::V6)).count(),
        0
    );
    // A policy elsewhere changes no name here: sets and chains keep their elements and counters.
    let before = v4(&ruleset).clone();
    index.apply_network_policy(&make_network_policy("y", "q").build());
    let after = compile(&index.model(), &node());
    for name in before.sets.keys() {
        assert_eq!(v4(&after).sets.get(name), before.sets.get(name), "{name}");
    }
}

#[test]
fn a_policy_for_many_pods_and_a_selector_in_many_policies_are_compiled_once() {
    let mut index = stage();
    for name in ["p", "q"] {
        let peers = vec![namespaces(&[("ns", "y")])];
        index.apply_network_policy(
            &make_network_policy("x", name)
                .ingress(peers, vec![])
                .build(),
        );
    }
    let ruleset = compile(&index.model(), &node());
    let count = |prefix: &str| {
        v4(&ruleset)
            .chains
            .keys()
            .filter(|name| name.as_str().starts_with(prefix))
            .count()
    };
    assert_eq!(
        (
            count("WEFT-NPC-I-"),
            count("WEFT-NPC-PI-"),
            count("WEFT-NPC-PE-")
        ),
        (2, 2, 0)
    );
    let peers: Vec<_> = v4(&ruleset)
        .sets
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("weft-npc-p-"))
        .collect();
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!(peers[0].1.kind, SetKind::Addr);
    assert_eq!(peers[0].1.elements.len(), 3);
}

#[test]
fn many_peers_times_many_ports_do_not_multiply() {
    let mut index = stage();
    let peers = (0..50).map(|i| ip_block(&format!("10.{i}.0.0/16"), &[&format!("10.{i}.1.0/24")]));
    let ports = (0..50).map(|i| k8s_openapi::api::networking::v1::NetworkPolicyPort {
        port: Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(1000 + i)),
        ..Default::default()
    });
    let policy = make_network_policy("x", "p")
        .ingress(peers.collect(), ports.collect())
        .build();
    index.apply_network_policy(&policy);
    let (rules, ..) = compile(&index.model(), &node()).size();
    assert!(rules < 300, "{rules} rules");
}

#[test]
fn closed_addresses_are_closed_until_known() {
    let index = stage();
    let model = index.model();
    let ruleset = compile(&model, &node());
    let dropped = |ruleset, packet: &Packet| traced(ruleset, &model, packet).dropped;
    assert!(
        dropped(&ruleset, &tcp("10.32.0.66", "10.32.0.50", 80)),
        "to an unknown address"
    );
    assert!(
        dropped(&ruleset, &tcp("10.32.0.50", "10.32.0.2", 80)),
        "from an unknown address"
    );
    let input = Packet {
        path: Path::Input,
        ..tcp("10.32.0.50", "10.32.0.1", 80)
    };
    assert!(
        dropped(&ruleset, &input),
        "from an unknown address to the node"
    );
    assert!(
        !dropped(&ruleset, &tcp("10.32.0.66", "10.32.0.2", 80)),
        "between known ones"
    );
    let known = NodeView {
        also_known: BTreeSet::from(["10.32.0.50".parse().expect("a")]),
        ..node()
    };
    assert!(!dropped(
        &compile(&model, &known),
        &tcp("10.32.0.66", "10.32.0.50", 80)
    ));
}

#[test]
fn the_second_pass_on_the_switch_is_not_judged() {
    use weft_netfilter::trace::{Packet as TracePacket, Pass, trace};
    let mut index = stage();
    index.apply_network_policy(&make_network_policy("x", "p").build());
    let ruleset = compile(&index.model(), &node());
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let packet = TracePacket::tcp(address("10.32.0.66"), address("10.32.0.2"), 80);
    let on = |device: &str| {
        let pass = Pass::new(weft_netfilter::Hook::Forward, Some(device), Some(device));
        trace(&ruleset, &packet.clone().in_state(CtState::New), &[pass])
            .expect("valid")
            .dropped
    };
    assert!(on("weave"));
    assert!(!on("datapath"));
}

#[test]
fn a_new_connection_meets_few_rules_however_many_pods() {
    let (index, addresses) = many_pods(1000);
    let model = index.model();
    let mut view = node();
    view.blocks = BTreeSet::from(["10.32.0.0/20".parse().expect("a network")]);
    let ruleset = compile(&model, &view);
    ruleset.check().expect("valid");
    let table = v4(&ruleset);
    // Rules looked at from the root to the last pod, all levels together.
    let mut worst = 0;
    for address in &addresses {
        let mut chain =
            &table.chains[&crate::table::dispatch_chain(weft_policy::Direction::Ingress)];
        let mut met = 0;
        'tree: loop {
            for rule in &chain.rules {
                met += 1;
                let weft_netfilter::Match::Dst { net, .. } = &rule.matches[0] else {
                    panic!("{rule:?}")
                };
                let Verdict::Goto(to) = &rule.verdict else {
                    panic!("{rule:?}")
                };
                if net.contains(address) {
                    if to.as_str().starts_with("WEFT-NPC-I-") {
                        break 'tree;
                    }
                    chain = &table.chains[to];
                    continue 'tree;
                }
            }
            panic!("{address} is not dispatched");
        }
        worst = worst.max(met);
    }
    assert!(
        worst <= 40,
        "{worst} rules of dispatch for one of 1000 pods"
    );
    let packet = tcp("10.32.31.1", &addresses[999].to_string(), 80);
    assert!(!evaluate(&model, &packet).is_allowed());
    assert!(traced(&ruleset, &model, &packet).dropped);
}

/// `count` pods on this node, each isolated.
fn many_pods(count: u32) -> (Index, Vec<IpAddr>) {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    index.apply_network_policy(&make_network_policy("x", "deny").build());
    let addresses: Vec<IpAddr> = (0..count)
        .map(|i| IpAddr::V4(Ipv4Addr::from_bits(0x0a20_0002 + i)))
        .collect();
    for (i, address) in addresses.iter().enumerate() {
        attach(&mut index, "x", &format!("p{i}"), *address);
    }
    (index, addresses)
}

fn attach(index: &mut Index, namespace: &str, name: &str, address: IpAddr) {
    index.apply_pod(
        &make_pod(namespace, name)
            .label("app", name)
            .node("n1")
            .build(),
    );
    let endpoint = Endpoint {
        pod: ObjectKey::new(namespace, name),
        uid: format!("uid-{namespace}-{name}").as_str().into(),
        addresses: BTreeSet::from([address]),
        host_ifname: format!("v{}", name.len()),
    };
    index.apply_endpoint(
        EndpointId::new(&format!("{namespace}-{name}"), "eth0"),
        endpoint,
    );
}

#[test]
fn denied_packets_are_copied_to_a_group_only_if_somebody_reads_it_and_not_without_limit() {
    let deny = |log_group| {
        let view = NodeView {
            log_group,
            ..NodeView::default()
        };
        let ruleset = compile(&stage().model(), &view);
        let chains = &v4(&ruleset).chains;
        let rules = chains.iter().filter_map(|(name, chain)| {
            let denies =
                name.as_str().starts_with("WEFT-NPC-DENY") || name.as_str() == "WEFT-NPC-CLOSED";
            denies.then(|| chain.rules.clone())
        });
        rules.collect::<Vec<_>>()
    };
    let drop = Rule::new([], Verdict::Drop);
    assert_eq!(deny(None), vec![vec![drop.clone()]; 3]);
    let log = |prefix: &str| {
        let limit = Match::Limit {
            per_second: 500,
            burst: 500,
        };
        let nflog = Verdict::Nflog {
            group: 7,
            prefix: prefix.to_owned(),
        };
        vec![Rule::new([limit], nflog), drop.clone()]
    };
    assert_eq!(
        deny(Some(7)),
        ["weft-deny-closed", "weft-deny-egress", "weft-deny-ingress"].map(log)
    );
}

#[test]
fn equal_models_give_equal_rulesets() {
    let mut index = stage();
    let policy = make_network_policy("x", "p")
        .ingress(
            vec![namespaces(&[("ns", "y")]), pods(&[("pod", "b")])],
            vec![],
        )
        .build();
    index.apply_network_policy(&policy);
    let first = compile(&index.model(), &node());
    let elements: BTreeMap<_, _> = v4(&first).sets.iter().collect();
    assert!(elements.values().any(|set| {
        set.elements
            .contains(&Element::Addr("10.32.0.68".parse().expect("an address")))
    }));
    assert_eq!(compile(&index.model(), &node()), first);
}

/// 2,000 policies with peers and ports of their own, 5,000 pods, 100 of them here. Debug builds
/// are some ten times slower than the budget of 100 ms speaks of; this guards against a square.
#[test]
fn a_big_cluster_is_compiled_in_bounded_time() {
    let mut index = Index::new("n1");
    for n in 0..50 {
        index.apply_namespace(&make_namespace(
            &format!("ns{n}"),
            &[("team", &format!("t{n}"))],
        ));
    }
    for i in 0..5000_u32 {
        let (namespace, name) = (format!("ns{}", i % 50), format!("p{i}"));
        let address = Ipv4Addr::from_bits(0x0a20_0002 + i);
        if i < 100 {
            attach(&mut index, &namespace, &name, address.into());
        } else {
            let pod = make_pod(&namespace, &name)
                .label("app", &format!("a{}", i % 100))
                .label("tier", if i % 2 == 0 { "front" } else { "back" })
                .port("web", "TCP", 8080)
                .node("n2")
                .address(&address.to_string());
            index.apply_pod(&pod.build());
        }
    }
    for i in 0..2000 {
        let mut peer = namespaces(&[("team", &format!("t{}", i % 50))]);
        peer.pod_selector = pods(&[("app", &format!("a{}", i % 100))]).pod_selector;
        let policy = make_network_policy(&format!("ns{}", i % 50), &format!("policy{i}"))
            .types(&["Ingress", "Egress"])
            .ingress(
                vec![peer, ip_block(&format!("10.{}.0.0/16", i % 200), &[])],
                vec![],
            )
            .egress(vec![namespaces(&[]), pods(&[("tier", "front")])], vec![])
            .build();
        index.apply_network_policy(&policy);
    }
    let start = Instant::now();
    let model = index.model();
    let modelled = start.elapsed();
    let ruleset = compile(
        &model,
        &NodeView {
            families: BTreeSet::from([Family::V4]),
            ..node()
        },
    );
    let compiled = start.elapsed() - modelled;
    println!(
        "model {modelled:?}, compile {compiled:?}, size {:?}",
        ruleset.size()
    );
    assert_eq!(model.policies.len(), 2000);
    assert!(
        modelled + compiled < Duration::from_secs(5),
        "{modelled:?} + {compiled:?}"
    );
}
