//! Identities that are derived, so that every start finds the same.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest, Sha256};
use weft_netlink::MacAddr;

/// MAC of a fabric device: from the Node's UID, so that it survives a rebuild of the device and
/// differs between nodes. The low half of the first byte is 6: locally administered, unicast, and
/// never the `0a` of a pod.
#[must_use]
pub fn device_mac(node_uid: &str, device: &str) -> MacAddr {
    let hash = Sha256::digest(format!("{node_uid}/{device}"));
    let mut octets = [0; 6];
    octets.copy_from_slice(&hash[..6]);
    octets[0] = (octets[0] & 0xf0) | 0x06;
    MacAddr(octets)
}

/// Seven hex digits.
pub(crate) fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text);
    let mut hex: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
    hex.truncate(7);
    hex
}

/// The link-local address that a kernel makes from a MAC (modified EUI-64, RFC 4291 appendix A).
pub(crate) fn link_local(mac: MacAddr) -> IpAddr {
    let [a, b, c, d, e, f] = mac.0;
    IpAddr::V6(Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]))
}
