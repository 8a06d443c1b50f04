//! Random clusters and packets, as the API may hold them: with lists that are null, empty and
//! full, ports of one name twice, blocks inside blocks and of the other family.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, Time,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use weft_policy::{
    Endpoint, EndpointId, Index, ObjectKey, Packet, Path, Payload, Protocol, State, cases,
};
use weft_testkit::builders::{make_namespace, make_network_policy, make_pod};

/// Everything that an [`Index`] of n1 is made of.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) namespaces: Vec<core::Namespace>,
    pub(super) pods: Vec<core::Pod>,
    pub(super) policies: Vec<networking::NetworkPolicy>,
    endpoints: Vec<(EndpointId, Endpoint)>,
}

/// An object arrives, by its place among those of its kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Namespace(usize),
    Pod(usize),
    Policy(usize),
    Endpoint(usize),
}

impl Objects {
    pub(super) fn events(&self) -> Vec<Event> {
        let namespaces = (0..self.namespaces.len()).map(Event::Namespace);
        let pods = (0..self.pods.len()).map(Event::Pod);
        let policies = (0..self.policies.len()).map(Event::Policy);
        let endpoints = (0..self.endpoints.len()).map(Event::Endpoint);
        namespaces
            .chain(pods)
            .chain(policies)
            .chain(endpoints)
            .collect()
    }

    pub(super) fn happen(&self, index: &mut Index, event: Event) {
        match event {
            Event::Namespace(i) => index.apply_namespace(&self.namespaces[i]),
            Event::Pod(i) => index.apply_pod(&self.pods[i]),
            Event::Policy(i) => index.apply_network_policy(&self.policies[i]),
            Event::Endpoint(i) => {
                let (id, endpoint) = self.endpoints[i].clone();
                index.apply_endpoint(id, endpoint)
            }
        };
    }

    pub(super) fn relist(&self, index: &mut Index) {
        index.reset_endpoints(self.endpoints.iter().cloned());
        index.reset_network_policies(&self.policies);
        index.reset_pods(&self.pods);
        index.reset_namespaces(&self.namespaces);
    }

    pub(super) fn index(&self) -> Index {
        let mut index = Index::new(cases::NODE);
        for event in self.events() {
            self.happen(&mut index, event);
        }
        index
    }
}

/// Values of labels. Few, so that selectors find somebody.
const NAMES: [&str; 5] = ["a", "a", "b", "b", "c"];
/// Of the pods (the first six are on n1), of hosts, and of the world.
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
const LOCAL: usize = 6;
const PODS: usize = 10;
const NETS: [&str; 14] = [
    "0.0.0.0/0",
    "0.0.0.0/1",
    "10.32.0.0/12",
    "10.32.0.0/26",
    "10.32.0.64/26",
    "10.32.0.4/30",
    "203.0.113.0/24",
    "203.0.113.128/25",
    "10.32.0.67/32",
    // Host bits that are not zero.
    "10.32.0.9/29",
    "::/0",
    "2001:db8::/64",
    "2001:db8::10.32.0.64/122",
    "2001:db8::10.32.0.2/127",
];

fn twin(v4: &str) -> IpAddr {
    format!("2001:db8::{v4}").parse().expect("IPv6")
}

/// A list as the API may have it: null, empty, or with something in it.
fn list<T: Strategy>(of: T, most: usize) -> impl Strategy<Value = Option<Vec<T::Value>>>
where
    T::Value: Clone,
{
    prop_oneof![
        1 => Just(None),
        1 => Just(Some(Vec::new())),
        10 => prop::collection::vec(of, 1..=most).prop_map(Some),
    ]
}

fn requirement() -> impl Strategy<Value = LabelSelectorRequirement> {
    let values = prop::collection::vec(select(NAMES.to_vec()), 1..3);
    // Seldom an operator with the wrong number of values, or none that we know.
    let operators = prop_oneof![
        20 => Just("In"), 20 => Just("NotIn"), 20 => Just("Exists"), 20 => Just("DoesNotExist"),
        1 => Just("Near"),
    ];
    let wrong = prop::bool::weighted(0.01);
    let key = select(vec!["pod", "ns", "tier"]);
    (key, operators, values, wrong, any::<bool>()).prop_map(
        |(key, operator, values, wrong, null)| {
            let values = values.into_iter().map(str::to_owned).collect();
            let empty = if null { None } else { Some(Vec::new()) };
            LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: if operator.ends_with("In") != wrong {
                    Some(values)
                } else {
                    empty
                },
            }
        },
    )
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let key = select(vec!["pod", "ns", "tier"]);
    // `nobody`: a selector of nothing.
    let value = prop_oneof![9 => select(NAMES.to_vec()), 1 => Just("nobody")];
    let labels = list((key, value), 2);
    prop_oneof![
        4 => Just(LabelSelector::default()),
        4 => (labels, list(requirement(), 2)).prop_map(|(labels, match_expressions)| {
            let labels = labels.map(|labels| {
                let owned = labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
                owned.collect()
            });
            LabelSelector { match_expressions, match_labels: labels }
        }),
        6 => select(NAMES.to_vec()).prop_map(|value| {
            weft_testkit::builders::selector(&[("pod", value)])
        }),
    ]
}

fn peer() -> impl Strategy<Value = networking::NetworkPolicyPeer> {
    let net = select(NETS.to_vec()).prop_map(str::to_owned);
    let block =
        (net.clone(), list(net, 3)).prop_map(|(cidr, except)| networking::IPBlock { cidr, except });
    let selectors = |namespace_selector, pod_selector| networking::NetworkPolicyPeer {
        namespace_selector,
        pod_selector,
        ip_block: None,
    };
    let of_block = |ip_block| networking::NetworkPolicyPeer {
        ip_block: Some(ip_block),
        ..networking::NetworkPolicyPeer::default()
    };
    prop_oneof![
        30 => selector().prop_map(move |pods| selectors(None, Some(pods))),
        20 => selector().prop_map(move |namespaces| selectors(Some(namespaces), None)),
        30 => (selector(), selector()).prop_map(move |(n, p)| selectors(Some(n), Some(p))),
        40 => block.prop_map(of_block),
        // Seldom one that closes its direction.
        1 => select(vec!["not a block", ""]).prop_map(move |cidr| of_block(networking::IPBlock {
            cidr: cidr.to_owned(),
            except: None,
        })),
    ]
}

fn port() -> impl Strategy<Value = networking::NetworkPolicyPort> {
    let protocol = prop_oneof![
        4 => Just(None), 4 => Just(Some("TCP")), 2 => Just(Some("UDP")), 1 => Just(Some("SCTP")),
    ];
    let number = |port| Some(IntOrString::Int(port));
    let number = prop_oneof![
        20 => Just((None, None)),
        60 => (80..83).prop_map(move |port| (number(port), None)),
        60 => (79..82, 0..4).prop_map(move |(port, more)| (number(port), Some(port + more))),
        20 => Just((number(82), Some(65_535))),
        80 => select(vec!["web", "web", "dns", "nobody"])
            .prop_map(|name| (Some(IntOrString::String(name.to_owned())), None)),
        // Seldom a range that ends before it begins.
        1 => Just((number(81), Some(80))),
    ];
    (protocol, number).prop_map(
        |(protocol, (port, end_port))| networking::NetworkPolicyPort {
            protocol: protocol.map(str::to_owned),
            port,
            end_port,
        },
    )
}

fn policy() -> impl Strategy<Value = networking::NetworkPolicy> {
    let types = select(vec![
        None,
        Some(vec![]),
        Some(vec!["Ingress"]),
        Some(vec!["Egress"]),
        Some(vec!["Ingress", "Egress"]),
    ]);
    let ingress = (list(peer(), 3), list(port(), 4))
        .prop_map(|(from, ports)| networking::NetworkPolicyIngressRule { from, ports });
    let egress = (list(peer(), 3), list(port(), 4))
        .prop_map(|(to, ports)| networking::NetworkPolicyEgressRule { to, ports });
    let subjects = prop_oneof![1 => Just(None), 12 => selector().prop_map(Some)];
    let spec = (subjects, types, list(ingress, 2), list(egress, 2)).prop_map(
        |(pod_selector, types, ingress, egress)| networking::NetworkPolicySpec {
            pod_selector,
            policy_types: types.map(|types| types.into_iter().map(str::to_owned).collect()),
            ingress,
            egress,
        },
    );
    // A policy may come without a spec.
    let spec = prop_oneof![1 => Just(None), 40 => spec.prop_map(Some)];
    (select(vec!["x", "y"]), spec).prop_map(|(namespace, spec)| {
        let mut policy = make_network_policy(namespace, "").build();
        policy.spec = spec;
        policy
    })
}

fn some_time() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}

/// What a pod is besides its place.
#[derive(Clone, Debug)]
struct Shape {
    namespace: &'static str,
    label: &'static str,
    tier: Option<&'static str>,
    ports: Vec<(&'static str, &'static str, i32)>,
    phase: &'static str,
    terminating: bool,
    host_network: bool,
    /// The API shows it.
    known: bool,
    /// It claims the address of the pod before it too.
    greedy: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let ports = select(vec![
        ("web", "TCP", 80),
        ("web", "TCP", 80),
        ("web", "TCP", 81),
        ("web", "UDP", 81),
        ("dns", "UDP", 80),
        ("web", "SCTP", 82),
    ]);
    let phase = prop_oneof![
        14 => Just("Running"), 1 => Just("Pending"), 1 => Just("Succeeded"), 1 => Just("Failed"),
    ];
    (
        select(vec!["x", "x", "x", "y", "y", "z"]),
        select(NAMES.to_vec()),
        prop::option::of(select(vec!["a", "b"])),
        prop::collection::vec(ports, 0..4),
        phase,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.92),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(namespace, label, tier, ports, phase, terminating, host_network, known, greedy)| {
                Shape {
                    namespace,
                    label,
                    tier,
                    ports,
                    phase,
                    terminating,
                    host_network,
                    known,
                    greedy,
                }
            },
        )
}

impl Shape {
    fn pod(&self, i: usize) -> core::Pod {
        let local = i < LOCAL;
        let mut pod = make_pod(self.namespace, &format!("p{i}"))
            .label("pod", self.label)
            .node(if local { cases::NODE } else { "n2" })
            .phase(self.phase);
        if let Some(tier) = self.tier {
            pod = pod.label("tier", tier).label("ns", tier);
        }
        for (name, protocol, port) in &self.ports {
            pod = pod.port(name, protocol, *port);
        }
        let own = [i].into_iter().filter(|_| !local);
        let others = [i - usize::from(i > 0)].into_iter().filter(|_| self.greedy);
        for address in own.chain(others).map(|i| ADDRESSES[i]) {
            pod = pod.address(address).address(&twin(address).to_string());
        }
        if self.host_network {
            pod = pod.host_network();
        }
        let mut pod = pod.build();
        pod.metadata.deletion_timestamp = self.terminating.then(some_time);
        pod
    }

    fn endpoint(&self, i: usize) -> (EndpointId, Endpoint) {
        let (name, v4) = (format!("p{i}"), ADDRESSES[i]);
        let endpoint = Endpoint {
            pod: ObjectKey::new(self.namespace, &name),
            uid: format!("uid-{}-{name}", self.namespace).as_str().into(),
            addresses: BTreeSet::from([v4.parse().expect("IPv4"), twin(v4)]),
            host_ifname: format!("vethwepl{name}"),
        };
        (EndpointId::new(&name, "eth0"), endpoint)
    }
}

fn namespaces() -> impl Strategy<Value = Vec<core::Namespace>> {
    let one = (
        select(NAMES.to_vec()),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.95),
    );
    prop::collection::vec(one, 3).prop_map(|shapes| {
        let named = ["x", "y", "z"].into_iter().zip(shapes);
        named
            .filter(|(_, (_, _, known))| *known)
            .map(|(name, (label, terminating, _))| {
                let mut namespace = make_namespace(name, &[("ns", label)]);
                namespace.metadata.deletion_timestamp = terminating.then(some_time);
                namespace
            })
            .collect()
    })
}

/// A cluster as n1 sees it: pods with random labels and ports at fixed addresses, some of them
/// attached here before their Pod is known.
pub(super) fn clusters() -> impl Strategy<Value = Objects> {
    let pods = prop::collection::vec(shape(), PODS);
    let policies = prop::collection::vec(policy(), 0..7);
    (pods, namespaces(), policies).prop_map(|(shapes, namespaces, mut policies)| {
        for (i, policy) in policies.iter_mut().enumerate() {
            policy.metadata.name = Some(format!("p{i}"));
        }
        let numbered = || shapes.iter().enumerate();
        Objects {
            namespaces,
            pods: numbered()
                .filter(|(_, shape)| shape.known)
                .map(|(i, shape)| shape.pod(i))
                .collect(),
            policies,
            endpoints: numbered()
                .take(LOCAL)
                .map(|(i, shape)| shape.endpoint(i))
                .collect(),
        }
    })
}

pub(super) fn packet() -> impl Strategy<Value = Packet> {
    let protocol = prop_oneof![
        4 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp),
    ];
    let port = prop_oneof![5 => Just(80), 9 => 79_u16..84, 1 => Just(65_535)];
    let payload = prop_oneof![
        6 => (protocol, port).prop_map(|(protocol, port)| Payload::Port { protocol, port }),
        1 => select(vec![8_u8, 128, 135]).prop_map(Payload::Icmp),
        1 => Just(Payload::Other(47)),
    ];
    let state = prop_oneof![
        20 => Just(State::New),
        1 => Just(State::Established),
        1 => Just(State::Related),
        2 => Just(State::Invalid),
        1 => Just(State::Untracked),
    ];
    let path = prop_oneof![
        16 => Just(Path::Forward { out_port: None }),
        2 => Just(Path::Input),
        1 => Just(Path::Output),
        2 => (0..LOCAL).prop_map(|i| Path::Forward { out_port: Some(format!("vethweplp{i}")) }),
    ];
    // Most packets go from a pod to a pod of this node: that is where most rules are. 10.32.0.50 is
    // in the node's block and nobody's.
    let (pods, local) = (&ADDRESSES[..PODS], &ADDRESSES[..LOCAL]);
    let nobody = &["10.32.0.50"][..];
    let sources = [&ADDRESSES[..], nobody, pods].concat();
    let destinations = [&ADDRESSES[..], nobody, local, local, local].concat();
    (
        select(sources),
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
