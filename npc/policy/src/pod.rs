//! Pods, pruned to what policy needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;

use crate::{Labels, ObjectKey, Protocol, Uid};

/// What policy needs of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The UID the runtime knows it by.
    pub uid: Uid,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`.
    pub node: Option<Arc<str>>,
    /// `status.podIPs`.
    pub addresses: BTreeSet<IpAddr>,
    /// Named ports of containers and of restartable init containers, ordered, each once.
    pub ports: Box<[ContainerPort]>,
    /// `spec.hostNetwork`: neither subject nor peer.
    pub host_network: bool,
    /// Phase Succeeded or Failed: its address may belong to somebody else, so it is no peer.
    pub finished: bool,
    /// It has a deletion timestamp. Peer and subject still, but a younger claim to its address
    /// wins.
    pub terminating: bool,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created: i64,
}

/// A named port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerPort {
    /// Name and protocol are what a policy refers to.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// The number on the pod's address.
    pub port: u16,
}

impl Pod {
    /// Prunes a Pod. What cannot be read (an address, a port number) is left out: such an address
    /// is no peer, such a port matches nothing.
    pub fn prune(pod: &core::Pod) -> Self {
        SlimPod::from(pod).into()
    }
}

/// A Pod of the API as far as [`Pod`] is made of it. Everything else is skipped while it is
/// decoded and never becomes an object: a page of 500 whole Pods costs tens of megabytes, which
/// the allocator keeps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlimPod {
    metadata: SlimMetadata,
    spec: SlimSpec,
    status: SlimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimMetadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<SlimAnnotations>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimAnnotations {
    /// Marks a mirror pod: the API's picture of a static pod (kubelet, `pkg/kubelet/types`).
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<String>,
    /// Where a mirror pod carries the UID that the runtime knows the static pod by.
    #[serde(rename = "kubernetes.io/config.hash")]
    hash: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimSpec {
    node_name: Option<String>,
    host_network: Option<bool>,
    containers: Option<Vec<SlimContainer>>,
    init_containers: Option<Vec<SlimContainer>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimContainer {
    restart_policy: Option<String>,
    ports: Option<Vec<SlimPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SlimPort {
    name: Option<String>,
    protocol: Option<String>,
    container_port: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<SlimPodIp>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct SlimPodIp {
    ip: String,
}

impl SlimPod {
    /// `metadata.resourceVersion`: a watch is resumed from it.
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

impl From<SlimPod> for Pod {
    fn from(pod: SlimPod) -> Self {
        let SlimPod {
            metadata,
            spec,
            status,
        } = pod;
        let annotations = metadata.annotations.unwrap_or_default();
        let hash = annotations.mirror.and(annotations.hash);
        let uid = hash.or(metadata.uid).unwrap_or_default();
        let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        Self {
            key: ObjectKey::new(
                &metadata.namespace.unwrap_or_default(),
                &metadata.name.unwrap_or_default(),
            ),
            uid: Uid(uid.into()),
            labels: metadata.labels.into_iter().flatten().collect(),
            addresses: listed
                .chain(&status.pod_ip)
                .filter_map(|ip| ip.parse().ok())
                .collect(),
            ports: named_ports(&spec),
            node: spec.node_name.map(Arc::from),
            host_network: spec.host_network.unwrap_or_default(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            terminating: metadata.deletion_timestamp.is_some(),
            created: metadata.creation_timestamp.map_or(0, |t| t.0.as_second()),
        }
    }
}

impl From<&core::Pod> for SlimPod {
    fn from(pod: &core::Pod) -> Self {
        let meta = &pod.metadata;
        let annotation = |name: &str| meta.annotations.as_ref()?.get(name).cloned();
        let containers = |containers: &[core::Container]| {
            containers
                .iter()
                .map(SlimContainer::from)
                .collect::<Vec<_>>()
        };
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        Self {
            metadata: SlimMetadata {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                creation_timestamp: meta.creation_timestamp.clone(),
                deletion_timestamp: meta.deletion_timestamp.clone(),
                labels: meta.labels.clone(),
                annotations: Some(SlimAnnotations {
                    mirror: annotation("kubernetes.io/config.mirror"),
                    hash: annotation("kubernetes.io/config.hash"),
                }),
            },
            spec: SlimSpec {
                node_name: spec.and_then(|s| s.node_name.clone()),
                host_network: spec.and_then(|s| s.host_network),
                containers: spec.map(|s| containers(&s.containers)),
                init_containers: spec
                    .and_then(|s| s.init_containers.as_deref())
                    .map(containers),
            },
            status: SlimStatus {
                phase: status.and_then(|s| s.phase.clone()),
                pod_ip: status.and_then(|s| s.pod_ip.clone()),
                pod_ips: status.and_then(|s| s.pod_ips.as_ref()).map(|ips| {
                    ips.iter()
                        .map(|ip| SlimPodIp { ip: ip.ip.clone() })
                        .collect()
                }),
            },
        }
    }
}

impl From<&core::Container> for SlimContainer {
    fn from(container: &core::Container) -> Self {
        Self {
            restart_policy: container.restart_policy.clone(),
            ports: container.ports.as_ref().map(|ports| {
                ports
                    .iter()
                    .map(|port| SlimPort {
                        name: port.name.clone(),
                        protocol: port.protocol.clone(),
                        container_port: port.container_port.into(),
                    })
                    .collect()
            }),
        }
    }
}

fn named_ports(spec: &SlimSpec) -> Box<[ContainerPort]> {
    // An init container that runs beside the others (`restartPolicy: Always`) serves ports too.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports: BTreeSet<ContainerPort> = spec
        .containers
        .iter()
        .flatten()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(ContainerPort {
                name: port.name.as_deref().filter(|name| !name.is_empty())?.into(),
                protocol: Protocol::parse(port.protocol.as_deref()).ok()?,
                port: u16::try_from(port.container_port)
                    .ok()
                    .filter(|port| *port > 0)?,
            })
        })
        .collect();
    ports.into_iter().collect()
}
