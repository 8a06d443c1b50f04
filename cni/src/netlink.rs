//! Just enough rtnetlink for the plugin: links, addresses and routes over a blocking socket.
//!
//! Written by hand on the safe socket calls of `nix`, because the plugin starts for every pod and
//! the general crates are several times its size. Constants are those of `linux/if_link.h` and
//! `linux/rtnetlink.h`.

mod message;
mod socket;
#[cfg(test)]
mod tests;
mod veth;

use std::net::IpAddr;

use ipnet::IpNet;
use nix::errno::Errno;

pub(crate) use message::Message;
pub(crate) use socket::{LinkEvents, Netlink};
pub(crate) use veth::Veth;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub(crate) struct Error {
    pub(crate) what: String,
    #[source]
    pub(crate) source: Errno,
}

/// A link, as far as the plugin cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    pub(crate) alias: String,
    pub(crate) kind: String,
    /// Index of the bridge it is a port of.
    pub(crate) master: Option<u32>,
    /// Index of the other end, for a veth.
    pub(crate) peer: Option<u32>,
    /// `IFF_UP`.
    pub(crate) up: bool,
    /// `operstate` is UP: the carrier is there and the bridge has been told.
    pub(crate) running: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) dst: IpNet,
    pub(crate) gateway: Option<IpAddr>,
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next().filter(|p| p.len() == 2)?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Writes `aa:bb:cc:dd:ee:ff`.
pub(crate) fn format_mac(mac: Mac) -> String {
    let bytes: Vec<String> = mac.iter().map(|b| format!("{b:02x}")).collect();
    bytes.join(":")
}
