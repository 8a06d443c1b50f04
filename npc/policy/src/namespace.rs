//! Namespaces, pruned to what policy needs.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::Labels;

/// What policy needs of a Namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.labels`.
    pub labels: Labels,
    /// It has a deletion timestamp: the API deletes what is in it, in no order. (The phase
    /// `Terminating` comes with the same write.)
    pub terminating: bool,
    /// `metadata.resourceVersion`.
    pub version: Option<Version>,
}

impl Namespace {
    /// Prunes a Namespace.
    pub fn prune(namespace: &core::Namespace) -> Self {
        let meta = &namespace.metadata;
        let labels = meta.labels.iter().flatten();
        Self {
            name: meta.name.as_deref().unwrap_or_default().into(),
            labels: labels.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
            terminating: meta.deletion_timestamp.is_some(),
            version: Version::parse(meta.resource_version.as_deref()),
        }
    }
}

/// When an object was written or deleted: a later one is larger, whatever the kinds of the two. That
/// holds where one etcd has both kinds; where not, what is concluded from it is a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u64);

impl Version {
    /// A `resourceVersion`. `None`: it is no number, so that nothing is known.
    pub fn parse(resource_version: Option<&str>) -> Option<Self> {
        resource_version?.parse().ok().map(Self)
    }
}
