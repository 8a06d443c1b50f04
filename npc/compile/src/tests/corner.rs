//! What the random clusters and packets reach, so that their agreement says something.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use weft_policy::{
    Direction, Judgement, Packet, Payload, Peers, PolicyModel, PortMatch, Ports, evaluate,
};

use super::judge::node;
use super::random::{Objects, clusters, packet};

type Corners = BTreeSet<&'static str>;

/// Which of null, empty and filled a list is.
fn list<T>(corners: &mut Corners, names: [&'static str; 3], list: Option<&Vec<T>>) {
    let [null, empty, filled] = names;
    corners.insert(match list.map(Vec::as_slice) {
        None => null,
        Some([]) => empty,
        Some(_) => filled,
    });
}

fn selector(corners: &mut Corners, selector: &LabelSelector) {
    let LabelSelector {
        match_expressions: expressions,
        match_labels: labels,
    } = selector;
    let no_labels = labels.as_ref().is_none_or(BTreeMap::is_empty);
    if no_labels && expressions.as_ref().is_none_or(Vec::is_empty) {
        corners.insert("selector of everything");
    }
    let names = [
        "matchExpressions null",
        "matchExpressions empty",
        "matchExpressions",
    ];
    list(corners, names, expressions.as_ref());
    if labels.as_ref().is_some_and(BTreeMap::is_empty) {
        corners.insert("matchLabels empty");
    }
    for requirement in expressions.iter().flatten() {
        let values = requirement.values.as_ref();
        let none = values.is_none_or(Vec::is_empty);
        corners.insert(match (requirement.operator.as_str(), none) {
            ("In", false) => "In",
            ("NotIn", false) => "NotIn",
            ("Exists", true) => "Exists",
            ("DoesNotExist", true) => "DoesNotExist",
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => "operator with wrong values",
            _ => "operator that nobody knows",
        });
    }
}

fn peer(corners: &mut Corners, peer: &networking::NetworkPolicyPeer) {
    let selectors = [&peer.pod_selector, &peer.namespace_selector];
    for raw in selectors.into_iter().flatten() {
        selector(corners, raw);
    }
    let Some(block) = &peer.ip_block else { return };
    let names = ["except null", "except empty", "except"];
    list(corners, names, block.except.as_ref());
    let Ok(cidr) = block.cidr.parse::<IpNet>() else {
        corners.insert("block that is none");
        return;
    };
    if cidr.addr() != cidr.network() {
        corners.insert("host bits that are not zero");
    }
    let excepts = || block.except.iter().flatten();
    let excepts: Vec<IpNet> = excepts().filter_map(|text| text.parse().ok()).collect();
    for (i, except) in excepts.iter().enumerate() {
        if except.addr().is_ipv4() != cidr.addr().is_ipv4() {
            corners.insert("except of the other family");
        } else if except.contains(&cidr) {
            corners.insert("except of everything");
        }
        let nested = |(j, other): (usize, &IpNet)| i != j && other.contains(except);
        if excepts.iter().enumerate().any(nested) {
            corners.insert("except inside an except");
        }
    }
}

fn port(corners: &mut Corners, port: &networking::NetworkPolicyPort) {
    corners.insert(match (&port.port, port.end_port) {
        (None, _) => "protocol without port",
        (Some(IntOrString::String(_)), _) => "named port",
        (Some(IntOrString::Int(_)), None) => "port",
        (Some(IntOrString::Int(_)), Some(65_535)) => "endPort 65535",
        (Some(IntOrString::Int(first)), Some(end)) if end < *first => "endPort before port",
        (Some(IntOrString::Int(first)), Some(end)) if end == *first => "endPort equal to port",
        (Some(IntOrString::Int(_)), Some(_)) => "endPort",
    });
}

/// The corners of E45 that the objects have.
fn corners(objects: &Objects) -> Corners {
    let mut corners = Corners::new();
    for policy in &objects.policies {
        let Some(spec) = &policy.spec else {
            corners.insert("policy without spec");
            continue;
        };
        match &spec.pod_selector {
            None => drop(corners.insert("podSelector null")),
            Some(raw) => {
                if *raw == LabelSelector::default() {
                    corners.insert("podSelector empty");
                }
                selector(&mut corners, raw);
            }
        }
        let names = ["policyTypes null", "policyTypes empty", "policyTypes"];
        list(&mut corners, names, spec.policy_types.as_ref());
        let names = ["ingress null", "ingress empty", "ingress"];
        list(&mut corners, names, spec.ingress.as_ref());
        let names = ["egress null", "egress empty", "egress"];
        list(&mut corners, names, spec.egress.as_ref());
        let ingress = spec.ingress.iter().flatten();
        let ingress = ingress.map(|rule| (rule.from.as_ref(), rule.ports.as_ref()));
        let egress = spec.egress.iter().flatten();
        let egress = egress.map(|rule| (rule.to.as_ref(), rule.ports.as_ref()));
        for (peers, ports) in ingress.chain(egress) {
            let names = ["from or to null", "from or to empty", "from or to"];
            list(&mut corners, names, peers);
            list(&mut corners, ["ports null", "ports empty", "ports"], ports);
            peers
                .into_iter()
                .flatten()
                .for_each(|raw| peer(&mut corners, raw));
            ports
                .into_iter()
                .flatten()
                .for_each(|raw| port(&mut corners, raw));
        }
    }
    let terminating = |name: &str| {
        let namespace =
            |n: &&k8s_openapi::api::core::v1::Namespace| n.metadata.name.as_deref() == Some(name);
        let found = objects.namespaces.iter().find(namespace);
        found.map(|n| n.metadata.deletion_timestamp.is_some())
    };
    for pod in &objects.pods {
        let spec = pod.spec.as_ref().expect("a spec");
        let ports = || {
            spec.containers
                .iter()
                .flat_map(|c| c.ports.iter().flatten())
        };
        let named = |port: &k8s_openapi::api::core::v1::ContainerPort| {
            (port.name.clone(), port.protocol.clone())
        };
        let names: BTreeSet<_> = ports().map(|port| port.name.clone()).collect();
        let pairs: BTreeSet<_> = ports().map(named).collect();
        let numbers: BTreeSet<_> = ports().map(|p| (named(p), p.container_port)).collect();
        if names.len() < pairs.len() {
            corners.insert("a port name for two protocols");
        }
        if pairs.len() < numbers.len() {
            corners.insert("a port name for two numbers");
        }
        match terminating(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            None => drop(corners.insert("pod of a namespace that is not known")),
            Some(true) => drop(corners.insert("pod of a terminating namespace")),
            Some(false) => {}
        }
    }
    corners
}

/// What a model has that objects do not show.
fn resolved(model: &PolicyModel, corners: &mut Corners) {
    if model.peers.values().any(|peer| peer.is_empty()) {
        corners.insert("peers that resolve to nobody");
    }
    let both = [Direction::Ingress, Direction::Egress];
    let policies = model.policies.values();
    let rules = policies.flat_map(|policy| both.into_iter().filter_map(|d| policy.rules(d)));
    for rule in rules.flatten() {
        let Ports::Only(ports) = &rule.ports else {
            continue;
        };
        let named = |port: &PortMatch| matches!(port, PortMatch::Named(n) if n.members.is_empty());
        if ports.iter().any(named) {
            corners.insert("a port name that nobody has");
        }
    }
}

/// Why a packet passes or not, as finely as rules tell it apart.
fn because(model: &PolicyModel, packet: &Packet) -> Vec<&'static str> {
    if node().closes(model, packet) {
        return vec!["denied: closed"];
    }
    let verdict = evaluate(model, packet);
    let mut reasons = vec![if verdict.is_allowed() {
        "passes"
    } else {
        "is denied"
    }];
    for (direction, judgement) in [
        (Direction::Egress, &verdict.egress),
        (Direction::Ingress, &verdict.ingress),
    ] {
        let Judgement::Allowed { policy, rule } = judgement else {
            reasons.push(match judgement {
                Judgement::NotHere => "not here",
                Judgement::FromOwnNode => "allowed: from the own node",
                Judgement::Established => "allowed: established",
                Judgement::NeighbourDiscovery => "allowed: neighbour discovery",
                Judgement::Itself => "allowed: itself",
                Judgement::NotIsolated => "allowed: not isolated",
                Judgement::Denied { .. } if direction == Direction::Egress => "denied: egress",
                Judgement::Denied { .. } => "denied: ingress",
                Judgement::Invalid { .. } => "denied: invalid",
                Judgement::PodUnknown => "denied: unknown pod",
                Judgement::Allowed { .. } => "allowed by a rule",
            });
            continue;
        };
        reasons.push("allowed by a rule");
        let rules = model.policies[policy].rules(direction).unwrap_or_default();
        let rule = &rules[*rule];
        reasons.push(match &rule.peers {
            Peers::Any => "allowed by a rule: any peer",
            Peers::Only { pods, blocks } => {
                let address = match direction {
                    Direction::Ingress => packet.source,
                    Direction::Egress => packet.destination,
                };
                if pods.iter().any(|pods| model.peers[pods].contains(&address)) {
                    "allowed by a rule: pods"
                } else if blocks
                    .iter()
                    .any(|b| b.except().is_empty() && b.contains(address))
                {
                    "allowed by a rule: block"
                } else {
                    "allowed by a rule: block with excepts"
                }
            }
        });
        let (Ports::Only(ports), Payload::Port { protocol, port }) = (&rule.ports, packet.payload)
        else {
            reasons.push("allowed by a rule: any port");
            continue;
        };
        let matches = |entry: &&PortMatch| match entry {
            PortMatch::Protocol(wanted) => *wanted == protocol,
            PortMatch::Range(wanted, range) => *wanted == protocol && range.contains(port),
            PortMatch::Named(named) => {
                named.protocol == protocol && named.members.contains(&(packet.destination, port))
            }
        };
        reasons.extend(ports.iter().filter(matches).map(|entry| match entry {
            PortMatch::Protocol(_) => "allowed by a rule: protocol",
            PortMatch::Range(_, range) if range.first() == range.last() => {
                "allowed by a rule: port"
            }
            PortMatch::Range(..) => "allowed by a rule: range of ports",
            PortMatch::Named(_) if direction == Direction::Egress => {
                "allowed by a rule: named port of a peer"
            }
            PortMatch::Named(_) => "allowed by a rule: named port of the subject",
        }));
    }
    reasons
}

/// Corner, and how many of a thousand clusters have it at least.
const CLUSTERS: [(&str, usize); 44] = [
    ("podSelector null", 20),
    ("podSelector empty", 200),
    ("selector of everything", 300),
    ("matchExpressions null", 300),
    ("matchExpressions empty", 100),
    ("matchExpressions", 300),
    ("matchLabels empty", 100),
    ("In", 200),
    ("NotIn", 200),
    ("Exists", 200),
    ("DoesNotExist", 200),
    ("operator with wrong values", 10),
    ("operator that nobody knows", 20),
    ("policy without spec", 10),
    ("policyTypes null", 200),
    ("policyTypes empty", 200),
    ("policyTypes", 500),
    ("ingress null", 100),
    ("ingress empty", 100),
    ("ingress", 500),
    ("egress null", 100),
    ("egress empty", 100),
    ("egress", 500),
    ("from or to null", 200),
    ("from or to empty", 200),
    ("from or to", 500),
    ("ports null", 200),
    ("ports empty", 200),
    ("ports", 500),
    ("except null", 100),
    ("except empty", 100),
    ("except", 300),
    ("except of the other family", 100),
    ("except of everything", 100),
    ("except inside an except", 100),
    ("host bits that are not zero", 50),
    ("block that is none", 20),
    ("a port name for two protocols", 500),
    ("a port name for two numbers", 300),
    ("a port name that nobody has", 200),
    ("peers that resolve to nobody", 300),
    ("pod of a terminating namespace", 150),
    ("pod of a namespace that is not known", 50),
    ("endPort 65535", 100),
];

/// Reason, and how many of ten thousand packets have it at least.
const PACKETS: [(&str, usize); 24] = [
    ("passes", 5_000),
    ("is denied", 1_500),
    ("not here", 1_000),
    ("denied: closed", 700),
    ("denied: egress", 500),
    ("denied: ingress", 900),
    ("denied: invalid", 150),
    ("denied: unknown pod", 20),
    ("allowed: from the own node", 500),
    ("allowed: established", 800),
    ("allowed: neighbour discovery", 200),
    ("allowed: itself", 150),
    ("allowed: not isolated", 3_000),
    ("allowed by a rule", 300),
    ("allowed by a rule: any peer", 150),
    ("allowed by a rule: pods", 90),
    ("allowed by a rule: block", 40),
    ("allowed by a rule: block with excepts", 10),
    ("allowed by a rule: any port", 150),
    ("allowed by a rule: protocol", 20),
    ("allowed by a rule: port", 20),
    ("allowed by a rule: range of ports", 20),
    ("allowed by a rule: named port of a peer", 5),
    ("allowed by a rule: named port of the subject", 5),
];

#[test]
fn random_clusters_reach_every_corner() {
    let mut runner = TestRunner::deterministic();
    let (mut found, mut reasons) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..1_000 {
        let cluster = clusters()
            .new_tree(&mut runner)
            .expect("a cluster")
            .current();
        let model = cluster.index().model();
        let mut reached = corners(&cluster);
        resolved(&model, &mut reached);
        for corner in reached {
            *found.entry(corner).or_insert(0_usize) += 1;
        }
        for _ in 0..10 {
            let packet = packet().new_tree(&mut runner).expect("a packet").current();
            for reason in because(&model, &packet) {
                *reasons.entry(reason).or_insert(0_usize) += 1;
            }
        }
    }
    let seldom = |counts: &BTreeMap<&str, usize>, wanted: &[(&'static str, usize)]| {
        let count = |name: &str| counts.get(name).copied().unwrap_or_default();
        let seldom = wanted.iter().filter(|(name, least)| count(name) < *least);
        Vec::from_iter(seldom.map(|(name, least)| format!("{name}: {} < {least}", count(name))))
    };
    assert_eq!(seldom(&found, &CLUSTERS), [""; 0], "{found:#?}");
    assert_eq!(seldom(&reasons, &PACKETS), [""; 0], "{reasons:#?}");
}
