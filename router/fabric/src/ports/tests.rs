use weft_netlink::MacAddr;

use super::*;

fn rules(pods: &[(&str, &[&str])]) -> PortRules {
    PortRules {
        ports: pods
            .iter()
            .map(|(link, addresses)| {
                let addresses: BTreeSet<IpAddr> =
                    addresses.iter().map(|a| a.parse().unwrap()).collect();
                let mac = MacAddr::of_pod(*addresses.first().unwrap());
                (IfName::parse(link).unwrap(), PodPort { mac, addresses })
            })
            .collect(),
        nodes: ["192.0.2.1".parse().unwrap()].into(),
        closed_udp: [6783, 6784].into(),
    }
}

#[test]
fn equal_tables_have_no_delta() {
    let a = rules(&[("vethwepl0000001", &["10.32.0.5"])]);
    assert_eq!(a.delta(&a.clone()), None);
}

#[test]
fn a_new_pod_is_a_handful_of_elements() {
    let old = rules(&[]);
    let new = rules(&[("vethwepl0000001", &["10.32.0.5"])]);
    assert_eq!(
        new.delta(&old).unwrap(),
        "\
add chain bridge weft ndp-vethwepl0000001
add rule bridge weft ndp-vethwepl0000001 icmpv6 type nd-neighbor-solicit ip6 saddr :: return
add rule bridge weft ndp-vethwepl0000001 icmpv6 type nd-neighbor-solicit ip6 length 24 return
add rule bridge weft ndp-vethwepl0000001 icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,16 0x0101 @th,208,48 0x0a580a200005 return
add rule bridge weft ndp-vethwepl0000001 drop
add element bridge weft port { \"vethwepl0000001\" . 0a:58:0a:20:00:05 }
add element bridge weft v4 { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . 10.32.0.5 }
add element bridge weft ndp { \"vethwepl0000001\" : jump ndp-vethwepl0000001 }
"
    );
}

#[test]
fn a_pod_that_is_gone_takes_its_elements_along() {
    let old = rules(&[("vethwepl0000001", &["10.32.0.5"])]);
    let text = rules(&[]).delta(&old).unwrap();
    assert_eq!(
        text,
        "\
delete element bridge weft port { \"vethwepl0000001\" . 0a:58:0a:20:00:05 }
delete element bridge weft v4 { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . 10.32.0.5 }
delete element bridge weft ndp { \"vethwepl0000001\" : jump ndp-vethwepl0000001 }
flush chain bridge weft ndp-vethwepl0000001
delete chain bridge weft ndp-vethwepl0000001
"
    );
}

#[test]
fn another_port_number_replaces_the_table() {
    let old = rules(&[]);
    let mut new = rules(&[]);
    new.closed_udp = [1, 2].into();
    assert_eq!(new.delta(&old), Some(new.render()));
}

#[test]
fn link_local_is_a_source_only_beside_an_ipv6_address() {
    let sources = |addresses: &[&str]| {
        let rules = rules(&[("vethwepl0000001", addresses)]);
        let pod = rules.ports.values().next().unwrap();
        PortRules::v6_sources(pod)
    };
    assert_eq!(sources(&["10.32.0.5"]), BTreeSet::new());
    let dual: BTreeSet<IpAddr> = ["fd32::5", "fe80::858:aff:fe20:5"]
        .map(|a| a.parse().unwrap())
        .into();
    assert_eq!(sources(&["10.32.0.5", "fd32::5"]), dual);
}
