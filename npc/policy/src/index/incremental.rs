//! I6: what is worked out from the last model and what changed since is what would be worked out
//! anew.

use k8s_openapi::api::networking::v1::{NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use weft_testkit::builders::{ip_block, make_namespace, make_network_policy, make_pod};

use super::*;
use crate::cases;

/// Few names and values, so that they meet.
#[derive(Clone, Debug)]
enum Event {
    Pod(u8, u8, PodState),
    DeletePod(u8, u8),
    Namespace(u8, u8),
    TerminateNamespace(u8),
    DeleteNamespace(u8),
    Policy(u8, u8, u8, Vec<(Option<u8>, Option<u8>, u8)>),
    DeletePolicy(u8, u8),
    Attach(u8, u8, u8, u8),
    Detach(u8),
    Refresh,
    /// All pods but those of one name.
    Relist(u8),
}

#[derive(Clone, Debug)]
struct PodState {
    uid: u8,
    node: u8,
    label: u8,
    address: u8,
    port: u8,
    phase: u8,
    created: u8,
}

fn pod_state() -> impl Strategy<Value = PodState> {
    (0..2u8, 0..4u8, 0..3u8, 0..6u8, 0..3u8, 0..8u8, 0..3u8).prop_map(
        |(uid, node, label, address, port, phase, created)| PodState {
            uid,
            node,
            label,
            address,
            port,
            phase,
            created,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let peer = || (prop::option::of(0..4u8), prop::option::of(0..4u8), 0..4u8);
    prop_oneof![
        6 => (0..3u8, 0..4u8, pod_state()).prop_map(|(ns, pod, state)| Event::Pod(ns, pod, state)),
        2 => (0..3u8, 0..4u8).prop_map(|(ns, pod)| Event::DeletePod(ns, pod)),
        2 => (0..3u8, 0..3u8).prop_map(|(ns, label)| Event::Namespace(ns, label)),
        1 => (0..3u8).prop_map(Event::TerminateNamespace),
        1 => (0..3u8).prop_map(Event::DeleteNamespace),
        4 => (0..3u8, 0..4u8, 0..4u8, prop::collection::vec(peer(), 0..4))
            .prop_map(|(ns, policy, selects, peers)| Event::Policy(ns, policy, selects, peers)),
        1 => (0..3u8, 0..4u8).prop_map(|(ns, policy)| Event::DeletePolicy(ns, policy)),
        4 => (0..3u8, 0..4u8, 0..2u8, 0..6u8).prop_map(|(ns, pod, uid, a)| Event::Attach(ns, pod, uid, a)),
        1 => (0..12u8).prop_map(Event::Detach),
        4 => Just(Event::Refresh),
        1 => (0..4u8).prop_map(Event::Relist),
    ]
}

fn namespace(n: u8) -> String {
    format!("ns{n}")
}

fn make(ns: u8, name: u8, state: &PodState) -> core::Pod {
    let mut pod = make_pod(&namespace(ns), &format!("pod{name}"))
        .uid(&format!("uid{}", state.uid))
        .label("app", &format!("app{}", state.label))
        .address(&format!("10.32.0.{}", state.address))
        .node(if state.node == 0 { "n1" } else { "n2" });
    if state.port > 0 {
        pod = pod.port("web", "TCP", 80 + i32::from(state.port));
    }
    if state.phase == 0 {
        pod = pod.phase("Failed");
    }
    if state.phase == 1 {
        pod = pod.host_network();
    }
    let mut pod = pod.build();
    let time = |seconds: u8| {
        let text = format!("2026-01-01T00:00:0{seconds}Z");
        Some(Time(text.parse().expect("a time")))
    };
    pod.metadata.creation_timestamp = time(state.created);
    if state.phase == 2 {
        pod.metadata.deletion_timestamp = time(9);
    }
    pod
}

/// Selectors of every operator; `None`: no such selector.
fn selector(key: &str, prefix: &str, which: u8) -> LabelSelector {
    let expression = |operator: &str, values: Option<Vec<String>>| LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values,
        }]),
        match_labels: None,
    };
    let values = |n: &[u8]| Some(n.iter().map(|n| format!("{prefix}{n}")).collect());
    match which {
        0 => LabelSelector::default(),
        1 => expression("In", values(&[0, 1])),
        2 => expression("NotIn", values(&[1])),
        _ => expression("Exists", None),
    }
}

fn policy(
    ns: u8,
    name: u8,
    selects: u8,
    peers: &[(Option<u8>, Option<u8>, u8)],
) -> networking::NetworkPolicy {
    let mut policy =
        make_network_policy(&namespace(ns), &format!("policy{name}")).types(&["Ingress", "Egress"]);
    for (namespaces, pods, kind) in peers {
        let peer = match (namespaces, pods) {
            (None, None) => ip_block("10.0.0.0/8", &[]),
            (namespaces, pods) => NetworkPolicyPeer {
                namespace_selector: namespaces.map(|n| selector("team", "team", n)),
                pod_selector: pods.map(|n| selector("app", "app", n)),
                ip_block: None,
            },
        };
        let port = |port: IntOrString| NetworkPolicyPort {
            port: Some(port),
            ..NetworkPolicyPort::default()
        };
        let web = || port(IntOrString::String("web".to_owned()));
        policy = match port_kind(*kind, name) {
            0 => policy.ingress(vec![peer], vec![]),
            1 => policy
                .ingress(vec![peer.clone()], vec![web()])
                .egress(vec![], vec![web()]),
            2 => policy.egress(
                vec![peer.clone(), peer],
                vec![web(), port(IntOrString::Int(80))],
            ),
            _ => policy.egress(vec![peer], vec![]),
        };
    }
    let mut policy = policy.build();
    policy.spec.get_or_insert_default().pod_selector = Some(selector("app", "app", selects));
    policy
}

fn port_kind(kind: u8, name: u8) -> u8 {
    (kind + name) % 4
}

/// The objects, kept besides.
#[derive(Default)]
struct World {
    pods: BTreeMap<ObjectKey, core::Pod>,
}

fn apply(index: &mut Index, world: &mut World, event: &Event) {
    let id = |pod: u8, uid: u8| EndpointId::new(&format!("c{}", pod * 2 + uid), "eth0");
    match event {
        Event::Pod(ns, name, state) => {
            let pod = make(*ns, *name, state);
            index.apply_pod(&pod);
            world.pods.insert(ObjectKey::of(&pod), pod);
        }
        Event::DeletePod(ns, name) => {
            let key = ObjectKey::new(&namespace(*ns), &format!("pod{name}"));
            assert_eq!(index.delete_pod(&key), world.pods.remove(&key).is_some());
        }
        Event::Namespace(ns, label) => {
            let team = format!("team{label}");
            index.apply_namespace(&make_namespace(&namespace(*ns), &[("team", &team)]));
        }
        Event::TerminateNamespace(ns) => {
            let mut namespace = make_namespace(&namespace(*ns), &[]);
            namespace.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            index.apply_namespace(&namespace);
        }
        Event::DeleteNamespace(ns) => {
            index.delete_namespace(&namespace(*ns));
        }
        Event::Policy(ns, name, selects, peers) => {
            index.apply_network_policy(&policy(*ns, *name, *selects, peers));
        }
        Event::DeletePolicy(ns, name) => {
            let key = ObjectKey::new(&namespace(*ns), &format!("policy{name}"));
            index.delete_network_policy(&key);
        }
        Event::Attach(ns, name, uid, address) => {
            let endpoint = Endpoint {
                pod: ObjectKey::new(&namespace(*ns), &format!("pod{name}")),
                uid: format!("uid{uid}").as_str().into(),
                addresses: [format!("10.32.0.{address}").parse().expect("address")].into(),
                host_ifname: format!("veth{name}{uid}"),
            };
            index.apply_endpoint(id(*name, *uid), endpoint);
        }
        Event::Detach(which) => {
            index.delete_endpoint(&id(which / 2, which % 2));
        }
        Event::Refresh => {
            index.refresh();
        }
        Event::Relist(without) => {
            let name = format!("pod{without}");
            world.pods.retain(|key, _| *key.name != *name);
            index.reset_pods(world.pods.values());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_model_from_changes_is_the_model_from_nothing(events in prop::collection::vec(event(), 1..60)) {
        let mut index = Index::new("n1");
        let mut world = World::default();
        for event in &events {
            apply(&mut index, &mut world, event);
            if matches!(event, Event::Refresh) {
                prop_assert_eq!(index.refresh(), index.model());
            }
        }
        let last = index.refresh();
        prop_assert_eq!(&last, &index.model());
        // What does not change keeps its values: equality is seen without looking into them.
        let again = index.refresh();
        let sets = last.peers.values().zip(again.peers.values());
        prop_assert!(sets.into_iter().all(|(a, b)| Arc::ptr_eq(a, b)));
        let policies = last.policies.values().zip(again.policies.values());
        prop_assert!(policies.into_iter().all(|(a, b)| Arc::ptr_eq(a, b)));
    }
}

#[test]
fn every_case_gives_the_same_model_step_by_step() {
    let mut checked = 0;
    for case in cases::all() {
        let mut index: Option<Index> = None;
        case.play(|_, cluster, expectation| {
            // The objects of this moment, on top of a model of the moment before.
            let index = index.get_or_insert_with(|| Index::new("n1"));
            index.reset_namespaces(cluster.namespaces.values());
            index.reset_network_policies(cluster.policies.values());
            index.reset_pods(cluster.pods.values());
            index.reset_endpoints(
                cluster
                    .endpoints
                    .iter()
                    .map(|(id, e)| (id.clone(), e.clone())),
            );
            // A fresh index has not seen what went.
            if !index.remembers() {
                checked += 1;
                let from_nothing = cluster.index().model();
                assert_eq!(index.refresh(), from_nothing, "{}", expectation.line);
            }
        });
    }
    assert!(checked > 200, "only {checked} moments");
}

#[test]
fn a_relist_that_changes_nothing_changes_nothing() {
    let cluster = cases::Cluster::new();
    let mut index = cluster.index();
    let before = index.refresh();
    assert!(!index.reset_pods(cluster.pods.values()));
    assert!(!index.reset_namespaces(cluster.namespaces.values()));
    assert!(!index.reset_network_policies(cluster.policies.values()));
    assert_eq!(index.refresh(), before);
}

#[test]
fn a_list_that_is_begun_anew_forgets_what_the_first_try_had() {
    let mut index = Index::new("n1");
    let [a, b] = ["a", "b"].map(|name| Pod::prune(&make_pod("x", name).build()));
    index.begin_pod_list();
    index.apply_pruned_pod(&a);
    index.begin_pod_list();
    index.apply_pruned_pod(&b);
    assert!(index.end_pod_list());
    assert_eq!(index.pod(&a.key), None);
    assert!(index.pod(&b.key).is_some());
}
