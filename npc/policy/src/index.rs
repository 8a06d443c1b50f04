//! The objects that policy speaks of, kept up to date event by event.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod incremental;
mod leaving;
mod look;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};

use leaving::Leaving;

use crate::cache::Cache;
use crate::endpoints::{Endpoint, Endpoints};
use crate::objects::Objects;
use crate::parse::PolicySpec;
use crate::store::Store;
use crate::{
    EndpointId, Labels, Namespace, ObjectKey, Pod, PolicyModel, Problem, Standing, Subject,
    SubjectKey,
};

/// Everything [`Index::model`] is made of. All functions are total; those that change something
/// answer whether the model may have changed, so that a pod's heartbeats cost no sync.
///
/// Two are equal if the same objects are in them.
#[derive(Clone, Debug)]
pub struct Index {
    node: Arc<str>,
    pods: Store,
    namespaces: BTreeMap<Arc<str>, Labels>,
    policies: BTreeMap<ObjectKey, Arc<PolicySpec>>,
    leaving: Leaving,
    endpoints: Endpoints,
    cache: Cache,
}

impl Index {
    /// An empty index on the Node of this name.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            pods: Store::default(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            leaving: Leaving::default(),
            endpoints: Endpoints::default(),
            cache: Cache::default(),
        }
    }

    /// A Pod was added or changed.
    pub fn apply_pod(&mut self, pod: &core::Pod) -> bool {
        self.apply_pruned_pod(&Pod::prune(pod))
    }

    /// [`Index::apply_pod`] for callers that never have the whole object.
    pub fn apply_pruned_pod(&mut self, pod: &Pod) -> bool {
        let claims = self.claims(pod);
        if self.pods.see(pod, claims) {
            return false;
        }
        let attached = self.endpoints.of(&pod.key);
        let mut affected: BTreeSet<IpAddr> = attached
            .flat_map(|local| local.endpoint.addresses.iter().copied())
            .chain(pod.addresses.iter().copied())
            .collect();
        affected.extend(
            self.pods
                .get(&pod.key)
                .into_iter()
                .flat_map(|old| old.addresses),
        );
        self.change(&affected, |index| {
            index.endpoints.see(pod);
            index.pods.insert(pod, claims);
        });
        true
    }

    /// A Pod is gone. Its endpoint, if still there, keeps its policy.
    pub fn delete_pod(&mut self, key: &ObjectKey) -> bool {
        let Some(pod) = self.pods.get(key) else {
            return false;
        };
        self.change(&pod.addresses, |index| index.pods.remove(key));
        self.has_left(&key.namespace);
        true
    }

    /// A list of all Pods begins; each is handed to [`Index::apply_pruned_pod`] as it is read, so
    /// that the cluster is never in memory twice. A list that fails on the way is begun anew.
    pub fn begin_pod_list(&mut self) {
        self.pods.begin_list();
    }

    /// The list is complete: what it did not have is gone.
    pub fn end_pod_list(&mut self) -> bool {
        let gone = self.pods.unlisted();
        for key in &gone {
            self.delete_pod(key);
        }
        !gone.is_empty()
    }

    /// All Pods there are, after a relist: what is absent is gone.
    pub fn reset_pods<'a>(&mut self, pods: impl IntoIterator<Item = &'a core::Pod>) -> bool {
        self.begin_pod_list();
        let mut changed = false;
        for pod in pods {
            changed |= self.apply_pod(pod);
        }
        changed | self.end_pod_list()
    }

    /// A Namespace was added or changed.
    pub fn apply_namespace(&mut self, namespace: &core::Namespace) -> bool {
        self.apply_pruned_namespace(&Namespace::prune(namespace))
    }

    /// [`Index::apply_namespace`] for callers that never have the whole object.
    pub fn apply_pruned_namespace(&mut self, namespace: &Namespace) -> bool {
        let Namespace { name, labels, .. } = namespace;
        let changed = self.see_namespace(namespace);
        let old = self.namespaces.get(name);
        if old == Some(labels) {
            return changed;
        }
        self.cache.namespace_changes(name, old);
        self.namespaces.insert(Arc::clone(name), labels.clone());
        true
    }

    /// A Namespace is gone: its pods are nobody's peers any more.
    pub fn delete_namespace(&mut self, name: &str) -> bool {
        let Some(old) = self.namespaces.remove(name) else {
            return false;
        };
        self.cache.namespace_changes(name, Some(&old));
        self.has_left(name);
        true
    }

    /// A list of all Namespaces is complete: what it did not have is gone.
    pub fn retain_namespaces(&mut self, listed: impl Fn(&str) -> bool) -> bool {
        let names = self.namespaces.keys().filter(|name| !listed(name));
        let gone: Vec<_> = names.cloned().collect();
        for name in &gone {
            self.delete_namespace(name);
        }
        !gone.is_empty()
    }

    /// All Namespaces there are.
    pub fn reset_namespaces<'a>(
        &mut self,
        namespaces: impl IntoIterator<Item = &'a core::Namespace>,
    ) -> bool {
        let mut seen = BTreeSet::new();
        let mut changed = false;
        for namespace in namespaces {
            seen.extend(namespace.metadata.name.as_deref());
            changed |= self.apply_namespace(namespace);
        }
        changed | self.retain_namespaces(|name| seen.contains(name))
    }

    /// A NetworkPolicy was added or changed.
    pub fn apply_network_policy(&mut self, policy: &networking::NetworkPolicy) -> bool {
        self.apply_spec(PolicySpec::parse(policy))
    }

    /// A NetworkPolicy was added or changed that is not even of the shape the API gives it, as
    /// `why` says: all pods of its namespace are isolated by it and nothing is allowed.
    pub fn apply_unreadable_network_policy(&mut self, key: &ObjectKey, why: &str) -> bool {
        self.apply_spec(PolicySpec::unreadable(key, why))
    }

    fn apply_spec(&mut self, spec: PolicySpec) -> bool {
        self.leaving.policies.remove(&spec.key);
        if self
            .policies
            .get(&spec.key)
            .is_some_and(|old| **old == spec)
        {
            return false;
        }
        self.cache.policy_changes(&spec.key, Some(&spec));
        self.policies.insert(spec.key.clone(), Arc::new(spec));
        true
    }

    /// A list of all NetworkPolicies is complete: what it did not have is gone.
    pub fn retain_network_policies(&mut self, listed: impl Fn(&ObjectKey) -> bool) -> bool {
        let keys = self.policies.keys().filter(|key| !listed(key));
        let gone: Vec<_> = keys.cloned().collect();
        let mut changed = false;
        for key in &gone {
            changed |= self.delete_network_policy(key);
        }
        changed
    }

    /// All NetworkPolicies there are.
    pub fn reset_network_policies<'a>(
        &mut self,
        policies: impl IntoIterator<Item = &'a networking::NetworkPolicy>,
    ) -> bool {
        let mut seen = BTreeSet::new();
        let mut changed = false;
        for policy in policies {
            seen.insert(ObjectKey::of(policy));
            changed |= self.apply_network_policy(policy);
        }
        changed | self.retain_network_policies(|key| seen.contains(key))
    }

    /// CNI attached a pod. An address belongs to the endpoint that got it last.
    pub fn apply_endpoint(&mut self, id: EndpointId, endpoint: Endpoint) -> bool {
        let before = self.endpoints.get(&id).cloned();
        let key = endpoint.pod.clone();
        let mut affected = endpoint.addresses.clone();
        affected.extend(before.iter().flat_map(|old| &old.endpoint.addresses));
        affected.extend(self.status_addresses(&key));
        let old_key = before.as_ref().map(|old| old.endpoint.pod.clone());
        let old_namespace = old_key.as_ref().map(|key| Arc::clone(&key.namespace));
        affected.extend(old_key.iter().flat_map(|key| self.status_addresses(key)));
        self.change(&affected, |index| {
            let Self {
                pods, endpoints, ..
            } = index;
            endpoints.insert(id.clone(), endpoint, || pods.get(&key));
            index.claim(&key);
            if let Some(old_key) = old_key {
                index.claim(&old_key);
            }
        });
        if let Some(name) = old_namespace {
            self.has_left(&name);
        }
        self.endpoints.get(&id) != before.as_ref()
    }

    /// CNI detached a pod.
    pub fn delete_endpoint(&mut self, id: &EndpointId) -> bool {
        let Some(local) = self.endpoints.get(id) else {
            return false;
        };
        let key = local.endpoint.pod.clone();
        let mut affected = local.endpoint.addresses.clone();
        affected.extend(self.status_addresses(&key));
        self.change(&affected, |index| {
            index.endpoints.remove(id);
            index.claim(&key);
        });
        self.has_left(&key.namespace);
        true
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
        let ids = self.endpoints.iter().map(|(id, _)| id);
        let gone: Vec<_> = ids.filter(|id| !seen.contains(id)).cloned().collect();
        for id in &gone {
            changed |= self.delete_endpoint(id);
        }
        changed
    }

    /// Whether the Pod of an endpoint has been seen: until then the endpoint is closed, and CNI
    /// ADD waits.
    pub fn is_known(&self, id: &EndpointId) -> bool {
        let local = self.endpoints.get(id);
        local.is_some_and(|local| local.pod.is_some())
    }

    /// The pod that an address belongs to: one attached to this node, else a running one elsewhere.
    pub fn pod_at(&self, address: IpAddr) -> Option<ObjectKey> {
        match self.endpoints.at(address) {
            Some(local) => Some(local.endpoint.pod.clone()),
            None => self.pods.key(self.pods.owner(address)?),
        }
    }

    /// Addresses and Node of the pod of this name; of one attached here, those that CNI gave it.
    pub fn pod(&self, key: &ObjectKey) -> Option<(BTreeSet<IpAddr>, Option<Arc<str>>)> {
        let attached: BTreeSet<IpAddr> = self
            .endpoints
            .of(key)
            .flat_map(|local| local.endpoint.addresses.iter().copied())
            .collect();
        if !attached.is_empty() {
            return Some((attached, Some(Arc::clone(&self.node))));
        }
        let pod = self.pods.get(key)?;
        Some((pod.addresses, pod.node))
    }

    /// What is wrong with the policies, those without local subjects included.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.policies.values().flat_map(|policy| &policy.problems)
    }

    /// The policy of this node, from the objects alone.
    pub fn model(&self) -> PolicyModel {
        Cache::default().model(&self.objects())
    }

    /// The same, from what was worked out the last time and what has changed since (I6).
    pub fn refresh(&mut self) -> PolicyModel {
        let mut cache = std::mem::take(&mut self.cache);
        let model = cache.model(&self.objects());
        self.cache = cache;
        model
    }

    fn objects(&self) -> Objects<'_> {
        Objects::new(
            &self.pods,
            &self.namespaces,
            &self.policies,
            &self.endpoints,
        )
    }

    /// Changes something that decides whose the `affected` addresses are.
    fn change<T>(&mut self, affected: &BTreeSet<IpAddr>, change: impl FnOnce(&mut Self) -> T) -> T {
        for address in affected {
            if self.cache.follows(*address) {
                let owner = self.objects().owner(*address);
                self.cache.address_changes(*address, owner);
            }
        }
        change(self)
    }

    /// Whether a pod has the addresses of its status: a pod of this node has those of its
    /// endpoints, nothing else.
    fn claims(&self, pod: &Pod) -> bool {
        let is_local = pod.node.as_deref() == Some(&*self.node) || self.endpoints.has(pod);
        !pod.host_network && !pod.finished && !is_local
    }

    /// The endpoints of a pod have changed.
    fn claim(&mut self, key: &ObjectKey) {
        if let Some(pod) = self.pods.get(key) {
            let claims = self.claims(&pod);
            self.pods.set_claims(key, claims);
        }
    }

    fn status_addresses(&self, key: &ObjectKey) -> BTreeSet<IpAddr> {
        self.pods
            .get(key)
            .map(|pod| pod.addresses)
            .unwrap_or_default()
    }

    /// Whether there is what the API no longer has: pods whose endpoint is still here, and policies
    /// of a namespace that is being deleted.
    #[cfg(test)]
    pub(crate) fn remembers(&self) -> bool {
        let mut local = self.endpoints.values().filter_map(|e| e.pod.as_ref());
        local.any(|local| !self.pods.has(&local.pod.key, &local.pod.uid))
            || !self.leaving.policies.is_empty()
    }

    /// The pods of this node by what CNI and their Pods say, without the policies that select them.
    pub fn subjects(&self) -> BTreeMap<SubjectKey, Subject> {
        let subjects = self.objects().subjects().into_iter();
        subjects
            .map(|(key, (mut subject, template))| {
                if template.is_some() {
                    subject.standing = Standing::Known {
                        ingress: BTreeSet::new(),
                        egress: BTreeSet::new(),
                    };
                }
                (key, subject)
            })
            .collect()
    }
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
            && self.namespaces == other.namespaces
            && self.policies == other.policies
            && self.leaving.namespaces == other.leaving.namespaces
            && self.leaving.policies == other.leaving.policies
            && self.endpoints.iter().eq(other.endpoints.iter())
            && self.pods.iter().eq(other.pods.iter())
    }
}

impl Eq for Index {}
