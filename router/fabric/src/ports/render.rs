//! The whole table as text for one `nft -f -`: one transaction, nothing is open in between.

use std::{collections::BTreeSet, fmt::Write, net::IpAddr};

use super::{PortRules, TABLE};
use crate::{input::PodPort, names::POD_PREFIX};

/// Elements of one port, by set. Sets have one element per address, so that a change of one pod is
/// a handful of elements.
pub(super) struct Elements {
    /// Set -> elements.
    pub(super) sets: Vec<(&'static str, Vec<String>)>,
}

pub(super) fn elements(link: &str, pod: &PodPort) -> Elements {
    let mac = pod.mac;
    let v4 = PortRules::v4_sources(pod)
        .map(|a| format!("\"{link}\" . {mac} . {a}"))
        .collect();
    let v6 = PortRules::v6_sources(pod)
        .into_iter()
        .map(|a| format!("\"{link}\" . {mac} . {a}"))
        .collect();
    Elements {
        sets: vec![
            ("port", vec![format!("\"{link}\" . {mac}")]),
            ("v4", v4),
            ("v6", v6),
            ("ndp", vec![format!("\"{link}\" : jump {}", chain_of(link))]),
        ],
    }
}

/// Chain that checks what a port says in neighbour discovery.
pub(super) fn chain_of(link: &str) -> String {
    format!("ndp-{link}")
}

/// Rules of that chain. A solicitation or advertisement carries at most one option, the sender's
/// link-layer address, which must be the port's (type 1 or 2, length 1, then the MAC); the target of
/// an advertisement must be an address of the port. nft 1.0.6 has no word for these fields, so they
/// are read by offset: target at bit 64, option at bit 192 of the ICMPv6 message.
pub(super) fn ndp_rules(pod: &PodPort) -> Vec<String> {
    let [a, b, c, d, e, f] = pod.mac.0;
    let mac = format!("0x{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}");
    let mut rules = vec![
        "icmpv6 type nd-neighbor-solicit ip6 saddr :: return".to_owned(),
        "icmpv6 type nd-neighbor-solicit ip6 length 24 return".to_owned(),
        format!(
            "icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x0101 @th,208,48 {mac} return"
        ),
    ];
    for address in PortRules::v6_sources(pod) {
        let IpAddr::V6(target) = address else {
            continue;
        };
        let target = u128::from(target);
        rules.push(format!(
            "icmpv6 type nd-neighbor-advert ip6 length 24 @th,64,128 0x{target:032x} return"
        ));
        rules.push(format!(
            "icmpv6 type nd-neighbor-advert ip6 length 32 @th,64,128 0x{target:032x} @th,192,16 0x0201 @th,208,48 {mac} return"
        ));
    }
    rules.push("drop".to_owned());
    rules
}

fn set(text: &mut String, head: &str, elements: &[String]) {
    let _ = writeln!(text, "\t{head};");
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    text.push_str("\t}\n");
}

impl PortRules {
    /// Text that replaces the table, whatever is there, in one transaction.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!("add table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n");
        let mut port = Vec::new();
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        let mut ndp = Vec::new();
        for (link, pod) in &self.ports {
            for (name, list) in elements(link.as_str(), pod).sets {
                match name {
                    "port" => port.extend(list),
                    "v4" => v4.extend(list),
                    "v6" => v6.extend(list),
                    _ => ndp.extend(list),
                }
            }
        }
        for (link, pod) in &self.ports {
            let _ = writeln!(text, "\tchain {} {{", chain_of(link.as_str()));
            for rule in ndp_rules(pod) {
                let _ = writeln!(text, "\t\t{rule}");
            }
            text.push_str("\t}\n");
        }
        set(&mut text, "set port { typeof iifname . ether saddr", &port);
        set(
            &mut text,
            "set v4 { typeof iifname . ether saddr . ip saddr",
            &v4,
        );
        set(
            &mut text,
            "set v6 { typeof iifname . ether saddr . ip6 saddr",
            &v6,
        );
        set(&mut text, "map ndp { typeof iifname : verdict", &ndp);
        set(
            &mut text,
            "set node4 { type ipv4_addr",
            &words(&self.nodes, true),
        );
        set(
            &mut text,
            "set node6 { type ipv6_addr",
            &words(&self.nodes, false),
        );
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

pub(super) fn words(nodes: &BTreeSet<IpAddr>, v4: bool) -> Vec<String> {
    let of_family = nodes.iter().filter(|a| a.is_ipv4() == v4);
    of_family.map(ToString::to_string).collect()
}

/// `from-arp` looks the sender up twice: as Ethernet source and as ARP sender, both with the port.
/// Ethertypes are compared in the frame, not in what the card may have taken off: a VLAN tag never
/// looks like IPv4. Fragments behind the first have no ports; UDP to nodes is refused by chain
/// `WEFT-FORWARD` and `WEFT-INPUT` too, where packets are whole.
const CHAINS: &str = r#"	chain from-ip4 {
		udp sport 67 udp dport 68 drop
		ip daddr @node4 udp dport { {udp} } drop
		iifname . ether saddr . ip saddr @v4 accept
		drop
	}
	chain from-arp {
		iifname . ether saddr @port iifname . arp saddr ether . arp saddr ip @v4 accept
		arp saddr ip 0.0.0.0 iifname . ether saddr @port iifname . arp saddr ether @port accept
		drop
	}
	chain from-ip6 {
		icmpv6 type { nd-router-advert, nd-redirect } drop
		udp sport 547 udp dport 546 drop
		ip6 daddr @node6 udp dport { {udp} } drop
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } iifname vmap @ndp
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
