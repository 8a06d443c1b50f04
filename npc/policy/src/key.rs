//! Names of the things that policy speaks of.

use std::fmt;
use std::sync::Arc;

/// Namespace and name of a namespaced object. Ordered by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct ObjectKey {
    /// `metadata.namespace`.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::text"))]
    pub namespace: Arc<str>,
    /// `metadata.name`.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::text"))]
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object as it came from the API. A namespaced object that was read from the
    /// API has both; what lacks them is filed under the empty name and selects nothing.
    pub fn of<T>(object: &T) -> Self
    where
        T: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
    {
        let meta = object.metadata();
        Self::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity of a pod as the runtime knows it (`K8S_POD_UID`): `metadata.uid`, or for a static
/// pod the hash of its manifest (32 hex digits), which its mirror pod carries in the annotation
/// `kubernetes.io/config.hash`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Uid(#[cfg_attr(feature = "stored", serde(with = "crate::stored::text"))] pub Arc<str>);

impl From<&str> for Uid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One attachment of a local pod: container id and interface name, as CNI names it. Two sandboxes
/// of one pod (the old one dying while the new one starts) are two endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// The endpoint of `CNI_CONTAINERID` and `CNI_IFNAME`.
    pub fn new(container_id: &str, ifname: &str) -> Self {
        Self(format!("{container_id}/{ifname}").into())
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
