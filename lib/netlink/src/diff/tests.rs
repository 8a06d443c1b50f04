use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Address, Bridge, FdbEntry, GROUP, MacAddr, Port, Route, Vxlan};

fn name(s: &str) -> IfName {
    IfName::parse(s).unwrap()
}

fn owner() -> Owner {
    Owner::new("c1")
}

fn link(kind: Kind) -> Link {
    Link {
        kind,
        alias: owner().fabric_alias(),
        group: GROUP,
        mac: None,
        mtu: Some(1450),
        up: Some(true),
        port: None,
    }
}

fn bridge(nf: bool) -> Kind {
    Kind::Bridge(Bridge {
        ageing: 300,
        multicast_snooping: false,
        nf_call_iptables: nf,
        nf_call_ip6tables: nf,
        nf_call_arptables: false,
    })
}

fn port_of(bridge: &str) -> Port {
    Port {
        bridge: name(bridge),
        learning: true,
        unicast_flood: true,
        hairpin: false,
    }
}

fn apply(observed: &Network, plan: &Plan) -> Network {
    let mut now = observed.clone();
    for step in &plan.steps {
        assert!(now.apply(step), "impossible step: {step}\nin\n{plan}");
    }
    now
}

/// A bridge `br0` with address and route, a veth pair `v0`|`v1`, `v0` in the bridge.
fn picture() -> Desired {
    let mut desired = Desired::default();
    desired.links.insert(name("br0"), link(bridge(true)));
    for (a, b) in [("v0", "v1"), ("v1", "v0")] {
        let mut end = link(Kind::Veth {
            peer: Some(name(b)),
        });
        if a == "v0" {
            end.port = Some(port_of("br0"));
        }
        desired.links.insert(name(a), end);
    }
    desired.addresses.insert(Address {
        link: name("br0"),
        net: "10.32.0.1/12".parse().unwrap(),
    });
    desired.routes.insert(Route {
        link: name("br0"),
        destination: "10.64.0.0/16".parse().unwrap(),
    });
    desired
}

#[test]
fn an_empty_host_gets_the_whole_picture_in_working_order() {
    let plan = diff(&Network::default(), &picture(), &owner());
    let text = plan.to_string();
    let expected = "\
create bridge br0
create veth v0
set alias of br0 to weft/c1/fabric
set br0 up
set alias of v0 to weft/c1/fabric
make v0 a port of br0 (learning true, flood true, hairpin false)
set v0 up
set alias of v1 to weft/c1/fabric
set v1 up
add address 10.32.0.1/12 to br0
add route 10.64.0.0/16 dev br0
";
    assert_eq!(text, expected);
    let now = apply(&Network::default(), &plan);
    assert_eq!(diff(&now, &picture(), &owner()), Plan::default());
}

#[test]
fn a_foreign_device_of_our_name_is_reported_and_nothing_is_hung_on_it() {
    let mut observed = Network::default();
    let mut foreign = link(bridge(false));
    foreign.alias = String::new();
    foreign.group = 0;
    observed.links.insert(name("br0"), foreign);
    let plan = diff(&observed, &picture(), &owner());
    assert_eq!(
        plan.foreign[0].to_string(),
        "there is a bridge named br0 that weft did not make, weft needs the name for a bridge; \
         remove it (ip link delete br0) or rename it"
    );
    let touches_it = |s: &Step| s.to_string().contains("br0");
    assert!(!plan.steps.iter().any(touches_it), "{plan}");
}

#[test]
fn our_alias_on_another_kind_of_device_is_foreign_too() {
    let mut observed = Network::default();
    observed
        .links
        .insert(name("br0"), link(Kind::Other("dummy".into())));
    let plan = diff(&observed, &picture(), &owner());
    assert_eq!(plan.foreign.len(), 1);
    assert_eq!(plan.foreign[0].found, "dummy");
}

#[test]
fn a_link_that_was_cut_off_before_its_alias_is_adopted_by_its_group() {
    let mut observed = Network::default();
    let mut half = link(bridge(true));
    half.alias = String::new();
    observed.links.insert(name("br0"), half);
    assert_eq!(diff(&observed, &picture(), &owner()).foreign, vec![]);
}

#[test]
fn a_tunnel_with_another_local_address_is_made_anew() {
    let tunnel = |local: &str| {
        link(Kind::Vxlan(Vxlan {
            vni: 6784,
            port: 6784,
            local: Some(local.parse().unwrap()),
            learning: true,
        }))
    };
    let mut observed = Network::default();
    observed.links.insert(name("vx"), tunnel("192.0.2.1"));
    let mut desired = Desired::default();
    desired.links.insert(name("vx"), tunnel("192.0.2.2"));
    let plan = diff(&observed, &desired, &owner());
    assert_eq!(plan.steps[0], Step::DeleteLink(name("vx")));
    assert_eq!(
        diff(&apply(&observed, &plan), &desired, &owner()),
        Plan::default()
    );
}

#[test]
fn pod_links_keep_their_port_flags_and_are_never_made_deleted_or_set_up() {
    let mut observed = apply(
        &Network::default(),
        &diff(&Network::default(), &picture(), &owner()),
    );
    let mut pod = link(Kind::Veth { peer: None });
    pod.alias = owner().pod_alias("0123456789ab");
    pod.up = Some(false);
    observed.links.insert(name("vethwepl0123456"), pod);
    let mut desired = picture();
    desired
        .pod_ports
        .insert(name("vethwepl0123456"), port_of("br0"));
    desired
        .pod_ports
        .insert(name("vethweplgone000"), port_of("br0"));
    let mac = MacAddr::of_pod("10.32.0.5".parse().unwrap());
    desired.fdb.insert(FdbEntry::Port {
        link: name("vethwepl0123456"),
        mac,
    });
    desired.fdb.insert(FdbEntry::Port {
        link: name("vethweplgone000"),
        mac,
    });
    let plan = diff(&observed, &desired, &owner());
    assert_eq!(
        plan.to_string(),
        "make vethwepl0123456 a port of br0 (learning true, flood true, hairpin false)\n\
         add FDB entry 0a:58:0a:20:00:05 on port vethwepl0123456\n"
    );
    // Not wanted any more: only our FDB entry goes, the link belongs to the plugin.
    let now = apply(&observed, &plan);
    let plan = diff(&now, &picture(), &owner());
    assert_eq!(
        plan.to_string(),
        "delete FDB entry 0a:58:0a:20:00:05 on port vethwepl0123456\n"
    );
}

const NAMES: [&str; 6] = ["b0", "b1", "v0", "v1", "x0", "p0"];

fn any_kind(i: usize) -> BoxedStrategy<Kind> {
    let vxlan = (1..3_u32).prop_map(|vni| {
        Kind::Vxlan(Vxlan {
            vni,
            port: 6784,
            local: None,
            learning: true,
        })
    });
    match i {
        0 | 1 => any::<bool>().prop_map(bridge).boxed(),
        2 => Just(Kind::Veth {
            peer: Some(name("v1")),
        })
        .boxed(),
        3 => Just(Kind::Veth {
            peer: Some(name("v0")),
        })
        .boxed(),
        4 => vxlan.boxed(),
        _ => Just(Kind::Veth { peer: None }).boxed(),
    }
}

prop_compose! {
    fn any_link(i: usize)(
        kind in any_kind(i),
        mac in 0..3_u8,
        mtu in 1400..1403_u32,
        up in any::<bool>(),
        port in prop::option::of((0..2_usize, any::<bool>(), any::<bool>())),
    ) -> Link {
        Link {
            mac: Some(MacAddr([2, 0, 0, 0, 0, mac])),
            mtu: Some(mtu),
            up: Some(up),
            port: port.filter(|_| i > 1).map(|(b, learning, hairpin)| Port {
                bridge: name(NAMES[b]), learning, unicast_flood: true, hairpin,
            }),
            ..link(kind)
        }
    }
}

prop_compose! {
    fn any_desired()(
        bridges in (any_link(0), any_link(1)),
        veth in prop::option::of((any_link(2), any_link(3))),
        tunnel in prop::option::of(any_link(4)),
        addresses in prop::collection::btree_set(0..4_u8, 0..3),
        flood in prop::collection::btree_set(1..9_u8, 0..6),
    ) -> Desired {
        let mut links = BTreeMap::from([(name("b0"), bridges.0), (name("b1"), bridges.1)]);
        if let Some((a, b)) = veth {
            links.insert(name("v0"), a);
            links.insert(name("v1"), b);
        }
        let fdb = flood.into_iter().filter(|_| tunnel.is_some()).map(|n| FdbEntry::Tunnel {
            link: name("x0"), mac: MacAddr::ZERO, remote: [192, 0, 2, n].into(),
        }).collect();
        links.extend(tunnel.map(|t| (name("x0"), t)));
        Desired {
            links,
            fdb,
            addresses: addresses.into_iter().map(|n| Address {
                link: name("b0"), net: format!("10.32.0.{n}/12").parse().unwrap(),
            }).collect(),
            ..Desired::default()
        }
    }
}

proptest! {
    /// I2: after the plan nothing is left to do, and what is there is what was wanted.
    #[test]
    fn applying_the_difference_gives_the_desired_network(a in any_desired(), b in any_desired()) {
        let first = apply(&Network::default(), &diff(&Network::default(), &a, &owner()));
        let now = apply(&first, &diff(&first, &b, &owner()));
        prop_assert_eq!(diff(&now, &b, &owner()), Plan::default());
        prop_assert_eq!(&now.links, &b.links);
        prop_assert_eq!(&now.addresses, &b.addresses);
        prop_assert_eq!(&now.fdb, &b.fdb);
    }

    /// I4: whatever is wanted, a link that is not ours stays as it is.
    #[test]
    fn foreign_links_are_never_touched(a in any_desired(), i in 0..5_usize, alias in "[a-z/]{0,12}") {
        let mut observed = Network::default();
        let foreign = Link { alias, group: 0, ..link(Kind::Other("dummy".into())) };
        observed.links.insert(name(NAMES[i]), foreign.clone());
        let plan = diff(&observed, &a, &owner());
        let mut now = observed.clone();
        for step in &plan.steps {
            now.apply(step);
        }
        prop_assert_eq!(now.links.get(&name(NAMES[i])), Some(&foreign));
    }
}
