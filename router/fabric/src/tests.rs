use std::{collections::BTreeSet, net::IpAddr};

use proptest::prelude::*;
use weft_netfilter::Family;
use weft_netlink::{IfName, MacAddr, Network, Owner, Plan, diff};

use super::*;

fn set<T: std::str::FromStr + Ord>(words: &[&str]) -> BTreeSet<T>
where
    T::Err: std::fmt::Debug,
{
    words.iter().map(|w| w.parse().unwrap()).collect()
}

fn input() -> Input {
    Input {
        cluster_id: "c1".into(),
        node_uid: "node-1".into(),
        port: 6784,
        control_port: 6783,
        underlay: "192.0.2.1".parse().unwrap(),
        underlay_links: BTreeSet::from([IfName::parse("eth0").unwrap()]),
        underlay_mtu: 1500,
        mtu: None,
        pods_mtu: None,
        gateways: set(&["10.32.0.1"]),
        pools: set(&["10.32.0.0/12", "10.96.64.0/20"]),
        peers: [
            ("n2".to_owned(), set(&["192.0.2.2"])),
            ("n3".to_owned(), set(&["192.0.2.3", "fd00:2::3"])),
        ]
        .into(),
        node_addresses: set(&["192.0.2.1"]),
        masquerade: true,
        no_masquerade: set(&["198.51.100.0/24"]),
        pods: [(
            IfName::parse("vethwepl0000001").unwrap(),
            PodPort {
                mac: MacAddr::of_pod("10.32.0.5".parse().unwrap()),
                addresses: set(&["10.32.0.5"]),
            },
        )]
        .into(),
    }
}

#[test]
fn an_empty_host_gets_the_picture() {
    let fabric = fabric(&input()).unwrap();
    let plan = diff(&Network::default(), &fabric.devices, &Owner::new("c1"));
    let expected = "\
create bridge datapath
create bridge weave
create veth vethwe-bridge
create vxlan vxlan-6784
set alias of datapath to weft/c1/fabric
set datapath up
set alias of vethwe-bridge to weft/c1/fabric
make vethwe-bridge a port of weave (learning true, flood true, hairpin false)
set vethwe-bridge up
set alias of vethwe-datapath to weft/c1/fabric
make vethwe-datapath a port of datapath (learning true, flood true, hairpin false)
set vethwe-datapath up
set alias of vxlan-6784 to weft/c1/fabric
make vxlan-6784 a port of datapath (learning true, flood true, hairpin false)
set vxlan-6784 up
set alias of weave to weft/c1/fabric
set weave up
add address 10.32.0.1/12 to weave
add route 10.96.64.0/20 dev weave
add FDB entry 00:00:00:00:00:00 to 192.0.2.2 on vxlan-6784
add FDB entry 00:00:00:00:00:00 to 192.0.2.3 on vxlan-6784
";
    assert_eq!(plan.to_string(), expected);
}

#[test]
fn the_mtu_leaves_room_for_the_tunnel() {
    let mut i = input();
    assert_eq!(check(&i), Ok(1450));
    i.underlay = "fd00:2::1".parse().unwrap();
    assert_eq!(check(&i), Ok(1430));
    i.mtu = Some(1440);
    assert_eq!(
        check(&i).unwrap_err().to_string(),
        "an MTU of 1440 does not fit: the underlay takes 1500 and the tunnel needs 70; set \
         fabric.mtu of the WeftNetwork to at most 1430 or raise the MTU of the underlay"
    );
    i.mtu = Some(1200);
    i.pools.insert("fd00:10::/48".parse().unwrap());
    assert!(
        check(&i)
            .unwrap_err()
            .to_string()
            .contains("IPv6 needs 1280")
    );
}

#[test]
fn a_gateway_outside_every_pool_is_refused() {
    let mut i = input();
    i.gateways = set(&["203.0.113.1"]);
    assert_eq!(
        check(&i),
        Err(InputError::Gateway("203.0.113.1".parse().unwrap()))
    );
}

#[test]
fn an_ipv6_underlay_floods_to_ipv6_peers_only() {
    let mut i = input();
    i.underlay = "fd00:2::1".parse().unwrap();
    let remotes: Vec<String> = fabric(&i)
        .unwrap()
        .devices
        .fdb
        .iter()
        .filter(|e| e.link().as_str() == "vxlan-6784")
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        remotes,
        ["FDB entry 00:00:00:00:00:00 to fd00:2::3 on vxlan-6784"]
    );
}

#[test]
fn rules_are_what_the_kernel_takes() {
    let rules = fabric(&input()).unwrap().rules;
    assert_eq!(rules.check(), Ok(()));
    let chains: Vec<&str> = rules.tables[&Family::V4]
        .chains
        .keys()
        .map(|c| c.as_str())
        .collect();
    assert_eq!(
        chains,
        [
            "WEFT-FORWARD",
            "WEFT-FORWARD-OUT",
            "WEFT-INPUT",
            "WEFT-NAT",
            "WEFT-RAW",
            "WEFT-RAW-OUT"
        ]
    );
}

#[test]
fn device_macs_are_stable_local_and_never_a_pods() {
    let mac = device_mac("node-1", "weave");
    assert_eq!(mac, device_mac("node-1", "weave"));
    assert_ne!(mac, device_mac("node-2", "weave"));
    assert_ne!(mac, device_mac("node-1", "datapath"));
    assert_eq!(mac.0[0] & 0x0f, 0x06);
}

#[test]
fn sysctls_are_written_only_where_they_differ() {
    let forward = Sysctl {
        path: "ipv4/ip_forward".into(),
        value: Value::Exactly(1),
        required: true,
    };
    assert_eq!(
        (forward.missing("0\n"), forward.missing("1\n")),
        (Some(1), None)
    );
    let gc = Sysctl {
        value: Value::AtLeast(4096),
        ..forward
    };
    assert_eq!(
        (gc.missing("128\n"), gc.missing("8192\n"), gc.missing("")),
        (Some(4096), None, Some(4096))
    );
}

#[test]
fn a_node_that_begins_to_forward_ipv6_keeps_its_default_route() {
    let v4 = fabric(&input()).unwrap().sysctls;
    let ipv6 = |s: &Sysctl| s.path == "ipv6/conf/all/forwarding" || s.path.contains("eth0");
    assert!(!v4.iter().any(ipv6));
    let dual = Input {
        pools: set(&["10.32.0.0/12", "fd00:10::/48"]),
        ..input()
    };
    let sysctls = fabric(&dual).unwrap().sysctls;
    let at = |path: &str| sysctls.iter().position(|s| s.path == path).unwrap();
    let accept = &sysctls[at("ipv6/conf/eth0/accept_ra")];
    assert!(at("ipv6/conf/eth0/accept_ra") < at("ipv6/conf/all/forwarding"));
    let written = ["0", "1", "2"].map(|now| accept.missing(now));
    assert_eq!(written, [None, Some(2), None]);
    assert!(!accept.required);
}

#[test]
fn devices_keep_the_mtu_of_older_pods_and_new_pods_get_what_fits() {
    let mtus = |pods_mtu| {
        let fabric = fabric(&Input {
            pods_mtu,
            ..input()
        })
        .unwrap();
        let links = fabric.devices.links.values();
        let devices: BTreeSet<u32> = links.filter_map(|l| l.mtu).collect();
        (fabric.mtu, devices)
    };
    assert_eq!(mtus(None), (1450, [1450].into()));
    assert_eq!(mtus(Some(1350)), (1450, [1450].into()));
    assert_eq!(mtus(Some(8950)), (1450, [8950].into()));
}

proptest! {
    /// I2 on whole fabrics: whatever peers, pools and pods become, one plan gets there.
    #[test]
    fn every_fabric_is_reached_from_every_other(
        a in any_input(), b in any_input(),
    ) {
        let owner = Owner::new("c1");
        let mut network = Network::default();
        for input in [&a, &b] {
            let desired = fabric(input).unwrap().devices;
            for step in diff(&network, &desired, &owner).steps {
                prop_assert!(network.apply(&step), "{}", step);
            }
            prop_assert_eq!(diff(&network, &desired, &owner), Plan::default());
            prop_assert_eq!(&network.links, &desired.links);
        }
    }

    /// The ports of the second state follow from the first by the delta or need none.
    #[test]
    fn a_delta_is_empty_only_between_equal_rules(a in any_input(), b in any_input()) {
        let (a, b) = (fabric(&a).unwrap().ports, fabric(&b).unwrap().ports);
        prop_assert_eq!(b.delta(&a).is_none(), a == b);
    }
}

prop_compose! {
    fn any_input()(
        peers in prop::collection::btree_set(2..9_u8, 0..5),
        gateway in prop::option::of(1..4_u8),
        underlay_mtu in 1400..1502_u32,
        port in 6784..6786_u16,
        pods in prop::collection::btree_set(10..20_u8, 0..4),
        local in 1..3_u8,
    ) -> Input {
        Input {
            underlay: IpAddr::from([192, 0, 2, local]),
            underlay_mtu,
            port,
            gateways: gateway.map(|g| IpAddr::from([10, 32, 0, g])).into_iter().collect(),
            peers: peers.into_iter().map(|p| {
                (format!("n{p}"), BTreeSet::from([IpAddr::from([192, 0, 2, p])]))
            }).collect(),
            pods: pods.into_iter().map(|p| {
                let address = IpAddr::from([10, 32, 0, p]);
                (IfName::parse(&format!("vethwepl00000{p}")).unwrap(), PodPort {
                    mac: MacAddr::of_pod(address),
                    addresses: BTreeSet::from([address]),
                })
            }).collect(),
            ..input()
        }
    }
}
