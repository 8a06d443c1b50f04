//! The objects that policy speaks of, kept up to date event by event.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};

use crate::parse::PolicySpec;
use crate::{
    EndpointId, Labels, ObjectKey, Pod, PolicyModel, Problem, Standing, Subject, SubjectKey, Uid,
    resolve,
};

/// Everything [`Index::model`] is made of. All functions are total; those that change something
/// answer whether the model may have changed, so that a pod's heartbeats cost no sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    node: Arc<str>,
    pub(crate) pods: BTreeMap<ObjectKey, Pod>,
    pub(crate) namespaces: BTreeMap<Arc<str>, Labels>,
    pub(crate) policies: BTreeMap<ObjectKey, PolicySpec>,
    pub(crate) endpoints: BTreeMap<EndpointId, LocalEndpoint>,
}

/// An attachment of a local pod, as CNI made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `K8S_POD_NAMESPACE` and `K8S_POD_NAME`.
    pub pod: ObjectKey,
    /// `K8S_POD_UID`.
    pub uid: Uid,
    /// Addresses of the pod; they win over what the Pod's status says.
    pub addresses: BTreeSet<IpAddr>,
    /// Host end of the interface.
    pub host_ifname: String,
}

/// An endpoint and the Pod it belongs to, once seen. The Pod is kept here until the endpoint goes:
/// a pod deleted by force keeps its policy while it can still send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalEndpoint {
    pub(crate) endpoint: Endpoint,
    pub(crate) pod: Option<Pod>,
}

impl LocalEndpoint {
    /// Namespace and name too: a mirror pod's hash is an annotation that anybody could write.
    fn belongs_to(&self, pod: &Pod) -> bool {
        self.endpoint.uid == pod.uid && self.endpoint.pod == pod.key
    }
}

impl Index {
    /// An empty index on the Node of this name.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    /// A Pod was added or changed.
    pub fn apply_pod(&mut self, pod: &core::Pod) -> bool {
        self.insert_pod(Pod::prune(pod))
    }

    /// A Pod is gone. Its endpoint, if still there, keeps its policy.
    pub fn delete_pod(&mut self, key: &ObjectKey) -> bool {
        self.pods.remove(key).is_some()
    }

    /// All Pods there are, after a relist: what is absent is gone.
    pub fn reset_pods<'a>(&mut self, pods: impl IntoIterator<Item = &'a core::Pod>) -> bool {
        self.reset_pruned_pods(pods.into_iter().map(Pod::prune))
    }

    /// [`Index::reset_pods`] for callers that prune while they list, so that the full objects of
    /// a big cluster are never all in memory.
    pub fn reset_pruned_pods(&mut self, pods: impl IntoIterator<Item = Pod>) -> bool {
        let mut changed = false;
        let mut seen = BTreeSet::new();
        for pod in pods {
            seen.insert(pod.key.clone());
            changed |= self.insert_pod(pod);
        }
        changed | retain(&mut self.pods, |key| seen.contains(key))
    }

    fn insert_pod(&mut self, pod: Pod) -> bool {
        for local in self
            .endpoints
            .values_mut()
            .filter(|local| local.belongs_to(&pod))
        {
            local.pod = Some(pod.clone());
        }
        self.pods.insert(pod.key.clone(), pod.clone()) != Some(pod)
    }

    /// A Namespace was added or changed.
    pub fn apply_namespace(&mut self, namespace: &core::Namespace) -> bool {
        let (name, labels) = namespace_labels(namespace);
        self.namespaces.insert(name, labels.clone()) != Some(labels)
    }

    /// A Namespace is gone: its pods are nobody's peers any more.
    pub fn delete_namespace(&mut self, name: &str) -> bool {
        self.namespaces.remove(name).is_some()
    }

    /// All Namespaces there are.
    pub fn reset_namespaces<'a>(
        &mut self,
        namespaces: impl IntoIterator<Item = &'a core::Namespace>,
    ) -> bool {
        replace(
            &mut self.namespaces,
            namespaces.into_iter().map(namespace_labels).collect(),
        )
    }

    /// A NetworkPolicy was added or changed.
    pub fn apply_network_policy(&mut self, policy: &networking::NetworkPolicy) -> bool {
        let spec = PolicySpec::parse(policy);
        self.policies.insert(spec.key.clone(), spec.clone()) != Some(spec)
    }

    /// A NetworkPolicy is gone.
    pub fn delete_network_policy(&mut self, key: &ObjectKey) -> bool {
        self.policies.remove(key).is_some()
    }

    /// All NetworkPolicies there are.
    pub fn reset_network_policies<'a>(
        &mut self,
        policies: impl IntoIterator<Item = &'a networking::NetworkPolicy>,
    ) -> bool {
        let specs = policies.into_iter().map(PolicySpec::parse);
        replace(
            &mut self.policies,
            specs.map(|spec| (spec.key.clone(), spec)).collect(),
        )
    }

    /// CNI attached a pod. An address belongs to the endpoint that got it last.
    pub fn apply_endpoint(&mut self, id: EndpointId, endpoint: Endpoint) -> bool {
        for (other, local) in &mut self.endpoints {
            if *other != id {
                local
                    .endpoint
                    .addresses
                    .retain(|address| !endpoint.addresses.contains(address));
            }
        }
        let mut local = LocalEndpoint {
            endpoint,
            pod: None,
        };
        local.pod = self
            .pods
            .get(&local.endpoint.pod)
            .filter(|pod| local.belongs_to(pod))
            .or_else(|| {
                // An ADD repeated for a pod that has left the API meanwhile.
                self.endpoints
                    .values()
                    .filter_map(|l| l.pod.as_ref())
                    .find(|p| local.belongs_to(p))
            })
            .cloned();
        self.endpoints.insert(id, local.clone()) != Some(local)
    }

    /// CNI detached a pod.
    pub fn delete_endpoint(&mut self, id: &EndpointId) -> bool {
        self.endpoints.remove(id).is_some()
    }

    /// Every endpoint of this node, as the router lists them.
    pub fn reset_endpoints(
        &mut self,
        endpoints: impl IntoIterator<Item = (EndpointId, Endpoint)>,
    ) -> bool {
        let mut changed = false;
        let mut seen = BTreeSet::new();
        for (id, endpoint) in endpoints {
            seen.insert(id.clone());
            changed |= self.apply_endpoint(id, endpoint);
        }
        changed | retain(&mut self.endpoints, |id| seen.contains(id))
    }

    /// Whether the Pod of an endpoint has been seen: until then the endpoint is closed, and CNI
    /// ADD waits.
    pub fn is_known(&self, id: &EndpointId) -> bool {
        self.endpoints
            .get(id)
            .is_some_and(|local| local.pod.is_some())
    }

    /// The pod that an address belongs to: one attached to this node, else a running one elsewhere
    /// (where two claim it, either). Reads every pod: for people, not for packets.
    pub fn pod_at(&self, address: IpAddr) -> Option<&ObjectKey> {
        let attached = self
            .endpoints
            .values()
            .find(|local| local.endpoint.addresses.contains(&address));
        if let Some(local) = attached {
            return Some(&local.endpoint.pod);
        }
        let elsewhere = self.pods.values().find(|pod| {
            !pod.host_network
                && !pod.finished
                && !self.is_local(pod)
                && pod.addresses.contains(&address)
        });
        elsewhere.map(|pod| &pod.key)
    }

    /// Addresses and Node of the pod of this name; of one attached here, those that CNI gave it.
    pub fn pod(&self, key: &ObjectKey) -> Option<(BTreeSet<IpAddr>, Option<Arc<str>>)> {
        let attached: BTreeSet<IpAddr> = self
            .endpoints
            .values()
            .filter(|local| local.endpoint.pod == *key)
            .flat_map(|local| local.endpoint.addresses.iter().copied())
            .collect();
        if !attached.is_empty() {
            return Some((attached, Some(Arc::clone(&self.node))));
        }
        let pod = self.pods.get(key)?;
        Some((pod.addresses.clone(), pod.node.clone()))
    }

    /// What is wrong with the policies, those without local subjects included.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.policies.values().flat_map(|policy| &policy.problems)
    }

    /// The policy of this node.
    pub fn model(&self) -> PolicyModel {
        let mut subjects = self.subjects();
        let policies = resolve::select(self, &mut subjects);
        resolve::resolve(self, subjects, &policies)
    }

    /// Whether a Pod runs here: then its addresses are those of its endpoints, nothing else.
    pub(crate) fn is_local(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&*self.node)
    }

    /// Pods that the API no longer has but whose endpoint is still here.
    pub(crate) fn lingering_pods(&self) -> impl Iterator<Item = &Pod> {
        self.endpoints
            .values()
            .filter_map(|local| local.pod.as_ref())
            .filter(|pod| {
                self.pods
                    .get(&pod.key)
                    .is_none_or(|present| present.uid != pod.uid)
            })
    }

    /// The pods of this node by what CNI and their Pods say, without the policies that select them.
    pub fn subjects(&self) -> BTreeMap<SubjectKey, Subject> {
        let mut subjects = BTreeMap::new();
        for LocalEndpoint { endpoint, pod } in self.endpoints.values() {
            let key = SubjectKey {
                pod: endpoint.pod.clone(),
                uid: endpoint.uid.clone(),
            };
            let subject = subjects.entry(key).or_insert_with(|| Subject {
                addresses: BTreeSet::new(),
                ports: BTreeSet::new(),
                standing: Standing::Unknown,
            });
            subject.addresses.extend(&endpoint.addresses);
            subject.ports.insert(endpoint.host_ifname.clone());
            if pod.is_some() {
                subject.standing = Standing::Known {
                    ingress: BTreeSet::new(),
                    egress: BTreeSet::new(),
                };
            }
        }
        subjects
    }
}

fn namespace_labels(namespace: &core::Namespace) -> (Arc<str>, Labels) {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    (
        name.into(),
        namespace.metadata.labels.clone().unwrap_or_default(),
    )
}

fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let changed = *old != new;
    *old = new;
    changed
}

fn retain<K: Ord, V>(map: &mut BTreeMap<K, V>, keep: impl Fn(&K) -> bool) -> bool {
    let before = map.len();
    map.retain(|key, _| keep(key));
    map.len() != before
}
