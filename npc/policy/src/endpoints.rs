//! Attachments of local pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::template::Template;
use crate::{EndpointId, ObjectKey, Pod, Uid};

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
    pub(crate) pod: Option<LocalPod>,
}

/// The Pod of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalPod {
    pub(crate) pod: Pod,
    pub(crate) template: Arc<Template>,
}

impl LocalEndpoint {
    /// Namespace and name too: a mirror pod's hash is an annotation that anybody could write.
    fn belongs_to(&self, pod: &Pod) -> bool {
        self.endpoint.uid == pod.uid && self.endpoint.pod == pod.key
    }

    /// Its Pod, as far as that may be a peer.
    pub(crate) fn peer(&self) -> Option<&LocalPod> {
        let pod = self.pod.as_ref();
        pod.filter(|local| !local.pod.finished && !local.pod.host_network)
    }
}

/// All endpoints of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    all: BTreeMap<EndpointId, LocalEndpoint>,
    by_address: BTreeMap<IpAddr, EndpointId>,
    by_pod: BTreeMap<ObjectKey, BTreeSet<EndpointId>>,
}

impl Endpoints {
    pub(crate) fn get(&self, id: &EndpointId) -> Option<&LocalEndpoint> {
        self.all.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EndpointId, &LocalEndpoint)> {
        self.all.iter()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &LocalEndpoint> {
        self.all.values()
    }

    /// The endpoint with an address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&LocalEndpoint> {
        self.all.get(self.by_address.get(&address)?)
    }

    /// The endpoints of the pod of a name.
    pub(crate) fn of(&self, pod: &ObjectKey) -> impl Iterator<Item = &LocalEndpoint> {
        let ids = self.by_pod.get(pod).into_iter().flatten();
        ids.filter_map(|id| self.all.get(id))
    }

    /// Whether the pod of this name and UID is attached.
    pub(crate) fn has(&self, pod: &Pod) -> bool {
        self.of(&pod.key).any(|local| local.belongs_to(pod))
    }

    /// Whether a pod of the namespace is attached.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        let mut after = self.by_pod.range(ObjectKey::new(name, "")..);
        after.next().is_some_and(|(key, _)| *key.namespace == *name)
    }

    /// Adds an endpoint. An address belongs to the one that got it last. `pod`: its Pod, if the
    /// API has it.
    pub(crate) fn insert(
        &mut self,
        id: EndpointId,
        endpoint: Endpoint,
        pod: impl FnOnce() -> Option<Pod>,
    ) {
        for address in &endpoint.addresses {
            let other = self.by_address.insert(*address, id.clone());
            if let Some(other) = other.filter(|other| *other != id)
                && let Some(other) = self.all.get_mut(&other)
            {
                other.endpoint.addresses.remove(address);
            }
        }
        let mut local = LocalEndpoint {
            endpoint,
            pod: None,
        };
        let present = pod().filter(|pod| local.belongs_to(pod));
        local.pod = match present {
            Some(pod) => Some(LocalPod::new(pod)),
            // An ADD repeated for a pod that has left the API meanwhile.
            None => self
                .of(&local.endpoint.pod)
                .filter_map(|other| other.pod.as_ref())
                .find(|other| local.belongs_to(&other.pod))
                .cloned(),
        };
        if let Some(old) = self.all.get(&id).map(|old| old.endpoint.clone()) {
            self.forget(&id, &old, &local.endpoint.addresses);
        }
        let of_pod = self.by_pod.entry(local.endpoint.pod.clone()).or_default();
        of_pod.insert(id.clone());
        self.all.insert(id, local);
    }

    /// Removes an endpoint.
    pub(crate) fn remove(&mut self, id: &EndpointId) -> bool {
        let Some(local) = self.all.remove(id) else {
            return false;
        };
        self.forget(id, &local.endpoint, &BTreeSet::new());
        true
    }

    /// The lookup tables lose what led to an endpoint, but for addresses that it keeps.
    fn forget(&mut self, id: &EndpointId, old: &Endpoint, keeps: &BTreeSet<IpAddr>) {
        for address in old.addresses.difference(keeps) {
            if self.by_address.get(address) == Some(id) {
                self.by_address.remove(address);
            }
        }
        if let Some(of_pod) = self.by_pod.get_mut(&old.pod) {
            of_pod.remove(id);
            if of_pod.is_empty() {
                self.by_pod.remove(&old.pod);
            }
        }
    }

    /// A Pod was seen.
    pub(crate) fn see(&mut self, pod: &Pod) {
        let Some(ids) = self.by_pod.get(&pod.key) else {
            return;
        };
        for id in ids {
            if let Some(local) = self.all.get_mut(id)
                && local.belongs_to(pod)
            {
                local.pod = Some(LocalPod::new(pod.clone()));
            }
        }
    }
}

impl LocalPod {
    fn new(pod: Pod) -> Self {
        let template = Arc::new(Template::of(&pod));
        Self { pod, template }
    }
}
