//! The result of an ADD, in each version of the protocol.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::conf::Version;

/// `RT_SCOPE_LINK`: a route without gateway, in results of 1.1.0.
const SCOPE_LINK: u8 = 253;

/// What an ADD made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Added {
    /// Name and MAC of the bridge.
    pub(crate) bridge: (String, String),
    /// Name and MAC of the host end.
    pub(crate) host: (String, String),
    /// Name and MAC of the pod's interface.
    pub(crate) pod: (String, String),
    /// `CNI_NETNS`.
    pub(crate) sandbox: String,
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    /// Further on-link ranges.
    pub(crate) on_link: Vec<IpNet>,
    pub(crate) dns: Option<Value>,
}

impl Added {
    /// The result as the configuration's version spells it.
    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut interfaces = vec![
            json!({"name": self.bridge.0, "mac": self.bridge.1}),
            json!({"name": self.host.0, "mac": self.host.1}),
            json!({"name": self.pod.0, "mac": self.pod.1, "sandbox": self.sandbox}),
        ];
        if version >= Version::V1_1_0 {
            // The bridge's MTU is not of this attachment.
            for interface in interfaces.iter_mut().skip(1) {
                interface["mtu"] = json!(self.mtu);
            }
        }
        let ips: Vec<Value> = self
            .addresses
            .iter()
            .map(|address| {
                let mut ip = json!({"address": address.to_string(), "interface": 2});
                if let Some(gateway) = self.gateway(address.addr()) {
                    ip["gateway"] = json!(gateway.to_string());
                }
                if version < Version::V1_0_0 {
                    ip["version"] = json!(if address.addr().is_ipv4() { "4" } else { "6" });
                }
                ip
            })
            .collect();
        let defaults = self.addresses.iter().filter_map(|address| {
            let gateway = self.gateway(address.addr())?;
            let dst = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            Some(json!({"dst": dst, "gw": gateway.to_string()}))
        });
        let on_link = self.on_link.iter().map(|range| {
            let mut route = json!({"dst": range.to_string()});
            if version >= Version::V1_1_0 {
                route["scope"] = json!(SCOPE_LINK);
            }
            route
        });
        json!({
            "cniVersion": version.text(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": defaults.chain(on_link).collect::<Vec<_>>(),
            "dns": self.dns.clone().unwrap_or_else(|| json!({})),
        })
    }

    /// The gateway of an address' family.
    fn gateway(&self, address: IpAddr) -> Option<IpAddr> {
        self.gateways
            .iter()
            .copied()
            .find(|g| g.is_ipv4() == address.is_ipv4())
    }
}
