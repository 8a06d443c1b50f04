//! Who reaches whom, from where, and under which address.

use std::collections::BTreeSet;

use weft_fabric::{Input, PodPort, fabric};
use weft_netlink::{IfName, MacAddr};
use weft_testkit::netns::{Netns, join};

use crate::world::*;

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_picture_appears_under_its_names_and_a_second_pass_changes_nothing() {
    let world = World::new();
    settle(&world.n1, input(1, &[]));
    let links = world
        .n1
        .sh("ip -br link | grep -v -e '^lo' -e '^eth0' -e '^sit0' -e '^tunl0' -e '^ip6tnl0' | awk '{print $1}' | sort");
    assert_eq!(
        links,
        "datapath\nvethwe-bridge@vethwe-datapath\nvethwe-datapath@vethwe-bridge\nvxlan-6784\nweave"
    );
    let detail = world.n1.sh("ip -d link show vxlan-6784");
    assert!(detail.contains("vxlan id 6784 local 192.0.2.1"), "{detail}");
    assert!(detail.contains("dstport 6784"), "{detail}");
    assert!(detail.contains("mtu 1450"), "{detail}");
    let weave = world.n1.sh("ip -d link show weave");
    assert!(weave.contains("nf_call_iptables 1"), "{weave}");
    let second = settle(&world.n1, input(1, &[]));
    // A new router does not know what its nft tables hold and writes each in one transaction.
    assert_eq!(
        second.changes,
        ["write table bridge weft (0 ports)", SHORTCUT_WRITTEN]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn pods_reach_each_other_on_one_node_and_across_nodes_in_both_families() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10", "10.32.1.11"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let b = plug(&world.n1, "10.32.1.11");
    let c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10", "10.32.1.11"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    for to in ["10.32.1.11", "10.32.2.10", "10.32.1.1", "10.32.2.1"] {
        pings(&a, to);
    }
    for to in ["fd00:10:0:1::b", "fd00:10:0:2::a"] {
        pings(&a, to);
    }
    pings(&c, "10.32.1.10");
    pings(&b, "10.32.2.10");
    // Through the tunnel at the full MTU, and with fragments.
    c.sh("ping -c 1 -W 2 -M do -s 1422 10.32.1.10");
    c.sh("ping -c 1 -W 2 -s 60000 10.32.1.10");
    // The node reaches its own pods and those of the other.
    pings(&world.n1, "10.32.1.10");
    pings(&world.n1, "10.32.2.10");
    // Outer packets are not tracked, and the second pass makes no second entry.
    let tracked = world
        .n1
        .sh("conntrack -L 2>/dev/null | grep -c 'dport=6784' || true");
    assert_eq!(tracked, "0");
}

/// A pod keeps the MTU of its ADD. Its large packets must not vanish when the underlay shrinks.
#[test]
#[ignore = "needs root: own network namespaces"]
fn when_the_underlay_shrinks_older_pods_are_told_and_lose_nothing_that_may_be_split() {
    let world = World::new();
    let pods = [["10.32.1.10"], ["10.32.2.10"]];
    settle(&world.n1, input(1, &pods[0]));
    settle(&world.n2, input(2, &pods[1]));
    let a = plug(&world.n1, pods[0][0]);
    let _b = plug(&world.n2, pods[1][0]);
    settle(&world.n1, input(1, &pods[0]));
    settle(&world.n2, input(2, &pods[1]));
    pings(&a, pods[1][0]);
    a.sh("ping -c 1 -W 2 -M do -s 1422 10.32.2.10");

    for (n, node) in [(1, &world.n1), (2, &world.n2)] {
        node.sh("ip link set eth0 mtu 1400");
        let shrunk = Input {
            underlay_mtu: 1400,
            pods_mtu: Some(1450),
            ..input(n, &pods[usize::from(n) - 1])
        };
        assert_eq!(fabric(&shrunk).unwrap().mtu, 1350);
        settle(node, shrunk);
    }
    // Without "don't fragment" it arrives as before.
    a.sh("ping -c 1 -W 2 -M dont -s 1422 10.32.2.10");
    // With it, the sender is told what fits, and keeps to it.
    for (to, size) in [("10.32.2.10", 1422), ("fd00:10:0:2::a", 1402)] {
        let large = a.try_sh(&format!("ping -c 1 -W 1 -M do -s {size} {to}"));
        assert!(large.is_err(), "{large:?}");
        let route = a.sh(&format!("ip route get {to}"));
        assert!(route.contains("mtu 1350"), "{route}");
        a.sh(&format!("ping -c 1 -W 2 -M do -s {} {to}", size - 100));
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn pods_leave_with_the_nodes_address_and_stay_themselves_inside() {
    let (world, a, c) = World::with_a_pod_on_each();
    let outside = Netns::new();
    join(
        &world.n1,
        "out",
        "203.0.113.1/24",
        &outside,
        "eth0",
        "203.0.113.2/24",
    );
    pings(&a, "203.0.113.2");
    let flow = world
        .n1
        .sh("conntrack -L -s 10.32.1.10 -d 203.0.113.2 2>/dev/null");
    assert!(flow.contains("dst=203.0.113.1"), "not masqueraded: {flow}");
    pings(&a, "10.32.2.10");
    let flow = world
        .n1
        .sh("conntrack -L -s 10.32.1.10 -d 10.32.2.10 2>/dev/null");
    assert!(
        flow.contains("dst=10.32.1.10"),
        "masqueraded inside: {flow}"
    );
    drop(c);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn ipv6_leaves_with_the_nodes_address_too_and_stays_itself_inside() {
    let (world, a, _c) = World::with_a_pod_on_each();
    a.sh("ip -6 route add default via fd00:10:0:1::1");
    let outside = Netns::new();
    join(
        &world.n1,
        "out",
        "203.0.113.1/24",
        &outside,
        "eth0",
        "203.0.113.2/24",
    );
    world.n1.sh("ip -6 addr add 2001:db8::1/64 dev out nodad");
    outside.sh("ip -6 addr add 2001:db8::2/64 dev eth0 nodad");
    pings(&a, "2001:db8::2");
    let flows = |to: &str| {
        let list = format!("conntrack -L -f ipv6 -s fd00:10:0:1::a -d {to} 2>/dev/null");
        world.n1.sh(&list)
    };
    let flow = flows("2001:db8::2");
    assert!(flow.contains("dst=2001:db8::1"), "not masqueraded: {flow}");
    pings(&a, "fd00:10:0:2::a");
    let flow = flows("fd00:10:0:2::a");
    assert!(
        flow.contains("dst=fd00:10:0:1::a"),
        "masqueraded inside: {flow}"
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_ipv6_gateway_is_usable_at_once_and_believes_no_router() {
    let world = World::new();
    let read = |key: &str| world.n1.sh(&format!("cat /proc/sys/net/ipv6/conf/{key}"));
    world
        .n1
        .sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; \
         echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
    // Where IPv6 is off by default the first pass finds it so and switches it on.
    apply(&world.n1, input(1, &[]));
    settle(&world.n1, input(1, &[]));
    let gateway = world.n1.sh("ip -6 addr show dev weave scope global");
    assert!(gateway.contains("fd00:10:0:1::1/48"), "{gateway}");
    assert!(
        gateway.contains("nodad") && !gateway.contains("tentative"),
        "{gateway}"
    );
    assert_eq!(read("weave/accept_ra"), "0");
    assert_eq!(read("all/forwarding"), "1");
    // Forwarding would cost the node what it learned from its own routers.
    assert_eq!(read("eth0/accept_ra"), "2");
}

/// A pod without IPv4: its MAC is made of the low 32 bits of its IPv6 address.
#[test]
#[ignore = "needs root: own network namespaces"]
fn a_pod_with_ipv6_alone_is_reached_and_closed_to_ipv4() {
    let world = World::new();
    let only = |n: u8| {
        let address = ip(&format!("fd00:10:0:{n}::{n}77"));
        let port = PodPort {
            mac: MacAddr::of_pod(address),
            addresses: BTreeSet::from([address]),
        };
        let mut input = input(n, &[]);
        input.pods = [(IfName::parse("vethwepl0000077").unwrap(), port)].into();
        input
    };
    let plug = |node: &Netns, n: u8| {
        let pod = Netns::new();
        node.sh(&format!(
            "ip link add vethwepl0000077 type veth peer name eth0 netns {}; \
             ip link set vethwepl0000077 alias weft/{CLUSTER}/77 mtu 1450 master weave; \
             ip link set vethwepl0000077 up",
            pod.name()
        ));
        let mac = MacAddr::of_pod(ip(&format!("fd00:10:0:{n}::{n}77")));
        pod.sh(&format!(
            "ip link set eth0 address {mac} mtu 1450; \
             ip -6 addr add fd00:10:0:{n}::{n}77/48 dev eth0 nodad; ip link set eth0 up; \
             ip -6 route add default via fd00:10:0:{n}::1"
        ));
        pod
    };
    settle(&world.n1, only(1));
    settle(&world.n2, only(2));
    let (a, _b) = (plug(&world.n1, 1), plug(&world.n2, 2));
    settle(&world.n1, only(1));
    settle(&world.n2, only(2));
    for to in ["fd00:10:0:1::1", "fd00:10:0:2::277"] {
        pings(&a, to);
    }
    a.sh("ip addr add 10.32.1.77/12 dev eth0");
    never_pings(&a, "10.32.1.1");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn forward_policy_drop_does_no_harm() {
    let world = World::new();
    world
        .n1
        .sh("iptables-nft -P FORWARD DROP; ip6tables-nft -P FORWARD DROP");
    world.n2.sh("iptables-nft -P FORWARD DROP; iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p icmp -j ACCEPT");
    settle(&world.n1, input(1, &["10.32.1.10", "10.32.1.11"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let _b = plug(&world.n1, "10.32.1.11");
    let _c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10", "10.32.1.11"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    for to in ["10.32.1.11", "10.32.2.10", "192.0.2.2"] {
        pings(&a, to);
    }
}
