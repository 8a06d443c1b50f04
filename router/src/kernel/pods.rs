//! Pods as the kernel shows them: by the `ifalias` of their host ends.

use std::collections::BTreeMap;

use weft_netlink::{IfName, Network, Owner};
use weft_socket::AttachmentId;

/// Attachments of this cluster whose host end exists, with its name. Two links that say the same are
/// one attachment.
#[must_use]
pub fn attachments(network: &Network, owner: &Owner) -> BTreeMap<AttachmentId, IfName> {
    let of = |(name, link)| {
        let id: &str = owner.container_of(link)?;
        let (container_id, ifname) = id.split_once('/').unwrap_or((id, "eth0"));
        let id = AttachmentId {
            container_id: container_id.to_owned(),
            ifname: ifname.to_owned(),
        };
        Some((id, IfName::clone(name)))
    };
    network.links.iter().filter_map(of).collect()
}
