//! What may come in by a pod's port.

use std::{net::Ipv4Addr, time::Duration};

use weft_netlink::MacAddr;
use weft_testkit::netns::Netns;

use crate::world::*;

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_port_without_rules_is_closed() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let stranger = plug(&world.n1, "10.32.1.66");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    pings(&a, "10.32.1.1");
    never_pings(&stranger, "10.32.1.1");
    never_pings(&stranger, "10.32.1.10");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn spoofed_frames_are_dropped_at_the_port() {
    let world = World::new();
    let pods = ["10.32.1.10", "10.32.1.11"];
    settle(&world.n1, input(1, &pods));
    let a = plug(&world.n1, pods[0]);
    let _b = plug(&world.n1, pods[1]);
    settle(&world.n1, input(1, &pods));
    pings(&a, "10.32.1.11");

    // Another source address.
    a.sh("ip addr add 10.32.1.99/32 dev eth0");
    let got = a.try_sh("ping -c 2 -i 0.2 -W 1 -I 10.32.1.99 10.32.1.11");
    assert!(got.is_err(), "a spoofed source was answered: {got:?}");
    // Another source MAC.
    a.sh("ip link set eth0 address 0a:58:0a:20:01:63");
    never_pings(&a, "10.32.1.11");
    a.sh("ip link set eth0 address 0a:58:0a:20:01:0a");
    pings(&a, "10.32.1.11");
    // IPv6: another source, and a router advertisement's sender is no matter.
    a.sh("ip -6 addr add fd00:10:0:1::99/128 dev eth0 nodad");
    let got = a.try_sh("ping -c 2 -i 0.2 -W 1 -I fd00:10:0:1::99 fd00:10:0:1::b");
    assert!(got.is_err(), "a spoofed IPv6 source was answered: {got:?}");
    a.sh("ip -6 addr del fd00:10:0:1::99/128 dev eth0");
    pings(&a, "fd00:10:0:1::b");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn only_frames_with_the_ports_identity_pass() {
    use crate::frames::{arp, arrives, ethernet, ndp, tagged, udp4};

    let world = World::new();
    let pods = ["10.32.1.10", "10.32.1.11"];
    settle(&world.n1, input(1, &pods));
    let a = plug(&world.n1, pods[0]);
    let b = plug(&world.n1, pods[1]);
    settle(&world.n1, input(1, &pods));
    pings(&a, pods[1]);

    let (mac_a, mac_b) = (MacAddr::of_pod(ip(pods[0])), MacAddr::of_pod(ip(pods[1])));
    let other = MacAddr([0x0a, 0x58, 10, 32, 1, 99]);
    let all = MacAddr([0xff; 6]);
    let all_nodes = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
    let (a4, b4): (Ipv4Addr, Ipv4Addr) = ([10, 32, 1, 10].into(), [10, 32, 1, 11].into());
    let (a6, b6) = (v6_of(a4.into()), v6_of(b4.into()));
    let gateway = ip("10.32.1.1");
    let local = ip("fe80::858:aff:fe20:10a");
    let good = ethernet(mac_b, mac_a, 0x0800, &udp4(a4, b4, 1000, 2000));
    let zero = ip("0.0.0.0");
    let cases = [
        ("IPv4 of its own", true, good.clone()),
        ("802.1Q around it", false, tagged(&good, 0x8100)),
        ("802.1ad around it", false, tagged(&good, 0x88a8)),
        (
            "another source MAC",
            false,
            ethernet(mac_b, other, 0x0800, &udp4(a4, b4, 1000, 2000)),
        ),
        (
            "another source address",
            false,
            ethernet(
                mac_b,
                mac_a,
                0x0800,
                &udp4([10, 32, 1, 99].into(), b4, 1000, 2000),
            ),
        ),
        (
            "an answer of a DHCP server",
            false,
            ethernet(mac_b, mac_a, 0x0800, &udp4(a4, b4, 67, 68)),
        ),
        (
            "an unknown ethertype",
            false,
            ethernet(mac_b, mac_a, 0x88b5, &[0; 46]),
        ),
        (
            "ARP of its own",
            true,
            ethernet(all, mac_a, 0x0806, &arp(1, mac_a, a4.into(), b4.into())),
        ),
        (
            "an ARP probe",
            true,
            ethernet(all, mac_a, 0x0806, &arp(1, mac_a, zero, a4.into())),
        ),
        (
            "ARP for the gateway",
            false,
            ethernet(all, mac_a, 0x0806, &arp(2, mac_a, gateway, b4.into())),
        ),
        (
            "ARP with another sender MAC",
            false,
            ethernet(all, mac_a, 0x0806, &arp(2, other, a4.into(), b4.into())),
        ),
        (
            "NA of its own",
            true,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(a6, 136, a6, 2, mac_a)),
        ),
        (
            "NA from its link-local",
            true,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(local, 136, local, 2, mac_a)),
        ),
        (
            "NA for another target",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(a6, 136, b6, 2, mac_a)),
        ),
        (
            "NA with another MAC",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(a6, 136, a6, 2, other)),
        ),
        (
            "NS of its own",
            true,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(a6, 135, b6, 1, mac_a)),
        ),
        (
            "NS with another MAC",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(a6, 135, b6, 1, other)),
        ),
        (
            "NS from another source",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(b6, 135, a6, 1, mac_a)),
        ),
        (
            "a router advertisement",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(local, 134, a6, 1, mac_a)),
        ),
        (
            "a redirect",
            false,
            ethernet(all_nodes, mac_a, 0x86dd, &ndp(local, 137, a6, 1, mac_a)),
        ),
    ];
    let wrong: Vec<String> = cases
        .into_iter()
        .filter_map(|(what, wanted, frame)| {
            let got = arrives(&a, &b, frame);
            (got != wanted).then(|| format!("{what}: arrives {got}, should be {wanted}"))
        })
        .collect();
    assert_eq!(wrong, [""; 0]);
}

/// Policies judge by the addresses that the pod was given: what a pod says under, or to, an address
/// of another kind would pass all of them.
#[test]
#[ignore = "needs root: own network namespaces"]
fn link_local_addresses_are_for_neighbour_discovery_alone() {
    use crate::frames::{arrives, empty6, ethernet};

    let world = World::new();
    let pods = ["10.32.1.10", "10.32.1.11"];
    settle(&world.n1, input(1, &pods));
    let a = plug(&world.n1, pods[0]);
    let b = plug(&world.n1, pods[1]);
    settle(&world.n1, input(1, &pods));
    pings(&a, "fd00:10:0:1::b");

    let [mac_a, mac_b] = pods.map(|p| MacAddr::of_pod(ip(p)));
    let [a6, b6] = pods.map(|p| v6_of(ip(p)));
    let (local_a, local_b) = (ip("fe80::858:aff:fe20:10a"), ip("fe80::858:aff:fe20:10b"));
    for (from, to, passes) in [
        (a6, b6, true),
        (local_a, b6, false),
        (a6, local_b, false),
        (local_a, local_b, false),
    ] {
        let frame = ethernet(mac_b, mac_a, 0x86dd, &empty6(from, to));
        assert_eq!(arrives(&a, &b, frame), passes, "{from} to {to}");
    }
    never_pings(&a, "fe80::858:aff:fe20:10b%eth0");
    // Neighbour discovery starts from nothing again.
    a.sh("ip -6 neigh flush dev eth0");
    pings(&a, "fd00:10:0:1::b");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn pods_cannot_speak_to_the_fabric_ports_of_nodes() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &[]));
    let a = plug(&world.n1, "10.32.1.10");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    pings(&a, "192.0.2.2");
    for (ns, to) in [
        (&world.n1, "192.0.2.1"),
        (&world.n1, "10.32.1.1"),
        (&world.n2, "192.0.2.2"),
    ] {
        assert!(
            datagram_arrives(&a, ns, to, 6785),
            "{to}:6785 is no port of the fabric"
        );
        assert!(
            !datagram_arrives(&a, ns, to, 6783),
            "a pod reached {to}:6783"
        );
    }
    // Peers may, others may not, whatever they pretend to be.
    assert!(datagram_arrives(&world.n2, &world.n1, "192.0.2.1", 6783));
    world
        .n2
        .sh("ip addr add 192.0.2.77/24 dev eth0; ip route add 192.0.2.1 dev eth0 src 192.0.2.77");
    assert!(!datagram_arrives(&world.n2, &world.n1, "192.0.2.1", 6783));
}

/// Does one of three datagrams to `address:port` arrive at a socket in `to`?
fn datagram_arrives(from: &Netns, to: &Netns, address: &str, port: u16) -> bool {
    let ear = to.run(move || {
        let socket = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket
    });
    let target = format!("{address}:{port}");
    from.run(move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..3 {
            // Refused by an earlier one is an answer, too.
            let _ = socket.send_to(b"x", &target);
        }
    });
    ear.recv(&mut [0; 8]).is_ok()
}
