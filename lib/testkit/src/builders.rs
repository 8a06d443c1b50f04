//! Objects of the API for tests, and the address plan they live in.

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The address plan: every range has one role, so that an address tells where it is.
pub mod plan {
    /// The pods' range, Weave Net's default.
    pub const POOL: &str = "10.32.0.0/12";
    /// Block of the node `n1`; its first address is the gateway.
    pub const BLOCK_N1: &str = "10.32.0.0/26";
    /// Block of the node `n2`; its first address is the gateway.
    pub const BLOCK_N2: &str = "10.32.0.64/26";
    /// Gateway of `n1`.
    pub const GATEWAY_N1: &str = "10.32.0.1";
    /// Gateway of `n2`.
    pub const GATEWAY_N2: &str = "10.32.0.65";
    /// Services.
    pub const SERVICES: &str = "10.96.0.0/16";
    /// The nodes' own network.
    pub const UNDERLAY: &str = "172.30.0.0/24";
    /// Hosts that are neither node nor pod (RFC 5737).
    pub const OUTSIDE: &str = "203.0.113.0/24";
    /// The pods' IPv6 range.
    pub const POOL_V6: &str = "fd10:32::/64";
}

/// Builds a Pod: running on no node, without address, UID `uid-<namespace>-<name>`.
#[must_use]
pub fn make_pod(namespace: &str, name: &str) -> PodBuilder {
    PodBuilder(core::Pod {
        metadata: ObjectMeta {
            uid: Some(format!("uid-{namespace}-{name}")),
            ..metadata(Some(namespace), name)
        },
        spec: Some(core::PodSpec {
            containers: vec![core::Container {
                name: "main".to_owned(),
                ..core::Container::default()
            }],
            ..core::PodSpec::default()
        }),
        status: Some(core::PodStatus {
            phase: Some("Running".to_owned()),
            ..core::PodStatus::default()
        }),
    })
}

/// See [`make_pod`].
#[derive(Clone, Debug)]
pub struct PodBuilder(core::Pod);

impl PodBuilder {
    /// Sets `metadata.uid`.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.0.metadata.uid = Some(uid.to_owned());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        let labels = self.0.metadata.labels.get_or_insert_default();
        labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        let annotations = self.0.metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts it on a node.
    #[must_use]
    pub fn node(mut self, node: &str) -> Self {
        self.0.spec.get_or_insert_default().node_name = Some(node.to_owned());
        self
    }

    /// Adds an address to its status.
    #[must_use]
    pub fn address(mut self, ip: &str) -> Self {
        let status = self.0.status.get_or_insert_default();
        status
            .pod_ips
            .get_or_insert_default()
            .push(core::PodIP { ip: ip.to_owned() });
        status.pod_ip.get_or_insert_with(|| ip.to_owned());
        self
    }

    /// Sets the phase.
    #[must_use]
    pub fn phase(mut self, phase: &str) -> Self {
        self.0.status.get_or_insert_default().phase = Some(phase.to_owned());
        self
    }

    /// Puts it into the node's network.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.0.spec.get_or_insert_default().host_network = Some(true);
        self
    }

    /// Adds a named port to its container.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: i32) -> Self {
        let spec = self.0.spec.get_or_insert_default();
        if spec.containers.is_empty() {
            spec.containers.push(core::Container::default());
        }
        spec.containers[0]
            .ports
            .get_or_insert_default()
            .push(core::ContainerPort {
                name: Some(name.to_owned()),
                protocol: Some(protocol.to_owned()),
                container_port: port,
                ..core::ContainerPort::default()
            });
        self
    }

    /// The Pod.
    #[must_use]
    pub fn build(self) -> core::Pod {
        self.0
    }
}

/// A Namespace with labels, and `kubernetes.io/metadata.name` as the API server adds it.
#[must_use]
pub fn make_namespace(name: &str, labels: &[(&str, &str)]) -> core::Namespace {
    let mut labels = owned(labels);
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    core::Namespace {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..metadata(None, name)
        },
        ..core::Namespace::default()
    }
}

/// Builds a NetworkPolicy that selects all pods of its namespace and has no rule.
#[must_use]
pub fn make_network_policy(namespace: &str, name: &str) -> NetworkPolicyBuilder {
    NetworkPolicyBuilder(networking::NetworkPolicy {
        metadata: metadata(Some(namespace), name),
        spec: Some(networking::NetworkPolicySpec {
            pod_selector: Some(LabelSelector::default()),
            ..networking::NetworkPolicySpec::default()
        }),
    })
}

/// See [`make_network_policy`].
#[derive(Clone, Debug)]
pub struct NetworkPolicyBuilder(networking::NetworkPolicy);

impl NetworkPolicyBuilder {
    fn spec(&mut self) -> &mut networking::NetworkPolicySpec {
        self.0.spec.get_or_insert_default()
    }

    /// Selects the pods with these labels.
    #[must_use]
    pub fn selects(mut self, labels: &[(&str, &str)]) -> Self {
        self.spec().pod_selector = Some(selector(labels));
        self
    }

    /// Sets `policyTypes`.
    #[must_use]
    pub fn types(mut self, types: &[&str]) -> Self {
        self.spec().policy_types = Some(types.iter().map(|t| (*t).to_owned()).collect());
        self
    }

    /// Adds an ingress rule.
    #[must_use]
    pub fn ingress(
        mut self,
        from: Vec<networking::NetworkPolicyPeer>,
        ports: Vec<networking::NetworkPolicyPort>,
    ) -> Self {
        let rule = networking::NetworkPolicyIngressRule {
            from: Some(from),
            ports: Some(ports),
        };
        self.spec().ingress.get_or_insert_default().push(rule);
        self
    }

    /// Adds an egress rule.
    #[must_use]
    pub fn egress(
        mut self,
        to: Vec<networking::NetworkPolicyPeer>,
        ports: Vec<networking::NetworkPolicyPort>,
    ) -> Self {
        let rule = networking::NetworkPolicyEgressRule {
            to: Some(to),
            ports: Some(ports),
        };
        self.spec().egress.get_or_insert_default().push(rule);
        self
    }

    /// The NetworkPolicy.
    #[must_use]
    pub fn build(self) -> networking::NetworkPolicy {
        self.0
    }
}

/// A selector by labels; none: everything.
#[must_use]
pub fn selector(labels: &[(&str, &str)]) -> LabelSelector {
    LabelSelector {
        match_labels: Some(owned(labels)),
        ..LabelSelector::default()
    }
}

/// A peer by pod labels in the policy's namespace.
#[must_use]
pub fn pods(labels: &[(&str, &str)]) -> networking::NetworkPolicyPeer {
    networking::NetworkPolicyPeer {
        pod_selector: Some(selector(labels)),
        ..networking::NetworkPolicyPeer::default()
    }
}

/// A peer by namespace labels.
#[must_use]
pub fn namespaces(labels: &[(&str, &str)]) -> networking::NetworkPolicyPeer {
    networking::NetworkPolicyPeer {
        namespace_selector: Some(selector(labels)),
        ..networking::NetworkPolicyPeer::default()
    }
}

/// A peer by address block.
#[must_use]
pub fn ip_block(cidr: &str, except: &[&str]) -> networking::NetworkPolicyPeer {
    networking::NetworkPolicyPeer {
        ip_block: Some(networking::IPBlock {
            cidr: cidr.to_owned(),
            except: Some(except.iter().map(|net| (*net).to_owned()).collect()),
        }),
        ..networking::NetworkPolicyPeer::default()
    }
}

/// A TCP port by its number.
#[must_use]
pub fn port_number(port: i32) -> networking::NetworkPolicyPort {
    networking::NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        ..networking::NetworkPolicyPort::default()
    }
}

fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn owned(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}
