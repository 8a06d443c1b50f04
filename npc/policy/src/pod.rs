//! Pods, pruned to what policy needs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::{Labels, ObjectKey, Protocol, Uid};

/// Marks a mirror pod: the API's picture of a static pod (kubelet, `pkg/kubelet/types`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where a mirror pod carries the UID that the runtime knows the static pod by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

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
    /// Named ports of containers and of restartable init containers.
    pub ports: BTreeSet<ContainerPort>,
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        let key = ObjectKey::of(pod);
        let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name);
        let uid = annotation(MIRROR)
            .and_then(|_| annotation(CONFIG_HASH))
            .or(pod.metadata.uid.as_ref())
            .map(String::as_str)
            .unwrap_or_default();
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let listed = status
            .iter()
            .flat_map(|s| s.pod_ips.iter().flatten())
            .map(|ip| &ip.ip);
        let single = status.and_then(|s| s.pod_ip.as_ref());
        Self {
            uid: uid.into(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            node: spec.and_then(|s| s.node_name.as_deref()).map(Arc::from),
            addresses: listed
                .chain(single)
                .filter_map(|ip| ip.parse().ok())
                .collect(),
            ports: spec.map(named_ports).unwrap_or_default(),
            host_network: spec.and_then(|s| s.host_network).unwrap_or_default(),
            finished: matches!(
                status.and_then(|s| s.phase.as_deref()),
                Some("Succeeded" | "Failed")
            ),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            created: pod
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_second()),
            key,
        }
    }
}

fn named_ports(spec: &core::PodSpec) -> BTreeSet<ContainerPort> {
    // An init container that runs beside the others (`restartPolicy: Always`) serves ports too.
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
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
        .collect()
}
