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

/// The delta as `nft` reads it.
fn text(new: &PortRules, old: &PortRules) -> String {
    new.delta(old).expect("they differ").text(new)
}

#[test]
fn a_new_pod_is_a_handful_of_elements() {
    let old = rules(&[]);
    let new = rules(&[("vethwepl0000001", &["10.32.0.5", "fd32::5"])]);
    assert_eq!(
        text(&new, &old),
        "\
add element bridge weft port { \"vethwepl0000001\" . 0a:58:0a:20:00:05 }
add element bridge weft ndmac { \"vethwepl0000001\" . 0x0a580a200005 }
add element bridge weft v4 { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . 10.32.0.5 }
add element bridge weft v6 { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . fd32::5, \
\"vethwepl0000001\" . 0a:58:0a:20:00:05 . fe80::858:aff:fe20:5 }
add element bridge weft ndtarget { \"vethwepl0000001\" . 0xfd320000000000000000000000000005, \
\"vethwepl0000001\" . 0xfe8000000000000008580afffe200005 }
"
    );
}

#[test]
fn a_pod_that_is_gone_takes_its_elements_along() {
    let old = rules(&[("vethwepl0000001", &["10.32.0.5"])]);
    assert_eq!(
        text(&rules(&[]), &old),
        "\
delete element bridge weft port { \"vethwepl0000001\" . 0a:58:0a:20:00:05 }
delete element bridge weft ndmac { \"vethwepl0000001\" . 0x0a580a200005 }
delete element bridge weft v4 { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . 10.32.0.5 }
"
    );
}

#[test]
fn a_port_that_changes_is_closed_before_it_is_opened_anew() {
    let old = rules(&[("vethwepl0000001", &["10.32.0.5"])]);
    let new = rules(&[("vethwepl0000001", &["10.32.0.6"])]);
    let Some(Delta::Elements(changes)) = new.delta(&old) else {
        unreachable!("pods are elements");
    };
    let encoded: Vec<_> = changes.iter().map(Change::encode).collect();
    let order: Vec<_> = encoded.iter().map(|c| (c.set, c.add)).collect();
    let sets = ["port", "ndmac", "v4"];
    let expected = [false, true].map(|add| sets.map(|set| (set, add))).concat();
    assert_eq!(order, expected);
}

#[test]
fn keys_are_the_kernels_registers() {
    let new = rules(&[("vethwepl0000001", &["10.32.0.5", "fd32::5"])]);
    let Some(Delta::Elements(changes)) = new.delta(&rules(&[])) else {
        unreachable!("pods are elements");
    };
    let port = b"vethwepl0000001\0".as_slice();
    let mac = [0x0a, 0x58, 0x0a, 0x20, 0, 5, 0, 0].as_slice();
    let own: &[u8] = &[0xfd, 0x32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    let local: &[u8] = &[
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x08, 0x58, 0x0a, 0xff, 0xfe, 0x20, 0, 5,
    ];
    let keys: Vec<_> = changes
        .iter()
        .map(Change::encode)
        .map(|c| (c.set, c.keys))
        .collect();
    let expected = [
        ("port", vec![[port, mac].concat()]),
        ("ndmac", vec![[port, mac].concat()]),
        ("v4", vec![[port, mac, &[10, 32, 0, 5]].concat()]),
        (
            "v6",
            vec![[port, mac, own].concat(), [port, mac, local].concat()],
        ),
        (
            "ndtarget",
            vec![[port, own].concat(), [port, local].concat()],
        ),
    ];
    assert_eq!(keys, expected);
}

#[test]
fn another_port_number_replaces_the_table() {
    let old = rules(&[]);
    let mut new = rules(&[]);
    new.closed_udp = [1, 2].into();
    assert_eq!(new.delta(&old), Some(Delta::Table));
    assert_eq!(text(&new, &old), new.render());
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
