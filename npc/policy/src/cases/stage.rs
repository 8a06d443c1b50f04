//! The stage of the cases, and the reading of their lines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::{Cluster, Expectation, NODE, Step, mirror};
use crate::{Endpoint, EndpointId, Index, ObjectKey, Packet, Path, Payload, Protocol, State};

/// Pods of the stage: name, last byte of its addresses.
const LOCAL: [(&str, u8); 5] = [("x/a", 2), ("x/b", 3), ("y/a", 4), ("y/b", 5), ("z/a", 6)];
const REMOTE: [(&str, u8); 4] = [("x/c", 67), ("y/c", 68), ("z/b", 69), ("z/c", 70)];

pub(super) fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for name in ["x", "y", "z"] {
        apply_namespace(&mut cluster, name, &format!("ns: {name}"));
    }
    for (name, byte) in LOCAL {
        cluster.pods.insert(key(name), pod(name, "{}"));
        attach(
            &mut cluster,
            name,
            &default_uid(name),
            &format!("10.32.0.{byte}"),
        );
    }
    for (name, _) in REMOTE {
        cluster.pods.insert(key(name), pod(name, "{}"));
    }
    cluster
}

/// npc on n1, as far as it has heard of what happened.
pub(super) struct Npc {
    index: Index,
    /// Policies are played in the other family.
    mirrored: bool,
    runs: bool,
    hears_api: bool,
}

impl Npc {
    pub(super) fn new(cluster: &Cluster, mirrored: bool) -> Self {
        Self {
            index: cluster.index(),
            mirrored,
            runs: true,
            hears_api: true,
        }
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn up_to_date(&self) -> bool {
        self.runs && self.hears_api
    }

    /// Changes the objects and tells the index, as the watches and CNI would.
    pub(super) fn happen(&mut self, step: &Step, cluster: &mut Cluster) {
        let api = self.runs && self.hears_api;
        let index = &mut self.index;
        match *step {
            Step::Policy(name, spec) => {
                let mut policy = policy(name, spec);
                if self.mirrored {
                    mirror::policy(&mut policy);
                }
                let _ = api && index.apply_network_policy(&policy);
                cluster.policies.insert(key(name), policy);
            }
            Step::Pod(name, settings) => {
                let pod = pod(name, settings);
                let _ = api && index.apply_pod(&pod);
                cluster.pods.insert(key(name), pod);
            }
            Step::Namespace(name, labels) => {
                apply_namespace(cluster, name, labels);
                let _ = api && index.apply_namespace(&cluster.namespaces[name]);
            }
            Step::TerminateNamespace(name) => {
                let namespace = cluster.namespaces.get_mut(name);
                let namespace = namespace.unwrap_or_else(|| panic!("no namespace {name}"));
                namespace.metadata.deletion_timestamp = Some(seconds(1));
                let _ = api && index.apply_namespace(namespace);
            }
            Step::DeletePolicy(name) => {
                let policy = cluster.policies.remove(&key(name));
                assert!(policy.is_some(), "no policy {name}");
                let _ = api && index.delete_network_policy(&key(name));
            }
            Step::DeletePod(name) => {
                assert!(cluster.pods.remove(&key(name)).is_some(), "no pod {name}");
                let _ = api && index.delete_pod(&key(name));
            }
            Step::DeleteNamespace(name) => {
                let namespace = cluster.namespaces.remove(name);
                assert!(namespace.is_some(), "no namespace {name}");
                let _ = api && index.delete_namespace(name);
            }
            Step::Attach(name, uid, address) => {
                let id = attach(cluster, name, uid, address);
                let endpoint = cluster.endpoints[&id].clone();
                let _ = self.runs && index.apply_endpoint(id, endpoint);
            }
            Step::Detach(name, uid) => {
                let id = EndpointId::new(&format!("{name}-{uid}"), "eth0");
                assert!(cluster.endpoints.remove(&id).is_some(), "no endpoint {id}");
                let _ = self.runs && index.delete_endpoint(&id);
            }
            Step::Kill => self.runs = false,
            Step::Start => {
                self.runs = true;
                *index = cluster.index();
            }
            Step::LoseApi => self.hears_api = false,
            Step::Relist => {
                self.hears_api = true;
                index.reset_namespaces(cluster.namespaces.values());
                index.reset_pods(cluster.pods.values());
                index.reset_network_policies(cluster.policies.values());
            }
            Step::Packets(_) => {}
        }
    }
}

fn key(name: &str) -> ObjectKey {
    let (namespace, name) = name
        .split_once('/')
        .unwrap_or_else(|| panic!("{name}: no namespace"));
    ObjectKey::new(namespace, name)
}

fn metadata(name: &str) -> ObjectMeta {
    let key = key(name);
    ObjectMeta {
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        ..ObjectMeta::default()
    }
}

pub(super) fn policy(name: &str, spec: &str) -> networking::NetworkPolicy {
    networking::NetworkPolicy {
        metadata: metadata(name),
        spec: Some(serde_yaml::from_str(spec).unwrap_or_else(|e| panic!("{name}: {e}: {spec}"))),
    }
}

fn apply_namespace(cluster: &mut Cluster, name: &str, labels: &str) {
    let mut labels: BTreeMap<String, String> =
        serde_yaml::from_str(labels).unwrap_or_else(|e| panic!("{name}: {e}"));
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    };
    let namespace = core::Namespace {
        metadata,
        ..core::Namespace::default()
    };
    cluster.namespaces.insert(name.to_owned(), namespace);
}

fn default_uid(name: &str) -> String {
    format!("uid-{}", name.replace('/', "-"))
}

fn attach(cluster: &mut Cluster, name: &str, uid: &str, address: &str) -> EndpointId {
    let id = EndpointId::new(&format!("{name}-{uid}"), "eth0");
    let v4: IpAddr = address.parse().unwrap_or_else(|e| panic!("{address}: {e}"));
    let addresses = BTreeSet::from([v4, twin(v4)]);
    let endpoint = Endpoint {
        pod: key(name),
        uid: uid.into(),
        addresses,
        host_ifname: host_ifname(name),
    };
    cluster.endpoints.insert(id.clone(), endpoint);
    id
}

fn host_ifname(name: &str) -> String {
    format!("vethwepl{}", name.replace('/', ""))
}

/// The IPv6 address of a pod by its IPv4 address.
fn twin(v4: IpAddr) -> IpAddr {
    mirror::address(v4).unwrap_or_else(|| panic!("{v4} has no twin"))
}

fn seconds(seconds: i64) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    let time = k8s_openapi::jiff::Timestamp::from_second(seconds);
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time.unwrap_or_else(|e| panic!("{e}")))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Settings {
    labels: Option<BTreeMap<String, String>>,
    uid: Option<String>,
    address: Option<String>,
    node: Option<String>,
    phase: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    created: i64,
    terminating: bool,
    host_network: bool,
    ports: Option<Vec<core::ContainerPort>>,
    sidecar_ports: Option<Vec<core::ContainerPort>>,
    init_ports: Option<Vec<core::ContainerPort>>,
}

fn pod(name: &str, settings: &str) -> core::Pod {
    let settings: Settings =
        serde_yaml::from_str(settings).unwrap_or_else(|e| panic!("{name}: {e}: {settings}"));
    let staged = |(staged, byte): &(&str, u8), node| (*staged == name).then_some((node, *byte));
    let (node, byte) = LOCAL
        .iter()
        .find_map(|pod| staged(pod, NODE))
        .or_else(|| REMOTE.iter().find_map(|pod| staged(pod, "n2")))
        .unzip();
    let node = settings
        .node
        .or(node.map(str::to_owned))
        .unwrap_or_else(|| NODE.to_owned());
    let address = settings
        .address
        .or(byte.map(|byte| format!("10.32.0.{byte}")));
    let pod_ips = address
        .filter(|address| !address.is_empty())
        .map(|address| {
            let v4: IpAddr = address.parse().unwrap_or_else(|e| panic!("{address}: {e}"));
            [v4, twin(v4)]
                .map(|ip| core::PodIP { ip: ip.to_string() })
                .to_vec()
        });
    let key = key(name);
    let labels = settings
        .labels
        .unwrap_or_else(|| BTreeMap::from([("pod".to_owned(), key.name.to_string())]));
    let container = |ports| core::Container {
        ports: Some(ports),
        ..core::Container::default()
    };
    let restartable = |ports| core::Container {
        restart_policy: Some("Always".to_owned()),
        ..container(ports)
    };
    let sidecars = settings.sidecar_ports.map(restartable);
    let inits = settings.init_ports.map(container);
    core::Pod {
        metadata: ObjectMeta {
            uid: Some(settings.uid.unwrap_or_else(|| default_uid(name))),
            labels: Some(labels),
            annotations: settings.annotations,
            creation_timestamp: Some(seconds(settings.created)),
            deletion_timestamp: settings.terminating.then(|| seconds(settings.created + 1)),
            ..metadata(name)
        },
        spec: Some(core::PodSpec {
            node_name: Some(node),
            host_network: settings.host_network.then_some(true),
            containers: vec![container(settings.ports.unwrap_or_else(serving))],
            init_containers: Some(sidecars.into_iter().chain(inits).collect()),
            ..core::PodSpec::default()
        }),
        status: Some(core::PodStatus {
            phase: settings.phase.or_else(|| Some("Running".to_owned())),
            pod_ips,
            ..core::PodStatus::default()
        }),
    }
}

fn serving() -> Vec<core::ContainerPort> {
    [(80, "TCP"), (81, "TCP"), (80, "UDP"), (80, "SCTP")]
        .map(|(port, protocol)| core::ContainerPort {
            container_port: port,
            name: Some(format!("serve-{port}-{}", protocol.to_lowercase())),
            protocol: Some(protocol.to_owned()),
            ..core::ContainerPort::default()
        })
        .to_vec()
}

/// A line as a packet; `None`: in the other family there is no such packet.
pub(super) fn expectation(
    line: &'static str,
    cluster: &Cluster,
    mirrored: bool,
) -> Option<Expectation> {
    let bad = |what: &str| -> ! { panic!("packet line {line:?}: {what}") };
    let words: Vec<&str> = line.split_whitespace().collect();
    let [source, "->", destination, payload, options @ .., verdict] = words.as_slice() else {
        bad("is not `SOURCE -> DESTINATION PAYLOAD [OPTIONS] VERDICT`")
    };
    let (mut v6, mut closed, mut source_port, mut state) = (false, false, 40_000, State::New);
    for option in options {
        match *option {
            "v6" => v6 = true,
            "closed" => closed = true,
            "established" => state = State::Established,
            "related" => state = State::Related,
            "invalid" => state = State::Invalid,
            other => {
                let port = other
                    .strip_prefix("from/")
                    .and_then(|port| port.parse().ok());
                source_port = port.unwrap_or_else(|| bad("has an unknown option"));
            }
        }
    }
    let (destination, receiver) = match destination.split_once('@') {
        Some((group, receiver)) => (group, Some(host_ifname(receiver))),
        None => (*destination, None),
    };
    let end = |name| {
        let address = end(name, v6, cluster);
        if address.is_ipv6() != v6 {
            bad("has an address of the other family");
        }
        match mirrored {
            true => mirror::address(address),
            false => Some(address),
        }
    };
    let payload = read_payload(payload, v6).unwrap_or_else(|| bad("has an unknown payload"));
    let packet = Packet {
        source: end(source)?,
        destination: end(destination)?,
        payload: match mirrored {
            true => mirror::payload(payload, !v6)?,
            false => payload,
        },
        state,
        path: match (*source, destination) {
            ("node", _) => Path::Output,
            (_, "node") => Path::Input,
            _ => Path::Forward { out_port: receiver },
        },
    };
    let allowed = match *verdict {
        "allow" => true,
        "deny" => false,
        _ => bad("ends neither in allow nor deny"),
    };
    Some(Expectation {
        line,
        mirrored,
        packet,
        source_port,
        allowed,
        closed,
        up_to_date: true,
    })
}

/// An end in the family that the line is written in.
fn end(name: &str, v6: bool, cluster: &Cluster) -> IpAddr {
    let text = match name {
        "node" => "10.32.0.1",
        "node2" => "10.32.0.65",
        "outside" => "203.0.113.10",
        name if !name.contains('/') => {
            return name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        name => {
            let mut staged = LOCAL.iter().chain(&REMOTE);
            let staged = staged.find(|(staged, _)| *staged == name);
            let attached = || {
                let of = |e: &&Endpoint| e.pod == key(name);
                let endpoint = cluster.endpoints.values().find(of)?;
                endpoint.addresses.first().copied()
            };
            let v4 = staged
                .map(|(_, byte)| IpAddr::from([10, 32, 0, *byte]))
                .or_else(attached)
                .unwrap_or_else(|| panic!("no pod {name}"));
            return if v6 { twin(v4) } else { v4 };
        }
    };
    let v4 = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    if v6 { twin(v4) } else { v4 }
}

fn read_payload(text: &str, v6: bool) -> Option<Payload> {
    let (kind, number) = match text.split_once('/') {
        Some((kind, number)) => (kind, Some(number.parse::<u16>().ok()?)),
        None => (text, None),
    };
    let port = |protocol| {
        Some(Payload::Port {
            protocol,
            port: number?,
        })
    };
    match kind {
        "tcp" => port(Protocol::Tcp),
        "udp" => port(Protocol::Udp),
        "sctp" => port(Protocol::Sctp),
        "icmp" => {
            let echo = if v6 { 128 } else { 8 };
            Some(Payload::Icmp(u8::try_from(number.unwrap_or(echo)).ok()?))
        }
        "proto" => Some(Payload::Other(u8::try_from(number?).ok()?)),
        _ => None,
    }
}
