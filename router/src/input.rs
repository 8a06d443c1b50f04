//! From the watched objects to what the fabric is decided from.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use kube::ResourceExt;
use weft_crds::{ConditionStatus, NodeConfig, Toggle, Underlay, condition};
use weft_fabric::{Input, PodPort, names};
use weft_ipam::{node::Reservation, pool::Pool};
use weft_netlink::{IfName, MacAddr, Network, Owner};

use crate::{stores::Stores, view::Verdict};

/// MTU that is taken when no link has the underlay address (it is behind a router, say).
const ETHERNET_MTU: u32 = 1500;

/// Everything a sync needs from the API, or what is missing.
pub(crate) struct Gathered {
    pub(crate) input: Input,
    pub(crate) generation: i64,
}

/// Builds the input of the fabric.
///
/// # Errors
/// The verdict that the node gets: what is missing and who provides it.
pub(crate) fn gather(
    node: &str,
    config: &NodeConfig,
    stores: &Stores,
    reservations: &[Reservation],
    observed: &Network,
) -> Result<Gathered, Verdict> {
    let Some(node_object) = stores.node.state().into_iter().next() else {
        return Err(Verdict::bad(
            "NoNode",
            format!("there is no Node {node:?}; is NODE_NAME right?"),
        ));
    };
    let node_uid = node_object.uid().unwrap_or_default();
    let Some(weft_node) = stores.weft_node.state().into_iter().next() else {
        return Err(Verdict::bad(
            "NoWeftNode",
            format!("the operator has not made the WeftNode {node:?} yet; see its log"),
        ));
    };
    if weft_node.spec.node_uid != node_uid {
        return Err(Verdict::bad(
            "OtherNode",
            format!(
                "the WeftNode {node:?} belongs to a Node of this name with UID {:?}, ours is \
                 {node_uid:?}; the operator replaces it",
                weft_node.spec.node_uid
            ),
        ));
    }
    let own: Vec<IpAddr> = parse_all(&weft_node.spec.addresses);
    let underlay = underlay(&config.network.fabric.underlay, &own, observed)?;
    let underlay_mtu = observed
        .link_of_address(underlay)
        .and_then(|name| observed.links.get(name)?.mtu)
        .unwrap_or(ETHERNET_MTU);
    let mut peers: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut generation = 0;
    for slice in stores.slices.state() {
        generation = generation.max(slice.spec.generation);
        for peer in slice.spec.peers.iter().filter(|p| p.node != node) {
            peers.insert(
                peer.node.clone(),
                parse_all(&peer.underlay).into_iter().collect(),
            );
        }
    }
    let mut addresses: BTreeSet<IpAddr> = own.iter().copied().collect();
    addresses.insert(underlay);
    let fabric = &config.network.fabric;
    let nat = &config.network.nat;
    Ok(Gathered {
        generation,
        input: Input {
            cluster_id: config.cluster_id.clone(),
            node_uid,
            port: fabric.port,
            control_port: fabric.control_port,
            underlay,
            underlay_links: addresses
                .iter()
                .filter_map(|a| observed.link_of_address(*a).cloned())
                .collect(),
            underlay_mtu,
            mtu: fabric.mtu,
            pods_mtu: pods_mtu(observed, &Owner::new(&config.cluster_id)),
            gateways: parse_all(&weft_node.spec.gateways).into_iter().collect(),
            pools: pools(stores)
                .iter()
                .flat_map(|p| p.cidrs().to_vec())
                // Whatever the operator thinks: never a route over the node's own addresses.
                .filter(|cidr| !addresses.iter().any(|a| cidr.contains(a)))
                .collect(),
            peers,
            node_addresses: addresses,
            masquerade: nat.masquerade == Toggle::Enabled,
            no_masquerade: parse_all::<IpNet>(&nat.no_masquerade_cidrs)
                .into_iter()
                .map(|n| n.trunc())
                .collect(),
            pods: pod_ports(reservations),
        },
    })
}

/// Every pool that can be read and that the operator found to overlap nothing: a route to a range
/// of the nodes or Services would cut the node off. The operator reports the others on the object.
pub(crate) fn pools(stores: &Stores) -> Vec<Pool> {
    let mut pools: Vec<Pool> = stores
        .pools
        .state()
        .iter()
        .filter(|p| {
            let conditions = p.status.as_ref().map(|s| s.conditions.as_slice());
            condition(conditions.unwrap_or_default(), "CIDROverlap")
                .is_some_and(|c| c.status == ConditionStatus::False)
        })
        .filter_map(|p| {
            let size = p.spec.block_size;
            let parsed = Pool::parse(
                &p.name_any(),
                &p.spec.cidrs,
                size.v4,
                size.v6,
                &p.spec.exclude,
            );
            parsed
                .inspect_err(|error| tracing::warn!(pool = p.name_any(), %error, "Pool left out"))
                .ok()
        })
        .collect();
    pools.sort_by(|a, b| a.name().cmp(b.name()));
    pools
}

/// The host ends tell: both ends of a pod's veth get the MTU of its ADD.
fn pods_mtu(observed: &Network, owner: &Owner) -> Option<u32> {
    let links = observed.links.values();
    links
        .filter(|link| owner.container_of(link).is_some())
        .filter_map(|link| link.mtu)
        .max()
}

fn parse_all<T: std::str::FromStr>(words: &[String]) -> Vec<T> {
    words.iter().filter_map(|w| w.parse().ok()).collect()
}

pub(crate) fn pod_ports(reservations: &[Reservation]) -> BTreeMap<IfName, PodPort> {
    reservations
        .iter()
        .filter_map(|r| {
            let link = IfName::parse(&link_of(&r.id.container_id, &r.id.ifname)).ok()?;
            let port = PodPort {
                mac: MacAddr::of_pod(*r.addresses.first()?),
                addresses: r.addresses.iter().copied().collect(),
            };
            Some((link, port))
        })
        .collect()
}

/// Host end of an attachment. The first interface has Weave Net's name; a further one of the same
/// sandbox would have the same, so its interface name goes into the hash.
pub(crate) fn link_of(container_id: &str, ifname: &str) -> String {
    if ifname == "eth0" {
        names::pod_link(container_id)
    } else {
        names::pod_link(&format!("/{container_id}/{ifname}"))
    }
}

/// `ifalias` of the host end of an attachment.
pub(crate) fn alias_of(cluster_id: &str, container_id: &str, ifname: &str) -> String {
    if ifname == "eth0" {
        format!("weft/{cluster_id}/{container_id}")
    } else {
        format!("weft/{cluster_id}/{container_id}/{ifname}")
    }
}

fn underlay(choice: &Underlay, own: &[IpAddr], observed: &Network) -> Result<IpAddr, Verdict> {
    if own.is_empty() {
        return Err(Verdict::bad(
            "NoInternalIP",
            "the Node has no address of type InternalIP; give the kubelet --node-ip or set the \
             cloud provider up",
        ));
    }
    if let Some(interface) = &choice.interface {
        let found = observed
            .addresses
            .iter()
            .find(|a| a.link.as_str() == interface);
        return found.map(|a| a.net.addr()).ok_or_else(|| {
            Verdict::bad(
                "NoUnderlayAddress",
                format!(
                    "interface {interface:?} of fabric.underlay.interface has no global address on \
                     this node; correct the WeftNetwork"
                ),
            )
        });
    }
    if let Some(cidr) = &choice.cidr {
        let net: Option<IpNet> = cidr.parse().ok();
        let local = observed.addresses.iter().map(|a| a.net.addr());
        let found = own
            .iter()
            .copied()
            .chain(local)
            .find(|a| net.is_some_and(|n| n.contains(a)));
        return found.ok_or_else(|| {
            Verdict::bad(
                "NoUnderlayAddress",
                format!(
                    "no address of this node lies in fabric.underlay.cidr {cidr:?}; correct the \
                     WeftNetwork"
                ),
            )
        });
    }
    let v4 = own.iter().find(|a| a.is_ipv4());
    Ok(*v4.or(own.first()).unwrap_or(&own[0]))
}

#[cfg(test)]
mod tests;
