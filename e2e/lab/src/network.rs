//! The address plan: which addresses and device names a lab uses. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::bail;

use crate::options::{Families, Options};

#[cfg(test)]
mod tests;

/// Device in the root namespace by which `kubectl` and tests reach the cluster.
pub(crate) const ROOT_LINK: &str = "weftlab0";
/// Bridge in the hub's namespace that joins nodes, control plane and `outside`.
pub(crate) const BRIDGE: &str = "weftlab";
/// Other end of [`ROOT_LINK`], a port of [`BRIDGE`].
pub(crate) const ROOT_PORT: &str = "root";
/// Namespace of the control plane and the bridge.
pub(crate) const HUB: &str = "hub";
/// Namespace of a host that is not part of the cluster.
pub(crate) const OUTSIDE: &str = "outside";
/// The API server, on the bridge.
pub(crate) const API_SERVER: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// Its port.
pub(crate) const API_PORT: u16 = 6443;
/// First address of the Service range, which the API server's certificate names.
pub(crate) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

const HUB_V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 1);

/// Addresses with prefix length that a member's link gets.
pub(crate) fn addresses(host: u8, families: Families) -> Vec<String> {
    let mut addresses = vec![format!("172.30.0.{host}/24")];
    if families.has_v6() {
        addresses.push(format!("{}/64", v6(host)));
    }
    addresses
}

/// Gateways of the nodes' default routes. Nothing is behind them: a default route is there because
/// programs look for one, and unknown destinations end at the hub.
pub(crate) fn gateways(families: Families) -> Vec<String> {
    let mut gateways = vec![API_SERVER.to_string()];
    if families.has_v6() {
        gateways.push(HUB_V6.to_string());
    }
    gateways
}

/// Host number of the hub.
pub(crate) const HUB_HOST: u8 = 1;
/// Host number of the namespace `outside`.
pub(crate) const OUTSIDE_HOST: u8 = 200;
/// Host number of the machine itself.
pub(crate) const ROOT_HOST: u8 = 254;

/// Host number of node `index` (`n1` is 1): 172.30.0.11 and up.
pub(crate) fn node_host(index: u8) -> u8 {
    10 + index
}

/// A node's InternalIPs, IPv4 first.
pub(crate) fn node_addresses(index: u8, families: Families) -> Vec<String> {
    host_addresses(node_host(index), families)
}

/// Addresses of a host number, IPv4 first.
pub(crate) fn host_addresses(host: u8, families: Families) -> Vec<String> {
    let mut addresses = vec![Ipv4Addr::new(172, 30, 0, host).to_string()];
    if families.has_v6() {
        addresses.push(v6(host).to_string());
    }
    addresses
}

/// The host number in decimal digits, so that `fd30::11` and `172.30.0.11` are read as one node.
fn v6(host: u8) -> Ipv6Addr {
    let digits = format!("{host}");
    let last = u16::from_str_radix(&digits, 16).unwrap_or(u16::from(host));
    Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, last)
}

/// `--service-cluster-ip-range`.
pub(crate) fn service_ranges(families: Families) -> &'static str {
    match families {
        Families::V4 => "10.96.0.0/16",
        Families::Dual => "10.96.0.0/16,fd96::/112",
    }
}

/// `--cluster-cidr` of kube-proxy: weft's default pod range, so that kube-proxy knows what is local.
pub(crate) fn pod_ranges(families: Families) -> &'static str {
    match families {
        Families::V4 => "10.32.0.0/12",
        Families::Dual => "10.32.0.0/12,fd32::/48",
    }
}

/// Name of node `index`.
pub(crate) fn node_name(index: u8) -> String {
    format!("n{index}")
}

/// Index of a node by its name.
///
/// # Errors
/// A name that no node can have.
pub(crate) fn node_index(name: &str) -> anyhow::Result<u8> {
    match name
        .strip_prefix('n')
        .and_then(|digits| digits.parse::<u8>().ok())
    {
        Some(index)
            if (1..=Options::MAXIMUM_NODES).contains(&index) && node_name(index) == name =>
        {
            Ok(index)
        }
        _ => bail!(
            "{name:?} is no node name; nodes are n1 to n{}",
            Options::MAXIMUM_NODES
        ),
    }
}
