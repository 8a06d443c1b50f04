//! The short cut through `datapath`.

use weft_fabric::fabric;
use weft_netlink::{Kernel, MacAddr};
use weft_router::kernel::Applier;
use weft_testkit::netns::{Netns, join};

use crate::world::*;

/// Whether `datapath` itself has forwarded a frame with this source: then it learned it.
fn learned(node: &Netns, mac: MacAddr) -> bool {
    let fdb = node.sh("bridge fdb show br datapath");
    fdb.lines()
        .any(|l| l.starts_with(&mac.to_string()) && l.contains("master datapath"))
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn frames_go_straight_from_port_to_port_of_datapath_and_by_the_bridge_without_the_table() {
    let (world, a, _c) = World::with_a_pod_on_each();
    let macs = ["10.32.1.10", "10.32.2.10"].map(|pod| MacAddr::of_pod(ip(pod)));
    pings(&a, "10.32.2.10");
    assert_eq!(macs.map(|mac| learned(&world.n1, mac)), [false; 2]);
    world.n1.sh("nft delete table netdev weft");
    pings(&a, "10.32.2.10");
    assert_eq!(macs.map(|mac| learned(&world.n1, mac)), [true; 2]);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_router_that_goes_on_repairs_the_short_cut() {
    let node = Netns::new();
    let other = Netns::new();
    join(
        &node,
        "eth0",
        "192.0.2.1/24",
        &other,
        "eth0",
        "192.0.2.2/24",
    );
    let done = in_ns(&node, move || async move {
        let kernel = Kernel::connect().unwrap();
        let mut applier = Applier::new(kernel, CLUSTER, "/proc/sys/net".into());
        let fabric = fabric(&input(1, &[])).unwrap();
        let hooked = || {
            let listed = here("nft list table netdev weft");
            listed.matches("fwd to").count() == 2 && listed.matches("device").count() == 2
        };
        let mut pass = async |verify| {
            let observed = applier.observe().await.unwrap();
            applier
                .apply(&observed, &fabric, verify)
                .await
                .is_complete()
        };
        let mut done = vec![(pass(false).await, hooked())];
        for (damage, verify) in [
            ("ip link del vxlan-6784", false),
            ("ip link del vethwe-bridge", false),
            ("nft delete table netdev weft", true),
            ("nft flush chain netdev weft from-vxlan-6784", true),
            ("nft flush chain netdev weft from-vxlan-6784", true),
        ] {
            here(damage);
            done.push((pass(verify).await, hooked()));
        }
        done
    });
    assert_eq!(done, [(true, true); 6]);
}
