//! What people ask of the index. Not for packets.

use super::Index;
use crate::{ContainerPort, ObjectKey};

impl Index {
    /// The Node whose policy this is.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether there is a Namespace of this name.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// Named ports of the pod of this name; of one attached here, those that its policy knows.
    pub fn named_ports(&self, key: &ObjectKey) -> Option<Box<[ContainerPort]>> {
        let mut attached = self.endpoints.of(key).filter_map(|l| l.pod.as_ref());
        let attached = attached.next().map(|local| local.pod.clone());
        let pod = attached.or_else(|| self.pods.get(key))?;
        Some(pod.ports)
    }

    /// Whether the pod of this name has no address of its own, but its node's.
    pub fn is_on_host_network(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|pod| pod.host_network)
    }
}
