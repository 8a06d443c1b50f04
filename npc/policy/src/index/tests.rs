use proptest::prelude::*;
use weft_testkit::builders::{
    ip_block, make_namespace, make_network_policy, make_pod, namespaces, pods,
};

use super::*;
use crate::cases::{self, Cluster};

#[test]
fn problems_name_the_field() {
    let mut index = Index::new("n1");
    let policy = make_network_policy("x", "p")
        .types(&["Ingress", "Sideways"])
        .ingress(vec![ip_block("10.0.0.1", &[])], vec![])
        .ingress(vec![ip_block("10.0.0.0/8", &["10.1.0.0"])], vec![])
        .egress(
            vec![networking::NetworkPolicyPeer::default()],
            vec![port("DCCP", Some(1), None)],
        )
        .egress(
            vec![],
            vec![port("TCP", Some(9), Some(8)), port("TCP", Some(0), None)],
        )
        .egress(
            vec![],
            vec![port("TCP", None, Some(8)), port("TCP", Some(70_000), None)],
        )
        .build();
    index.apply_network_policy(&policy);
    let found: Vec<_> = index
        .problems()
        .map(|p| (p.field.as_str(), p.message.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (
                "spec.policyTypes[1]",
                "type \"Sideways\" is not supported; use Ingress or Egress"
            ),
            (
                "spec.ingress[0].from[0].ipBlock.cidr",
                "\"10.0.0.1\" is not a CIDR such as 192.0.2.0/24; a single address is written \
                 10.0.0.1/32"
            ),
            (
                "spec.ingress[1].from[0].ipBlock.except[0]",
                "\"10.1.0.0\" is not a CIDR such as 192.0.2.0/24; a single address is written \
                 10.1.0.0/32"
            ),
            (
                "spec.egress[0].to[0]",
                "needs one of podSelector, namespaceSelector or ipBlock"
            ),
            (
                "spec.egress[0].ports[0].protocol",
                "protocol \"DCCP\" is not supported; use TCP, UDP or SCTP"
            ),
            ("spec.egress[1].ports[0].endPort", "8 is less than port 9"),
            (
                "spec.egress[1].ports[1].port",
                "0 is not a port; use 1 to 65535"
            ),
            ("spec.egress[2].ports[0].endPort", "needs port"),
            (
                "spec.egress[2].ports[1].port",
                "70000 is not a port; use 1 to 65535"
            ),
        ]
    );
}

fn port(protocol: &str, port: Option<i32>, end: Option<i32>) -> networking::NetworkPolicyPort {
    networking::NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: port.map(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int),
        end_port: end,
    }
}

#[test]
fn a_problem_is_reported_by_the_nodes_that_have_subjects_only() {
    let bad = make_network_policy("x", "p")
        .ingress(vec![ip_block("?", &[])], vec![])
        .build();
    let mut index = Cluster::new().index();
    index.apply_network_policy(&bad);
    assert_eq!(index.model().problems.len(), 1);
    let mut elsewhere = Index::new("n9");
    elsewhere.apply_network_policy(&bad);
    assert_eq!(
        (
            elsewhere.model().problems.len(),
            elsewhere.problems().count()
        ),
        (0, 1)
    );
}

#[test]
fn only_policies_with_local_subjects_are_in_the_model() {
    let mut index = Cluster::new().index();
    index.apply_network_policy(&make_network_policy("x", "p").build());
    index.apply_network_policy(
        &make_network_policy("z", "b")
            .selects(&[("pod", "b")])
            .build(),
    );
    let model = index.model();
    assert_eq!(
        model.policies.keys().collect::<Vec<_>>(),
        [&ObjectKey::new("x", "p")]
    );
}

#[test]
fn equal_selectors_are_one_peer_set() {
    let mut index = Cluster::new().index();
    for name in ["p", "q"] {
        let peers = vec![pods(&[("pod", "b")]), namespaces(&[("ns", "y")])];
        index.apply_network_policy(
            &make_network_policy("x", name)
                .ingress(peers, vec![])
                .build(),
        );
    }
    assert_eq!(index.model().peers.len(), 2);
}

#[test]
fn what_does_not_concern_policy_changes_nothing() {
    let mut index = Cluster::new().index();
    let pod = make_pod("x", "new")
        .node("n2")
        .address("10.32.0.90")
        .build();
    assert!(index.apply_pod(&pod));
    let mut heartbeat = pod.clone();
    heartbeat.metadata.resource_version = Some("2".to_owned());
    assert!(!index.apply_pod(&heartbeat));
    assert!(!index.apply_namespace(&make_namespace("x", &[("ns", "x")])));
    assert!(!index.delete_pod(&ObjectKey::new("x", "nobody")));
}

#[test]
fn the_endpoint_that_got_an_address_last_has_it() {
    let mut index = Index::new("n1");
    let endpoint = |name: &str| Endpoint {
        pod: ObjectKey::new("x", name),
        uid: name.into(),
        addresses: BTreeSet::from(["10.32.0.9".parse().expect("address")]),
        host_ifname: format!("veth{name}"),
    };
    index.apply_endpoint(EndpointId::new("1", "eth0"), endpoint("old"));
    index.apply_endpoint(EndpointId::new("2", "eth0"), endpoint("new"));
    let model = index.model();
    let at = model.subject_at("10.32.0.9".parse().expect("address"));
    assert_eq!(at.map(|(key, _)| &*key.pod.name), Some("new"));
}

/// One object of the cases' clusters, as an event.
#[derive(Clone, Debug)]
enum Event {
    Pod(Box<core::Pod>),
    Namespace(Box<core::Namespace>),
    Policy(Box<networking::NetworkPolicy>),
    Endpoint(EndpointId, Endpoint),
}

fn apply(index: &mut Index, event: &Event) {
    match event {
        Event::Pod(pod) => index.apply_pod(pod),
        Event::Namespace(namespace) => index.apply_namespace(namespace),
        Event::Policy(policy) => index.apply_network_policy(policy),
        Event::Endpoint(id, endpoint) => index.apply_endpoint(id.clone(), endpoint.clone()),
    };
}

fn events(cluster: &Cluster) -> Vec<Event> {
    let pods = cluster
        .pods
        .values()
        .map(|pod| Event::Pod(Box::new(pod.clone())));
    let namespaces = cluster
        .namespaces
        .values()
        .map(|n| Event::Namespace(Box::new(n.clone())));
    let policies = cluster
        .policies
        .values()
        .map(|p| Event::Policy(Box::new(p.clone())));
    let endpoints = cluster
        .endpoints
        .iter()
        .map(|(id, e)| Event::Endpoint(id.clone(), e.clone()));
    pods.chain(namespaces)
        .chain(policies)
        .chain(endpoints)
        .collect()
}

/// The last state of every case, with all its objects.
fn clusters() -> Vec<Cluster> {
    let mut clusters = Vec::new();
    for case in cases::all() {
        let mut last = Cluster::new();
        case.play(|index, cluster, _| {
            if !index.remembers() {
                last = cluster.clone();
            }
        });
        clusters.push(last);
    }
    clusters
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// I1: the order of arrival, repetition and passing foreign objects do not matter.
    #[test]
    fn any_order_of_arrival_gives_the_same_model(
        (number, order) in (0..clusters().len(), prop::collection::vec(any::<prop::sample::Index>(), 60)),
    ) {
        let cluster = &clusters()[number];
        let expected = cluster.index().model();
        let mut pending = events(cluster);
        let done = pending.clone();
        let mut index = Index::new("n1");
        // A policy, a pod and a namespace of another time, gone again before the end.
        let passing = make_network_policy("x", "passing").build();
        index.apply_network_policy(&passing);
        for choice in order {
            if pending.is_empty() {
                // Repetition.
                apply(&mut index, &done[choice.index(done.len())]);
            } else {
                apply(&mut index, &pending.swap_remove(choice.index(pending.len())));
            }
        }
        for event in &pending {
            apply(&mut index, event);
        }
        index.delete_network_policy(&ObjectKey::of(&passing));
        prop_assert_eq!(&index.model(), &expected);

        // A relist over it, as after a broken watch.
        index.apply_pod(&make_pod("x", "gone").node("n2").address("10.32.0.91").build());
        index.apply_namespace(&make_namespace("gone", &[]));
        index.reset_pods(cluster.pods.values());
        index.reset_namespaces(cluster.namespaces.values());
        index.reset_network_policies(cluster.policies.values());
        index.reset_endpoints(cluster.endpoints.iter().map(|(id, e)| (id.clone(), e.clone())));
        prop_assert_eq!(&index.model(), &expected);
    }
}
