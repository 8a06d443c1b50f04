//! Addresses of this node: blocks from the API into the allocator, and what an ADD asks it for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::ResourceExt;
use weft_crds::{ANNOTATION_POOLS, IPBlock, IPPool, PoolPhase};
use weft_ipam::{
    choice::{Labels, PoolRules, Selector, Subject, choose},
    file::FileStore,
    log::Identity,
    node::{Allocator, Attachment, NodeBlock, PoolWant, Request, Reservation, Start},
    pool::Pool,
};
use weft_netlink::{FdbEntry, MacAddr, Network, Owner};
use weft_socket::{AttachmentId, PodRef};

use crate::{kernel::attachments, stores::Stores};

/// The allocator with its file.
pub(crate) type NodeIpam = Allocator<FileStore>;

/// Opens the log in `dir`.
pub(crate) fn open(dir: &Path, cluster: &str, node: &str) -> (NodeIpam, Start) {
    let identity = Identity {
        cluster: cluster.to_owned(),
        node: node.to_owned(),
    };
    Allocator::open(FileStore::new(dir), identity)
}

/// Confirmed blocks as the allocator wants them. A block whose pool is gone gives nothing new.
pub(crate) fn node_blocks(blocks: &[std::sync::Arc<IPBlock>], stores: &Stores) -> Vec<NodeBlock> {
    let pools = crate::input::pools(stores);
    blocks
        .iter()
        .filter(|b| b.is_confirmed())
        .filter_map(|block| {
            let cidr = block.spec.cidr.parse().ok()?;
            let pool = pools.iter().find(|p| p.name() == block.spec.pool);
            let object = stores.pools.find(|p| p.name_any() == block.spec.pool);
            Some(NodeBlock {
                cidr,
                pool: block.spec.pool.clone(),
                pool_cidr: pool.and_then(|p| p.cidr_of(cidr.network())).unwrap_or(cidr),
                epoch: block.spec.epoch,
                cooldown: object
                    .as_ref()
                    .map_or(30, |p| u64::from(p.spec.cooldown_seconds)),
                reserved: pool.map(|p| p.reserved_in(cidr)).unwrap_or_default(),
                active: pool.is_some() && object.is_some_and(|p| gives_addresses(&p)),
            })
        })
        .collect()
}

/// Whether new addresses come from the pool: Active, and not on its way out.
pub(crate) fn gives_addresses(pool: &IPPool) -> bool {
    pool.spec.phase == PoolPhase::Active && pool.metadata.deletion_timestamp.is_none()
}

fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    // Both read and write the JSON of metav1.LabelSelector.
    serde_json::to_value(selector?)
        .ok()
        .and_then(|v| serde_json::from_value(v).ok())
}

fn pool_rules(stores: &Stores) -> Vec<PoolRules> {
    stores
        .pools
        .state()
        .iter()
        .map(|p| PoolRules {
            name: p.name_any(),
            priority: p.spec.priority,
            active: gives_addresses(p),
            node: selector(p.spec.node_selector.as_ref()),
            namespace: selector(p.spec.namespace_selector.as_ref()),
            pod: selector(p.spec.pod_selector.as_ref()),
        })
        .collect()
}

/// What an ADD asks the allocator for.
///
/// # Errors
/// The pod cannot have a pool, and why.
pub(crate) fn request(
    stores: &Stores,
    id: &AttachmentId,
    pod: &PodRef,
    object: Option<&Pod>,
) -> Result<Request, String> {
    let namespace = stores.namespaces.find(|n| n.name_any() == pod.namespace);
    let pod_annotations = object.map(|p| p.annotations().clone()).unwrap_or_default();
    let namespace_annotations = namespace
        .as_ref()
        .map(|n| n.annotations().clone())
        .unwrap_or_default();
    let subject = Subject {
        pod_annotation: pod_annotations.get(ANNOTATION_POOLS).map(String::as_str),
        namespace_annotation: namespace_annotations
            .get(ANNOTATION_POOLS)
            .map(String::as_str),
        pod_labels: object.map(|p| p.labels().clone()).unwrap_or_default(),
        namespace_labels: namespace.map(|n| n.labels().clone()).unwrap_or_default(),
        node_labels: node_labels(stores),
    };
    let choice = choose(&subject, &pool_rules(stores)).map_err(|e| e.to_string())?;
    let pools = crate::input::pools(stores);
    let wants = choice
        .pools
        .iter()
        .map(|name| PoolWant {
            pool: name.clone(),
            families: pools
                .iter()
                .find(|p| p.name() == name)
                .map(Pool::families)
                .unwrap_or_default(),
        })
        .collect();
    Ok(Request {
        id: attachment(id),
        pod: pod_of(pod),
        pools: wants,
        fixed: Vec::new(),
    })
}

fn node_labels(stores: &Stores) -> Labels {
    let node = stores.node.state().into_iter().next();
    node.map(|n| n.labels().clone()).unwrap_or_default()
}

/// Both crates name attachments as CNI does.
pub(crate) fn attachment(id: &AttachmentId) -> Attachment {
    Attachment {
        container_id: id.container_id.clone(),
        ifname: id.ifname.clone(),
    }
}

/// The same, back.
pub(crate) fn socket_id(id: &Attachment) -> AttachmentId {
    AttachmentId {
        container_id: id.container_id.clone(),
        ifname: id.ifname.clone(),
    }
}

fn pod_of(pod: &PodRef) -> weft_ipam::node::Pod {
    weft_ipam::node::Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

/// Pods that the kernel shows: links with our alias. Their addresses are those that the port table
/// has for them (`listed`); where it has none, the static FDB entry tells the first one (see
/// [`address_of`]) and the API the rest.
pub(crate) fn from_kernel(
    observed: &Network,
    owner: &Owner,
    listed: &BTreeMap<String, BTreeSet<IpAddr>>,
    stores: &Stores,
    now: u64,
) -> Vec<Reservation> {
    let pods = stores.pods.state();
    let blocks: Vec<IpNet> = stores
        .blocks
        .state()
        .iter()
        .filter_map(|b| b.spec.cidr.parse().ok())
        .collect();
    attachments(observed, owner)
        .into_iter()
        .filter_map(|(id, name)| {
            let mut addresses = listed.get(name.as_str()).cloned().unwrap_or_default();
            if addresses.is_empty() {
                addresses.extend(observed.fdb.iter().find_map(|e| match e {
                    FdbEntry::Port { link, mac } if *link == name => address_of(*mac, &blocks),
                    FdbEntry::Port { .. } | FdbEntry::Tunnel { .. } => None,
                }));
            }
            let pod = pods
                .iter()
                .find(|p| !addresses.is_disjoint(&pod_addresses(p)));
            addresses.extend(pod.map(|p| pod_addresses(p)).unwrap_or_default());
            if addresses.is_empty() {
                tracing::warn!(link = %name, "A link of a pod tells no address");
                return None;
            }
            Some(Reservation {
                seq: 0,
                id: attachment(&id),
                pod: pod
                    .map(|p| weft_ipam::node::Pod {
                        namespace: p.namespace().unwrap_or_default(),
                        name: p.name_any(),
                        uid: p.uid().unwrap_or_default(),
                    })
                    .unwrap_or_default(),
                pool: String::new(),
                // IPv4 sorts first, as the allocator has it.
                addresses: addresses.into_iter().collect(),
                at: now,
            })
        })
        .collect()
}

/// The address that a pod's MAC was made of ([`MacAddr::of_pod`]): IPv4 is all in it; of IPv6 it has
/// the low 32 bits, and the rest is that of the one block of this node that they lie in.
fn address_of(mac: MacAddr, blocks: &[IpNet]) -> Option<IpAddr> {
    match mac.0 {
        [0x0a, 0x58, a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        [0x0a, 0x59, a, b, c, d] => {
            let low = u128::from(u32::from_be_bytes([a, b, c, d]));
            let mut found = blocks.iter().filter_map(|block| {
                let IpNet::V6(block) = block else {
                    return None;
                };
                let high = u128::from(block.network()) & !u128::from(u32::MAX);
                let address = Ipv6Addr::from(high | low);
                block.contains(&address).then_some(IpAddr::V6(address))
            });
            // Two would be a guess.
            found.next().filter(|_| found.next().is_none())
        }
        _ => None,
    }
}

fn pod_addresses(pod: &Pod) -> BTreeSet<IpAddr> {
    let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    ips.into_iter()
        .flatten()
        .filter_map(|ip| ip.ip.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
