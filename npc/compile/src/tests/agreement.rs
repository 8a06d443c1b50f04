//! The rules say what the evaluator says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use proptest::sample::select;
use weft_netfilter::nft::lower;
use weft_netfilter::{Family, Ruleset};
use weft_policy::{
    Endpoint, EndpointId, Index, ObjectKey, Packet, Path, Payload, PolicyModel, Protocol, State,
    cases, evaluate,
};
use weft_testkit::builders::{ip_block, make_namespace, make_network_policy, make_pod, selector};

use super::way::{traced, traced_by_nft, traced_in_flow, traced_with_mark};
use crate::{NodeView, compile};

pub(super) fn node() -> NodeView {
    let net = |text: &&str| text.parse().expect("a network");
    let address = |text: &&str| text.parse().expect("an address");
    NodeView {
        families: BTreeSet::from(Family::ALL),
        blocks: cases::BLOCKS.iter().map(net).collect(),
        gateways: cases::GATEWAYS.iter().map(address).collect(),
        ..NodeView::default()
    }
}

/// What the rules of both kernel interfaces do is what policy and the closed blocks say, and for the reason they give.
fn disagreement(model: &PolicyModel, node: &NodeView, packet: &Packet) -> Option<String> {
    let ruleset = compile(model, node);
    ruleset
        .check()
        .expect("a ruleset that the kernel could hold");
    let verdict = evaluate(model, packet);
    let closed = node.closes(model, packet);
    let reason = if closed {
        Some("weft-deny-closed")
    } else if !verdict.egress.is_allowed() {
        Some("weft-deny-egress")
    } else if !verdict.ingress.is_allowed() {
        Some("weft-deny-ingress")
    } else {
        None
    };
    let outcome = traced(&ruleset, model, packet);
    let logged: Vec<&str> = outcome.logged.iter().map(String::as_str).collect();
    let unmarked = traced_with_mark(&ruleset, model, packet, !node.mark);
    // Our bit does not leave our chains, others' bits pass through them.
    let mark_kept =
        outcome.dropped || (outcome.mark | node.mark == 0xffff_ffff && unmarked.mark == !node.mark);
    let same = outcome.dropped == unmarked.dropped;
    if !same
        || outcome.dropped != reason.is_some()
        || logged != Vec::from_iter(reason)
        || !mark_kept
    {
        let path: Vec<String> = outcome.path.iter().map(ToString::to_string).collect();
        return Some(format!(
            "{packet:?}\n  evaluator: {verdict}; closed: {closed}\n  iptables: dropped {}, mark {:x}\n    {}",
            outcome.dropped,
            outcome.mark,
            path.join("\n    ")
        ));
    }
    nft_disagrees(&ruleset, model, node, packet, reason)
        .or_else(|| cut_disagrees(&ruleset, model, node, packet, reason))
}

/// Packets of a flow that was cut go nowhere, whatever policies say of them, but for those that
/// belong to no flow and neighbour discovery; others' marks of flows mean nothing.
fn cut_disagrees(
    ruleset: &Ruleset,
    model: &PolicyModel,
    node: &NodeView,
    packet: &Packet,
    reason: Option<&str>,
) -> Option<String> {
    let tables = lower(ruleset).expect("a ruleset that has an equal in nftables");
    let flow = !matches!(packet.state, State::Invalid | State::Untracked)
        && (!packet.is_neighbour_discovery() || packet.path == Path::Output);
    let cut = if flow { Some("weft-deny-cut") } else { reason };
    for (mark, expected) in [(node.cut, cut), (u32::MAX, cut), (!node.cut, reason)] {
        let iptables = traced_in_flow(ruleset, model, packet, 0, mark);
        let nft = traced_by_nft(&tables, model, packet, 0, mark);
        for (name, dropped, logged) in [
            ("iptables", iptables.dropped, &iptables.logged),
            ("nftables", nft.dropped, &nft.logged),
        ] {
            let expected: Vec<String> = expected.map(str::to_owned).into_iter().collect();
            if dropped == expected.is_empty() || *logged != expected {
                return Some(format!(
                    "{packet:?} of a flow marked {mark:x}\n  wanted: {expected:?}\n  \
                     {name}: dropped {dropped}, {logged:?}"
                ));
            }
        }
    }
    None
}

/// The same rules in nftables: the same verdict and reason. The mark of a frame to no known address
/// that leaves by the port of an isolated pod is not kept: it says which port, and ends there.
fn nft_disagrees(
    ruleset: &Ruleset,
    model: &PolicyModel,
    node: &NodeView,
    packet: &Packet,
    reason: Option<&str>,
) -> Option<String> {
    let tables = lower(ruleset).expect("a ruleset that has an equal in nftables");
    for mark in [0xffff_ffff, !node.mark] {
        let outcome = traced_by_nft(&tables, model, packet, mark, 0);
        let logged: Vec<&str> = outcome.logged.iter().map(String::as_str).collect();
        let mark_kept = outcome.dropped
            || outcome.mark | node.mark == mark | node.mark
            || outcome.mark == 0 && outcome.path.iter().any(|step| step.contains("oifname map"));
        let leaked = !outcome.dropped && mark & node.mark == 0 && outcome.mark & node.mark != 0;
        if outcome.dropped != reason.is_some()
            || logged != Vec::from_iter(reason)
            || !mark_kept
            || leaked
        {
            return Some(format!(
                "{packet:?}\n  wanted: {reason:?}\n  nftables: dropped {}, mark {:x}\n    {}",
                outcome.dropped,
                outcome.mark,
                outcome.path.join("\n    ")
            ));
        }
    }
    None
}

#[test]
fn every_case_holds_for_the_rules() {
    let mut failures = Vec::new();
    for case in cases::all() {
        case.play(|index, _, expectation| {
            let model = index.model();
            let allowed = evaluate(&model, &expectation.packet).is_allowed();
            assert_eq!(
                allowed, expectation.allowed,
                "the evaluator on {}",
                expectation.line
            );
            // Some cases send from addresses that nobody has.
            let mut node = node();
            node.also_known = BTreeSet::from([expectation.packet.source]);
            if let Some(why) = disagreement(&model, &node, &expectation.packet) {
                let cases::Case { number, clause, .. } = case;
                failures.push(format!("{number} {clause}: {}\n{why}", expectation.line));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn every_case_holds_on_a_node_of_one_family() {
    for family in Family::ALL {
        for case in cases::all() {
            case.play(|index, _, expectation| {
                let packet = &expectation.packet;
                if Family::of(&packet.source) != family {
                    return;
                }
                let view = NodeView {
                    families: BTreeSet::from([family]),
                    also_known: BTreeSet::from([packet.source]),
                    ..node()
                };
                let why = disagreement(&index.model(), &view, packet);
                assert_eq!(why, None, "{}", expectation.line);
            });
        }
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ADDRESSES: [&str; 14] = [
    "10.32.0.2",
    "10.32.0.3",
    "10.32.0.4",
    "10.32.0.5",
    "10.32.0.6",
    "10.32.0.9",
    "10.32.0.67",
    "10.32.0.68",
    "10.32.0.69",
    "10.32.0.70",
    "203.0.113.10",
    "203.0.113.130",
    "172.30.0.12",
    "10.32.0.65",
];
const NETS: [&str; 12] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.32.0.0/12",
    "10.32.0.0/26",
    "10.32.0.64/26",
    "10.32.0.4/30",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "10.32.0.67/32",
    "::/0",
    "fd10:32::/64",
    "fd10:32::40/122",
];

fn twin(v4: &str) -> IpAddr {
    let last: u8 = v4
        .rsplit('.')
        .next()
        .and_then(|byte| byte.parse().ok())
        .expect("IPv4");
    let pool = if v4.starts_with("10.") {
        "fd10:32"
    } else {
        "2001:db8"
    };
    format!("{pool}::{last:x}").parse().expect("IPv6")
}

fn labels() -> impl Strategy<Value = LabelSelector> {
    let requirement = (
        select(vec!["pod", "ns", "tier"]),
        select(vec!["In", "NotIn", "Exists", "DoesNotExist"]),
        prop::collection::vec(select(NAMES.to_vec()), 1..3),
    )
        .prop_map(|(key, operator, values)| LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: operator
                .ends_with("In")
                .then(|| values.iter().map(|value| (*value).to_owned()).collect()),
        });
    prop_oneof![
        Just(LabelSelector::default()),
        (select(vec!["pod", "ns", "tier"]), select(NAMES.to_vec()))
            .prop_map(|(key, value)| selector(&[(key, value)])),
        prop::collection::vec(requirement, 1..3).prop_map(|requirements| LabelSelector {
            match_expressions: Some(requirements),
            match_labels: None,
        }),
    ]
}

fn peer() -> impl Strategy<Value = networking::NetworkPolicyPeer> {
    let selectors = |namespace, pod| networking::NetworkPolicyPeer {
        namespace_selector: namespace,
        pod_selector: pod,
        ip_block: None,
    };
    prop_oneof![
        3 => labels().prop_map(move |pods| selectors(None, Some(pods))),
        3 => labels().prop_map(move |namespaces| selectors(Some(namespaces), None)),
        3 => (labels(), labels()).prop_map(move |(n, p)| selectors(Some(n), Some(p))),
        3 => (
            select(NETS.to_vec()),
            prop::collection::vec(select(NETS.to_vec()), 0..3)
        )
            .prop_map(|(cidr, except)| ip_block(cidr, &except)),
        // Seldom one that closes its direction.
        1 => Just(ip_block("not a block", &[])),
    ]
}

fn port() -> impl Strategy<Value = networking::NetworkPolicyPort> {
    let protocol = select(vec![None, Some("TCP"), Some("UDP"), Some("SCTP")]);
    let number = prop_oneof![
        Just((None, None)),
        select(vec![80, 81, 82]).prop_map(|port| (Some(IntOrString::Int(port)), None)),
        (select(vec![80, 81]), 81..83)
            .prop_map(|(port, end)| (Some(IntOrString::Int(port)), Some(end))),
        select(vec!["web", "dns", "nobody"])
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
    ];
    (protocol, number).prop_map(
        |(protocol, (port, end_port))| networking::NetworkPolicyPort {
            protocol: protocol.map(str::to_owned),
            port,
            end_port,
        },
    )
}

type RawRule = (
    Vec<networking::NetworkPolicyPeer>,
    Vec<networking::NetworkPolicyPort>,
);

fn rules() -> impl Strategy<Value = Vec<RawRule>> {
    let rule = (
        prop::collection::vec(peer(), 0..4),
        prop::collection::vec(port(), 0..5),
    );
    prop::collection::vec(rule, 0..3)
}

fn policy() -> impl Strategy<Value = networking::NetworkPolicy> {
    let types = select(vec![
        vec![],
        vec!["Ingress"],
        vec!["Egress"],
        vec!["Ingress", "Egress"],
    ]);
    let key = (select(vec!["x", "y"]), select(vec!["p", "q", "r"]));
    (key, labels(), types, rules(), rules()).prop_map(
        |((namespace, name), subjects, types, ingress, egress)| {
            let mut builder = make_network_policy(namespace, name).types(&types);
            for (from, ports) in ingress {
                builder = builder.ingress(from, ports);
            }
            for (to, ports) in egress {
                builder = builder.egress(to, ports);
            }
            let mut policy = builder.build();
            policy.spec.get_or_insert_default().pod_selector = Some(subjects);
            policy
        },
    )
}

/// A cluster as n1 sees it: pods with random labels and ports at fixed addresses, some of them
/// attached here before their Pod is known.
fn index() -> impl Strategy<Value = Index> {
    let pod = (
        select(vec!["x", "y", "z"]),
        select(NAMES.to_vec()),
        select(vec!["a", "b", "-"]),
        select(vec![
            ("web", "TCP", 80),
            ("web", "TCP", 81),
            ("dns", "UDP", 80),
            ("web", "SCTP", 82),
        ]),
        prop::bool::weighted(0.9),
    );
    let namespaces = prop::collection::vec(select(NAMES.to_vec()), 3);
    let pods = prop::collection::vec(pod, 10);
    let policies = prop::collection::vec(policy(), 0..6);
    (pods, namespaces, policies).prop_map(|(pods, namespaces, policies)| {
        let mut index = Index::new("n1");
        for (name, label) in ["x", "y", "z"].into_iter().zip(namespaces) {
            index.apply_namespace(&make_namespace(name, &[("ns", label)]));
        }
        for (i, (namespace, pod_label, tier, port, known)) in pods.into_iter().enumerate() {
            let (name, v4) = (format!("p{i}"), ADDRESSES[i]);
            let local = i < 6;
            let mut pod = make_pod(namespace, &name)
                .label("pod", pod_label)
                .label("ns", tier)
                .port(port.0, port.1, port.2)
                .node(if local { "n1" } else { "n2" });
            if tier != "-" {
                pod = pod.label("tier", tier);
            }
            if !local {
                pod = pod.address(v4).address(&twin(v4).to_string());
            }
            if known {
                index.apply_pod(&pod.build());
            }
            if local {
                let endpoint = Endpoint {
                    pod: ObjectKey::new(namespace, &name),
                    uid: format!("uid-{namespace}-{name}").as_str().into(),
                    addresses: BTreeSet::from([v4.parse().expect("IPv4"), twin(v4)]),
                    host_ifname: format!("vethwepl{name}"),
                };
                index.apply_endpoint(EndpointId::new(&name, "eth0"), endpoint);
            }
        }
        for policy in &policies {
            index.apply_network_policy(policy);
        }
        index
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let payload = prop_oneof![
        (
            select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
            79_u16..84
        )
            .prop_map(|(protocol, port)| Payload::Port { protocol, port }),
        select(vec![8_u8, 128, 135]).prop_map(Payload::Icmp),
        Just(Payload::Other(47)),
    ];
    let state = prop_oneof![
        8 => Just(State::New),
        1 => Just(State::Established),
        1 => Just(State::Related),
        2 => Just(State::Invalid),
        1 => Just(State::Untracked),
    ];
    let path = prop_oneof![
        10 => Just(Path::Forward { out_port: None }),
        2 => Just(Path::Input),
        1 => Just(Path::Output),
        3 => (0..6).prop_map(|i| Path::Forward { out_port: Some(format!("vethweplp{i}")) }),
    ];
    // Addresses of pods most often; 10.32.0.50 is in the node's block and nobody's.
    let mut ends = ADDRESSES.to_vec();
    ends.push("10.32.0.50");
    // Most packets go to a pod of this node: that is where most rules are.
    let destinations = [&ends[..], &ends[..6], &ends[..6], &ends[..6]].concat();
    (
        select(ends),
        select(destinations),
        payload,
        state,
        path,
        any::<bool>(),
    )
        .prop_map(|(source, destination, payload, state, path, v6)| {
            let end = |text: &str| {
                if v6 {
                    twin(text)
                } else {
                    text.parse().expect("IPv4")
                }
            };
            let group = matches!(path, Path::Forward { out_port: Some(_) });
            let destination = match (&path, group, v6) {
                (Path::Input, _, _) => end("10.32.0.1"),
                (_, true, false) => IpAddr::from([224, 0, 0, 251]),
                (_, true, true) => "ff02::fb".parse().expect("IPv6"),
                (_, false, _) => end(destination),
            };
            let source = if path == Path::Output {
                end("10.32.0.1")
            } else {
                end(source)
            };
            Packet {
                source,
                destination,
                payload,
                state,
                path,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// The rules say what the evaluator says, for random clusters, policies and packets.
    #[test]
    fn random_rules_agree_with_the_evaluator(
        index in index(),
        packets in prop::collection::vec(packet(), 40),
    ) {
        let model = index.model();
        let node = node();
        for packet in packets {
            if let Some(why) = disagreement(&model, &node, &packet) {
                prop_assert!(false, "{why}\n{model:#?}");
            }
        }
    }
}
