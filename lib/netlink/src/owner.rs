//! What is ours.

use crate::Link;

/// Device group of links that we make: the mark of a link between its creation and the moment it
/// gets its alias. The number is the tunnel's default port, for people who see it in `ip link`.
pub const GROUP: u32 = 6784;

/// Recognises links of one cluster: `ifalias weft/<cluster id>/fabric` or
/// `weft/<cluster id>/<container id>` (docs/architecture.md, I4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    cluster_id: String,
}

impl Owner {
    /// Of the cluster with this id (UID of the Namespace `kube-system`).
    #[must_use]
    pub fn new(cluster_id: impl Into<String>) -> Self {
        Self {
            cluster_id: cluster_id.into(),
        }
    }

    /// Alias of fabric links.
    #[must_use]
    pub fn fabric_alias(&self) -> String {
        format!("weft/{}/fabric", self.cluster_id)
    }

    /// Alias of the host end of a pod's veth.
    #[must_use]
    pub fn pod_alias(&self, container_id: &str) -> String {
        format!("weft/{}/{container_id}", self.cluster_id)
    }

    /// The link is part of our fabric. One without alias in our [`GROUP`] is, too.
    #[must_use]
    pub fn is_fabric(&self, link: &Link) -> bool {
        link.alias == self.fabric_alias() || (link.alias.is_empty() && link.group == GROUP)
    }

    /// Container id of the pod whose veth this link is, if it is one of ours.
    #[must_use]
    pub fn container_of<'a>(&self, link: &'a Link) -> Option<&'a str> {
        let (cluster, container) = link.alias.strip_prefix("weft/")?.split_once('/')?;
        (cluster == self.cluster_id && container != "fabric").then_some(container)
    }
}
