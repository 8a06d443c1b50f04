//! The whole table as text for one `nft -f -`: one transaction, nothing is open in between.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    PortRules, TABLE,
    element::{Element, of_port},
};
use crate::names::POD_PREFIX;

/// Sets and the types of their elements. Sets have one element per address, so that a change of one
/// pod is a handful of elements. nft 1.0.6 has no word for what neighbour discovery says, so it is
/// read by offset: the target at bit 64, the option at bit 192 of the ICMPv6 message.
const SETS: [(&str, &str); 7] = [
    ("port", "typeof iifname . ether saddr"),
    ("v4", "typeof iifname . ether saddr . ip saddr"),
    ("v6", "typeof iifname . ether saddr . ip6 saddr"),
    ("ndmac", "typeof iifname . @th,208,48"),
    ("ndtarget", "typeof iifname . @th,64,128"),
    ("node4", "type ipv4_addr"),
    ("node6", "type ipv6_addr"),
];

impl PortRules {
    /// Text that replaces the table, whatever is there, in one transaction.
    #[must_use]
    pub fn render(&self) -> String {
        let mut elements: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        let ports = self.ports.iter().flat_map(|(link, pod)| of_port(link, pod));
        for element in ports.chain(self.nodes.iter().copied().map(Element::Node)) {
            elements
                .entry(element.set())
                .or_default()
                .push(element.text());
        }
        let mut text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        for (name, kind) in SETS {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\tset {name} {{ {kind};");
            if let Some(elements) = elements.get(name) {
                let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
            }
            text.push_str("\t}\n");
        }
        let udp: Vec<String> = self.closed_udp.iter().map(u16::to_string).collect();
        let udp = if udp.is_empty() {
            "0".to_owned()
        } else {
            udp.join(", ")
        };
        text.push_str(
            &CHAINS
                .replace("{udp}", &udp)
                .replace("{prefix}", POD_PREFIX),
        );
        text.push_str("}\n");
        text
    }
}

/// `from-arp` looks the sender up twice: as Ethernet source and as ARP sender, both with the port.
/// `nd` checks what a port says in neighbour discovery: a solicitation or advertisement carries at
/// most one option, the sender's link-layer address, which must be the port's (type 1 or 2, length 1,
/// then the MAC); the target of an advertisement must be an address of the port.
/// Ethertypes are compared in the frame, not in what the card may have taken off: a VLAN tag never
/// looks like IPv4. Fragments behind the first have no ports; UDP to nodes is refused by chain
/// `WEFT-FORWARD` and `WEFT-INPUT` too, where packets are whole. Link-local addresses are for
/// discovery alone: policies judge by the addresses that a pod was given, and would let all else
/// pass.
const CHAINS: &str = r#"	chain from-ip4 {
		udp sport 67 udp dport 68 drop
		udp dport { {udp} } ip daddr @node4 drop
		iifname . ether saddr . ip saddr @v4 accept
		drop
	}
	chain from-arp {
		iifname . ether saddr @port iifname . arp saddr ether . arp saddr ip @v4 accept
		arp saddr ip 0.0.0.0 iifname . ether saddr @port iifname . arp saddr ether @port accept
		drop
	}
	chain nd {
		icmpv6 type nd-neighbor-solicit ip6 saddr :: return
		icmpv6 type nd-neighbor-solicit ip6 length 24 return
		icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x0101 iifname . @th,208,48 @ndmac return
		icmpv6 type nd-neighbor-advert ip6 length 24 iifname . @th,64,128 @ndtarget return
		icmpv6 type nd-neighbor-advert ip6 length 32 iifname . @th,64,128 @ndtarget @th,192,16 0x0201 iifname . @th,208,48 @ndmac return
		drop
	}
	chain from-ip6 {
		icmpv6 type { nd-router-advert, nd-redirect } drop
		udp sport 547 udp dport 546 drop
		udp dport { {udp} } ip6 daddr @node6 drop
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } jump nd
		icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report } iifname . ether saddr . ip6 saddr @v6 accept
		ip6 saddr fe80::/10 drop
		ip6 daddr fe80::/10 drop
		iifname . ether saddr . ip6 saddr @v6 accept
		ip6 saddr :: iifname . ether saddr @port icmpv6 type { nd-neighbor-solicit, mld2-listener-report } accept
		drop
	}
	chain from-pod {
		ether type ip goto from-ip4
		ether type ip6 goto from-ip6
		ether type arp goto from-arp
		drop
	}
	chain prerouting {
		type filter hook prerouting priority -300; policy accept;
		iifname "{prefix}*" goto from-pod
	}
"#;
