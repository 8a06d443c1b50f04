//! Input that is meant to hurt: it costs its author, nobody else.

use k8s_openapi::api::networking::v1::{
    NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weft_testkit::builders::{
    ip_block, make_namespace, make_network_policy, make_pod, pods, port_number,
};

use super::*;
use crate::{Direction, MAX_ADDRESSES, MAX_TERMS, Standing, Subject};

/// One pod of this node, `x/victim`, and so many elsewhere in the namespace.
fn index(others: u32) -> Index {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    for n in 0..others {
        let address = std::net::Ipv4Addr::from_bits(0x0a21_0000 + n);
        let pod = make_pod("x", &format!("pod-{n}")).node("n2");
        let pod = pod.label("app", "web").label("pod", &n.to_string());
        index.apply_pod(&pod.address(&address.to_string()).build());
    }
    for (name, last) in [("victim", 2), ("other", 3)] {
        let pod = make_pod("x", name).uid(name).label("pod", name).node("n1");
        index.apply_pod(&pod.build());
        let endpoint = Endpoint {
            pod: ObjectKey::new("x", name),
            uid: name.into(),
            addresses: [IpAddr::from([10, 32, 0, last])].into(),
            host_ifname: format!("veth{name}"),
        };
        index.apply_endpoint(EndpointId::new(name, "eth0"), endpoint);
    }
    let good = make_network_policy("x", "good").selects(&[("pod", "other")]);
    let good = good.ingress(vec![pods(&[("app", "web")])], vec![]);
    index.apply_network_policy(&good.build());
    index
}

/// A selector that no other policy has and that selects every pod.
fn all_but(nobody: usize) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "pod".to_owned(),
                operator: "NotIn".to_owned(),
                values: Some(vec![format!("nobody-{nobody}")]),
            }]),
            match_labels: None,
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn bad(rules: usize, peer: impl Fn(usize) -> NetworkPolicyPeer) -> networking::NetworkPolicy {
    let policy = make_network_policy("x", "bad").selects(&[("pod", "victim")]);
    let mut policy = policy.types(&["Ingress", "Egress"]).build();
    let spec = policy.spec.get_or_insert_default();
    spec.ingress = Some(
        (0..rules)
            .map(|n| NetworkPolicyIngressRule {
                from: Some(vec![peer(n)]),
                ports: Some(vec![port_number(80)]),
            })
            .collect(),
    );
    spec.egress = Some(vec![networking::NetworkPolicyEgressRule::default()]);
    policy
}

/// Rules of the bad policy by direction, and the problems as texts.
fn outcome(model: &PolicyModel) -> (usize, usize, Vec<String>) {
    let policy = &model.policies[&ObjectKey::new("x", "bad")];
    let rules = |direction| policy.rules(direction).map_or(0, <[_]>::len);
    let problems = model.problems.iter().map(ToString::to_string).collect();
    (
        rules(Direction::Ingress),
        rules(Direction::Egress),
        problems,
    )
}

/// The good policy is what it is without the bad one.
fn assert_unhurt(model: &PolicyModel, without: &PolicyModel) {
    let key = ObjectKey::new("x", "good");
    assert_eq!(model.policies[&key], without.policies[&key]);
    for (selector, addresses) in &without.peers {
        assert_eq!(&model.peers[selector], addresses);
    }
}

#[test]
fn a_policy_that_names_too_many_addresses_closes_its_pods_in_that_direction_only() {
    let mut index = index(20_000);
    let without = index.refresh();
    let rules = MAX_ADDRESSES / 20_000 + 1;
    index.apply_network_policy(&bad(5000, all_but));
    let model = index.refresh();
    let problem = format!(
        "NetworkPolicy x/bad: spec.ingress[{}]: the policy has more than 524288 addresses of pods \
         (each selector and each named port counted by itself) up to here; use fewer rules, wider \
         CIDRs or narrower selectors, or several policies",
        rules - 1
    );
    assert_eq!(outcome(&model), (0, 1, vec![problem]));
    assert_eq!(model.peers.len(), without.peers.len());
    assert_unhurt(&model, &without);
    let victim = model.subject_at("10.32.0.2".parse().expect("address"));
    let Some((
        _,
        Subject {
            standing: Standing::Known { ingress, .. },
            ..
        },
    )) = victim
    else {
        unreachable!("{victim:?}");
    };
    assert!(ingress.contains(&ObjectKey::new("x", "bad")));
    assert_eq!(model, index.model());

    // It is judged anew when it is made smaller, and when there are fewer pods.
    index.apply_network_policy(&bad(rules, all_but));
    assert_eq!(outcome(&index.refresh()).0, 0);
    for n in 0..20_000 {
        index.delete_pod(&ObjectKey::new("x", &format!("pod-{n}")));
        if matches!(n, 10_000 | 19_990) {
            let model = index.refresh();
            assert_eq!(outcome(&model), (rules, 1, vec![]));
            assert_eq!(model, index.model());
        }
    }
}

#[test]
fn a_limit_is_announced_before_it_is_reached() {
    let mut index = index(20_000);
    let near = MAX_ADDRESSES / 20_000;
    index.apply_network_policy(&bad(near, all_but));
    let model = index.refresh();
    assert_eq!(outcome(&model), (near, 1, vec![]));
    let warnings: Vec<_> = model.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("NetworkPolicy x/bad: spec.ingress: has 520"),
        "{warnings:?}"
    );
    index.apply_network_policy(&bad(near / 2, all_but));
    assert_eq!(index.refresh().warnings, BTreeSet::new());
}

#[test]
fn a_policy_of_too_many_peers_and_ports_closes_its_pods_in_that_direction_only() {
    let block = |n: usize| ip_block(&format!("10.{}.{}.0/24", n / 256 % 256, n % 256), &[]);
    let mut index = index(1);
    let without = index.refresh();
    index.apply_network_policy(&bad(MAX_TERMS / 2, block));
    assert_eq!(outcome(&index.refresh()), (MAX_TERMS / 2, 1, vec![]));
    assert_eq!(index.refresh().warnings.len(), 1);
    index.apply_network_policy(&bad(MAX_TERMS / 2 + 1, block));
    let model = index.refresh();
    let problem = "NetworkPolicy x/bad: spec.ingress[16384]: the policy has more than 32768 peers, \
         excepts and ports (selectors, named ports and CIDRs with excepts count four times) up to \
         here; use fewer rules, wider CIDRs or narrower selectors, or \
         several policies";
    assert_eq!(outcome(&model), (0, 1, vec![problem.to_owned()]));
    assert_unhurt(&model, &without);
}

#[test]
fn ten_thousand_rules_and_ten_thousand_excepts_are_held() {
    let block = |n: usize| ip_block(&format!("10.{}.{}.0/24", n / 256, n % 256), &[]);
    let mut index = index(1);
    index.apply_network_policy(&bad(10_000, block));
    assert_eq!(outcome(&index.refresh()), (10_000, 1, vec![]));
    let excepts: Vec<String> = (0..10_000)
        .map(|n| format!("10.{}.{}.4/32", n / 256, n % 256))
        .collect();
    let excepts: Vec<&str> = excepts.iter().map(String::as_str).collect();
    index.apply_network_policy(&bad(1, |_| ip_block("0.0.0.0/0", &excepts)));
    assert_eq!(outcome(&index.refresh()), (1, 1, vec![]));
}

#[test]
fn a_policy_of_a_thousand_mistakes_tells_the_first() {
    let mut index = index(1);
    index.apply_network_policy(&bad(1000, |_| ip_block("?", &[])));
    let (ingress, egress, problems) = outcome(&index.refresh());
    assert_eq!((ingress, egress, problems.len()), (0, 1, 16));
    assert!(
        problems
            .iter()
            .any(|p| p.contains("spec.ingress[0].from[0].ipBlock.cidr"))
    );
}

#[test]
fn a_policy_that_cannot_be_read_closes_its_namespace_both_ways() {
    let mut index = index(1);
    let key = ObjectKey::new("x", "bad");
    assert!(index.apply_unreadable_network_policy(&key, "invalid type: null"));
    assert!(!index.apply_unreadable_network_policy(&key, "invalid type: null"));
    let model = index.refresh();
    let problem = "NetworkPolicy x/bad: spec: cannot be read: invalid type: null";
    assert_eq!(outcome(&model), (0, 0, vec![problem.to_owned()]));
    let subjects = model.subjects.values();
    let isolated = subjects.filter(|subject| {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .all(|direction| {
                let by = subject.standing.isolated_by(direction);
                by.is_some_and(|by| by.contains(&key))
            })
    });
    assert_eq!(isolated.count(), 2);
}

#[test]
fn names_as_long_as_names_can_be_and_any_script_change_nothing() {
    let long = "x".repeat(253);
    let odd = "\u{43f}\u{43e}\u{434}-\u{1f980}\"'\\\n{}";
    for name in [long.as_str(), odd] {
        let mut index = Index::new("n1");
        index.apply_namespace(&make_namespace(name, &[(name, name)]));
        let pod = make_pod(name, name).uid(name).label(name, name).node("n1");
        index.apply_pod(&pod.port(name, "TCP", 80).build());
        let endpoint = Endpoint {
            pod: ObjectKey::new(name, name),
            uid: name.into(),
            addresses: [IpAddr::from([10, 32, 0, 2])].into(),
            host_ifname: "veth".to_owned(),
        };
        index.apply_endpoint(EndpointId::new(name, "eth0"), endpoint);
        let port = NetworkPolicyPort {
            port: Some(IntOrString::String(name.to_owned())),
            ..NetworkPolicyPort::default()
        };
        let policy = make_network_policy(name, name)
            .selects(&[(name, name)])
            .ingress(vec![pods(&[(name, name)])], vec![port]);
        index.apply_network_policy(&policy.build());
        let model = index.refresh();
        assert!(model.problems.is_empty());
        let addresses: Vec<_> = model.peers.values().flat_map(|set| set.iter()).collect();
        assert_eq!(addresses, [&IpAddr::from([10, 32, 0, 2])]);
    }
}

#[test]
fn a_pod_that_changes_its_labels_without_end_leaves_nothing_behind() {
    let mut index = index(100);
    index.apply_network_policy(&bad(10, all_but));
    let before = index.refresh();
    for n in 0..10_000 {
        let pod = make_pod("x", "pod-0").node("n2").address("10.33.0.0");
        assert!(index.apply_pod(&pod.label("turn", &n.to_string()).build()));
    }
    let pod = make_pod("x", "pod-0").node("n2").address("10.33.0.0");
    let pod = pod.label("app", "web").label("pod", "0");
    index.apply_pod(&pod.build());
    assert_eq!(index.refresh(), before);
}
