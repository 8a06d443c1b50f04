//! Names promised to users of Weave Net. They stay what they are.

use weft_netlink::IfName;

/// The bridge of the pods; holds the node's gateway address.
pub const WEAVE: &str = "weave";
/// The second bridge: the switch that the router steers.
pub const DATAPATH: &str = "datapath";
/// End of the veth pair in `weave`.
pub const VETH_BRIDGE: &str = "vethwe-bridge";
/// End of the veth pair in `datapath`.
pub const VETH_DATAPATH: &str = "vethwe-datapath";
/// Start of the name of a pod's host end; 7 characters of the container id follow.
pub const POD_PREFIX: &str = "vethwepl";

/// The tunnel: `vxlan-` and its UDP port (at most 11 bytes).
#[must_use]
pub fn tunnel(port: u16) -> String {
    format!("vxlan-{port}")
}

/// Host end of a pod's veth: Weave Net's name, 15 bytes. A container id that is shorter, or has
/// characters an interface name cannot have, is replaced by the start of its SHA-256 in hex.
#[must_use]
pub fn pod_link(container_id: &str) -> String {
    let head: String = container_id.chars().take(7).collect();
    let plain = head.len() == 7 && head.chars().all(|c| c.is_ascii_alphanumeric());
    if plain {
        format!("{POD_PREFIX}{head}")
    } else {
        format!("{POD_PREFIX}{}", crate::identity::short_hash(container_id))
    }
}

/// An [`IfName`] from one of the names above.
pub(crate) fn ifname(name: &str) -> IfName {
    #[allow(
        clippy::expect_used,
        reason = "names of this module are valid, tested below"
    )]
    IfName::parse(name).expect("names of the fabric are valid interface names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_an_interface_name() {
        for name in [WEAVE, DATAPATH, VETH_BRIDGE, VETH_DATAPATH, &tunnel(65535)] {
            assert_eq!(ifname(name).as_str(), name);
        }
    }

    #[test]
    fn a_pod_link_has_seven_characters_of_the_container_id() {
        assert_eq!(pod_link("1a2b3c4d5e6f"), "vethwepl1a2b3c4");
        for odd in ["", "abc", "a/b c:d%e", "ünïcode-id"] {
            let name = pod_link(odd);
            assert_eq!(name.len(), 15, "{name}");
            assert!(IfName::parse(&name).is_ok(), "{name}");
        }
    }
}
