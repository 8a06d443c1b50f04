//! Two nodes in network namespaces: the fabric against the kernel.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use weft_crds::IptablesVariant;
use weft_fabric::{Input, PodPort, fabric};
use weft_netlink::{IfName, Kernel, MacAddr, Netlink, Owner};
use weft_router::kernel::{Applier, Outcome, PortTable, RuleTable, attachments};
use weft_testkit::{
    eventually::eventually,
    netns::{Netns, join},
};

const CLUSTER: &str = "netns-test";
const SHORTCUT_WRITTEN: &str = "write table netdev weft (vethwe-datapath <-> vxlan-6784)";
const GRACE: Duration = Duration::from_secs(5);

fn in_ns<T, F>(ns: &Netns, work: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    ns.run(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { work().await })
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Node `n` of two: underlay 192.0.2.n, gateway 10.32.n.1.
fn input(n: u8, pods: &[&str]) -> Input {
    let other = 3 - n;
    Input {
        cluster_id: CLUSTER.into(),
        node_uid: format!("node-{n}"),
        port: 6784,
        control_port: 6783,
        underlay: Ipv4Addr::new(192, 0, 2, n).into(),
        underlay_links: BTreeSet::from([IfName::parse("eth0").unwrap()]),
        underlay_mtu: 1500,
        mtu: None,
        pods_mtu: None,
        gateways: BTreeSet::from([
            IpAddr::from([10, 32, n, 1]),
            ip(&format!("fd00:10:0:{n}::1")),
        ]),
        pools: BTreeSet::from([
            "10.32.0.0/12".parse().unwrap(),
            "fd00:10::/48".parse().unwrap(),
        ]),
        peers: [(
            format!("n{other}"),
            BTreeSet::from([IpAddr::from([192, 0, 2, other])]),
        )]
        .into(),
        node_addresses: BTreeSet::from([IpAddr::from([192, 0, 2, n])]),
        masquerade: true,
        no_masquerade: BTreeSet::new(),
        pods: pods
            .iter()
            .map(|a| {
                let v4 = ip(a);
                let port = PodPort {
                    mac: MacAddr::of_pod(v4),
                    addresses: BTreeSet::from([v4, v6_of(v4)]),
                };
                (IfName::parse(&link_of(v4)).unwrap(), port)
            })
            .collect(),
    }
}

/// Every pod has a second address in fd00:10::/48.
fn v6_of(v4: IpAddr) -> IpAddr {
    let IpAddr::V4(a) = v4 else {
        panic!("{v4} is no IPv4 address")
    };
    let [_, _, c, d] = a.octets();
    ip(&format!("fd00:10:0:{c:x}::{d:x}"))
}

fn link_of(v4: IpAddr) -> String {
    let IpAddr::V4(a) = v4 else {
        panic!("{v4} is no IPv4 address")
    };
    let [_, b, c, d] = a.octets();
    format!("vethwepl0{b:02x}{c:02x}{d:02x}")
}

/// Applies the fabric once; every call is a router that has just started.
fn apply(ns: &Netns, input: Input) -> Outcome {
    in_ns(ns, move || async move {
        let kernel = Kernel::connect().unwrap();
        let mut rules = RuleTable::new(IptablesVariant::Nft);
        let mut applier = Applier::new(kernel, CLUSTER, "/proc/sys/net".into());
        let fabric = fabric(&input).unwrap();
        let ports = PortTable::new(true).apply(&fabric.ports, true).await;
        let observed = applier.observe().await.unwrap();
        let mut outcome = applier.apply(&observed, &fabric, true).await;
        outcome.changes.splice(..0, ports.unwrap());
        match rules.apply(&fabric.rules, true).await {
            Ok(change) => outcome.changes.extend(change),
            Err(why) => outcome.problems.push(why),
        }
        outcome
    })
}

#[track_caller]
fn settle(ns: &Netns, input: Input) -> Outcome {
    let outcome = apply(ns, input);
    assert!(outcome.is_complete(), "{outcome:#?}");
    outcome
}

/// What the CNI plugin does: a veth whose host end is a port of `weave`, set up last.
fn plug(node: &Netns, address: &str) -> Netns {
    let pod = Netns::new();
    let v4 = ip(address);
    let link = link_of(v4);
    let mac = MacAddr::of_pod(v4);
    let gateway = format!("10.32.{}.1", address.split('.').nth(2).unwrap());
    node.sh(&format!(
        "ip link add {link} type veth peer name eth0 netns {}; \
         ip link set {link} alias weft/{CLUSTER}/{link} mtu 1450 master weave; \
         ip link set {link} type bridge_slave learning off flood off hairpin on",
        pod.name()
    ));
    pod.sh(&format!(
        "ip link set eth0 address {mac} mtu 1450; ip addr add {address}/12 dev eth0; \
         ip -6 addr add {}/48 dev eth0 nodad; ip link set eth0 up; \
         ip route add default via {gateway}",
        v6_of(v4)
    ));
    node.sh(&format!("ip link set {link} up"));
    pod
}

struct World {
    n1: Netns,
    n2: Netns,
}

impl World {
    fn new() -> Self {
        let (n1, n2) = (Netns::new(), Netns::new());
        join(&n1, "eth0", "192.0.2.1/24", &n2, "eth0", "192.0.2.2/24");
        Self { n1, n2 }
    }
}

#[track_caller]
fn pings(from: &Netns, to: &str) {
    eventually(GRACE, || from.try_sh(&format!("ping -c 1 -W 1 {to}")));
}

#[track_caller]
fn never_pings(from: &Netns, to: &str) {
    let got = from.try_sh(&format!("ping -c 2 -i 0.2 -W 1 {to}"));
    assert!(got.is_err(), "{to} answered: {got:?}");
}

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

/// Ethernet frames made by hand, with a marker at the end.
mod frames {
    use std::{
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
        os::fd::AsRawFd,
        time::{Duration, Instant},
    };

    use nix::{
        errno::Errno,
        ifaddrs::getifaddrs,
        sys::{
            socket::{
                AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto,
                setsockopt, socket, sockopt::ReceiveTimeout,
            },
            time::TimeVal,
        },
    };
    use weft_netlink::MacAddr;
    use weft_testkit::netns::Netns;

    const MARKER: &[u8] = b"weft-test-marker-0123456789";

    /// Sends `frame` out of `from`'s eth0; does it arrive at `to`'s?
    pub(crate) fn arrives(from: &Netns, to: &Netns, frame: Vec<u8>) -> bool {
        let ear = to.run(|| {
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .unwrap();
            setsockopt(&fd, ReceiveTimeout, &TimeVal::new(0, 50_000)).unwrap();
            fd
        });
        let sent = frame.clone();
        from.run(move || {
            let to = getifaddrs()
                .unwrap()
                .filter(|i| i.interface_name == "eth0")
                .find_map(|i| i.address?.as_link_addr().copied())
                .unwrap();
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap();
            sendto(fd.as_raw_fd(), &frame, &to, MsgFlags::empty()).unwrap();
        });
        to.run(move || {
            let start = Instant::now();
            let mut buffer = [0; 2048];
            while start.elapsed() < Duration::from_millis(300) {
                match recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(n) if buffer[..n].ends_with(MARKER) => return true,
                    // br_netfilter cuts what stands behind an IPv6 packet.
                    Ok(n) if n >= 42 && sent.starts_with(&buffer[..n]) => return true,
                    Ok(_) | Err(Errno::EAGAIN) => {}
                    Err(e) => panic!("recv: {e}"),
                }
            }
            false
        })
    }

    pub(crate) fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [to.0, from.0].concat();
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame.extend(MARKER);
        frame
    }

    /// The same frame with an 802.1Q tag.
    pub(crate) fn tagged(frame: &[u8], tpid: u16) -> Vec<u8> {
        let mut out = frame[..12].to_vec();
        out.extend(tpid.to_be_bytes());
        out.extend([0, 7]);
        out.extend(&frame[12..]);
        out
    }

    pub(crate) fn udp4(from: Ipv4Addr, to: Ipv4Addr, sport: u16, dport: u16) -> Vec<u8> {
        let length = (28 + MARKER.len()) as u16;
        let mut p = vec![0x45, 0];
        p.extend(length.to_be_bytes());
        p.extend([0, 1, 0, 0, 64, 17, 0, 0]);
        p.extend(from.octets());
        p.extend(to.octets());
        let sum = p
            .chunks(2)
            .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
            .sum::<u32>();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        p[10..12].copy_from_slice(&sum.to_be_bytes());
        p.extend(sport.to_be_bytes());
        p.extend(dport.to_be_bytes());
        p.extend((length - 20).to_be_bytes());
        p.extend([0, 0]);
        p
    }

    pub(crate) fn arp(op: u8, hw: MacAddr, ip: IpAddr, target: IpAddr) -> Vec<u8> {
        let (IpAddr::V4(ip), IpAddr::V4(target)) = (ip, target) else {
            panic!("ARP is of IPv4")
        };
        let mut p = vec![0, 1, 8, 0, 6, 4, 0, op];
        p.extend(hw.0);
        p.extend(ip.octets());
        p.extend([0; 6]);
        p.extend(target.octets());
        p
    }

    /// An ICMPv6 message of neighbour discovery with one option; the marker counts as trailer.
    pub(crate) fn ndp(from: IpAddr, kind: u8, target: IpAddr, option: u8, hw: MacAddr) -> Vec<u8> {
        let (IpAddr::V6(from), IpAddr::V6(target)) = (from, target) else {
            panic!("NDP is of IPv6")
        };
        let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
        let mut icmp = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
        icmp.extend(target.octets());
        icmp.extend([option, 1]);
        icmp.extend(hw.0);
        let mut pseudo = [from.octets(), all_nodes.octets()].concat();
        pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        pseudo.extend(&icmp);
        let mut sum: u32 = pseudo
            .chunks(2)
            .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        let mut p = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
        p.extend(from.octets());
        p.extend(all_nodes.octets());
        p.extend(icmp);
        p
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn only_frames_with_the_ports_identity_pass() {
    use frames::{arp, arrives, ethernet, ndp, tagged, udp4};

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

#[test]
#[ignore = "needs root: own network namespaces"]
fn pods_leave_with_the_nodes_address_and_stay_themselves_inside() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
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
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let _c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
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

#[test]
#[ignore = "needs root: own network namespaces"]
fn damage_is_repaired_and_foreign_rules_are_left_alone() {
    let world = World::new();
    world.n1.sh("iptables-nft -N WEFTISH; iptables-nft -A WEFTISH -j RETURN; ipset create weft-rx hash:ip; iptables-nft -I FORWARD -j WEFTISH");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    for damage in [
        "ip link del weave",
        "ip link del vxlan-6784",
        "ip link del vethwe-bridge",
        "iptables-nft -t nat -F WEFT-NAT",
        "iptables-nft -D FORWARD -j WEFT-FORWARD",
        "nft delete table bridge weft",
        "nft delete table netdev weft",
        "sysctl -q -w net.ipv4.ip_forward=0",
        "bridge fdb del 00:00:00:00:00:00 dev vxlan-6784 dst 192.0.2.2",
    ] {
        world.n1.sh(damage);
        settle(&world.n1, input(1, &["10.32.1.10"]));
        let rest = settle(&world.n1, input(1, &["10.32.1.10"]));
        assert_eq!(
            rest.changes,
            ["write table bridge weft (1 ports)", SHORTCUT_WRITTEN],
            "after `{damage}`"
        );
    }
    world.n1.sh("iptables-nft -C WEFTISH -j RETURN; iptables-nft -C FORWARD -j WEFTISH; ipset list -n weft-rx");
}

/// Whether `datapath` itself has forwarded a frame with this source: then it learned it.
fn learned(node: &Netns, mac: MacAddr) -> bool {
    let fdb = node.sh("bridge fdb show br datapath");
    fdb.lines()
        .any(|l| l.starts_with(&mac.to_string()) && l.contains("master datapath"))
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn frames_go_straight_from_port_to_port_of_datapath_and_by_the_bridge_without_the_table() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let _c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let macs = ["10.32.1.10", "10.32.2.10"].map(|pod| MacAddr::of_pod(ip(pod)));
    pings(&a, "10.32.2.10");
    assert_eq!(macs.map(|mac| learned(&world.n1, mac)), [false; 2]);
    world.n1.sh("nft delete table netdev weft");
    pings(&a, "10.32.2.10");
    assert_eq!(macs.map(|mac| learned(&world.n1, mac)), [true; 2]);
}

/// Runs a script in the namespace of the calling thread.
#[allow(clippy::disallowed_methods, reason = "a test damages what it tests")]
fn here(script: &str) -> String {
    let shell = std::process::Command::new("sh")
        .args(["-ec", script])
        .output();
    let output = shell.unwrap();
    assert!(output.status.success(), "`{script}`: {output:?}");
    String::from_utf8(output.stdout).unwrap()
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
        // The second look learns how nft lists the table.
        done.push((pass(true).await, hooked()));
        for (damage, verify) in [
            ("ip link del vxlan-6784", false),
            ("ip link del vethwe-bridge", false),
            ("nft delete table netdev weft", true),
            ("nft flush chain netdev weft from-vxlan-6784", true),
        ] {
            here(damage);
            pass(verify).await;
            // Read back once more after each: the listing of the new table.
            done.push((pass(true).await, hooked()));
        }
        done
    });
    assert_eq!(done, [(true, true); 6]);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_foreign_weave_is_reported_and_never_touched() {
    let world = World::new();
    world.n1.sh(
        "ip link add weave type bridge; ip addr add 10.99.0.1/16 dev weave; ip link set weave up",
    );
    let look = "ip -4 -o addr show weave; ip -d link show weave | grep -o -e 'link/.*' -e 'nf_call.*'; \
                cd /proc/sys/net; cat ipv4/conf/weave/rp_filter ipv4/conf/weave/send_redirects \
                ipv4/neigh/weave/ucast_solicit ipv6/conf/weave/accept_ra";
    let before = world.n1.sh(look);
    let outcome = apply(&world.n1, input(1, &[]));
    assert_eq!(outcome.foreign.len(), 1, "{outcome:#?}");
    assert_eq!(
        outcome.foreign[0].to_string(),
        "there is a bridge named weave that weft did not make, weft needs the name for a bridge; \
         remove it (ip link delete weave) or rename it"
    );
    assert_eq!(world.n1.sh(look), before);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_restart_adopts_the_fabric_without_losing_a_packet() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    let a = plug(&world.n1, "10.32.1.10");
    let _c = plug(&world.n2, "10.32.2.10");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    settle(&world.n2, input(2, &["10.32.2.10"]));
    pings(&a, "10.32.2.10");
    let ping = a.spawn("ping -q -i 0.005 -c 400 10.32.2.10");
    for _ in 0..5 {
        settle(&world.n1, input(1, &["10.32.1.10"]));
        settle(&world.n2, input(2, &["10.32.2.10"]));
    }
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" 0% packet loss"), "{text}");
}

/// What of ours is left in a namespace; foreign things that must stay are named `foreign`.
/// What tells the garbage collector who lives: the links, by what they say of themselves.
#[test]
#[ignore = "needs root: own network namespaces"]
fn an_attachment_lives_as_long_as_a_link_says_so() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    let _a = plug(&world.n1, "10.32.1.10");
    let _b = plug(&world.n1, "10.32.1.11");
    let shown = || {
        in_ns(&world.n1, || async {
            let network = Kernel::connect().unwrap().dump().await.unwrap();
            let found = attachments(&network, &Owner::new(CLUSTER));
            found
                .into_iter()
                .map(|(id, link)| format!("{} {} {link}", id.container_id, id.ifname))
                .collect::<Vec<_>>()
        })
    };
    let (a, b) = (link_of(ip("10.32.1.10")), link_of(ip("10.32.1.11")));
    assert_eq!(shown(), [format!("{a} eth0 {a}"), format!("{b} eth0 {b}")]);
    world.n1.sh(&format!(
        "ip link set {a} down; ip link set {a} name other0; \
         ip link set {b} alias weft/another-cluster/{b}; \
         ip link add net1 type veth; ip link set net1 alias weft/{CLUSTER}/77/net1"
    ));
    assert_eq!(
        shown(),
        ["77 net1 net1".to_owned(), format!("{a} eth0 other0")]
    );
    world.n1.sh("ip link del other0");
    assert_eq!(shown(), ["77 net1 net1"]);
}

fn traces(ns: &Netns) -> String {
    ns.sh(
        "{ iptables-nft-save; ip6tables-nft-save; ipset list -n; nft list tables; \
         ip -o link | sed 's/link-netns [^ \\\\]*//'; } \
         | grep -i -e weft -e weave -e datapath -e vxlan -e foreign || true",
    )
}

fn clean(ns: &Netns, dir: &std::path::Path) {
    let paths = weft_router::args::Paths {
        config: dir.join("node.json"),
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        cni_conf_dir: dir.join("conf"),
        sysctl_dir: "/proc/sys/net".into(),
    };
    let args = weft_router::args::CleanupArgs {
        paths,
        bin_dir: dir.join("bin"),
    };
    in_ns(ns, move || async move {
        weft_router::cleanup::cleanup(&args).await.unwrap();
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn cleanup_leaves_nothing_of_ours_and_everything_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for sub in ["state", "run", "conf", "bin"] {
        std::fs::create_dir(file(sub)).unwrap();
    }
    let config = format!(r#"{{"clusterId":"{CLUSTER}","generation":1,"network":{{}}}}"#);
    std::fs::write(file("node.json"), config).unwrap();
    for name in [
        "state/ipam.log",
        "conf/10-weft.conflist",
        "bin/weft-cni",
        "bin/portmap",
    ] {
        std::fs::write(file(name), "").unwrap();
    }
    let world = World::new();
    world.n1.sh(
        "iptables-nft -N FOREIGN; iptables-nft -I FORWARD -j FOREIGN; ipset create foreign hash:ip; \
         ip link add foreign type veth peer name foreign1; \
         iptables-nft -N WEFT-NPC; iptables-nft -I FORWARD -j WEFT-NPC; ipset create weft-npc-x hash:ip; \
         nft add table inet weft",
    );
    let before = "foreign";
    settle(&world.n1, input(1, &["10.32.1.10"]));
    let pod = plug(&world.n1, "10.32.1.10");

    // With a pod: its link stays, and what its teardown needs.
    clean(&world.n1, dir.path());
    let left = traces(&world.n1);
    let ours: Vec<&str> = left
        .lines()
        .filter(|l| !l.to_lowercase().contains(before))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:#?}");
    assert!(ours[0].contains("vethwepl"), "{ours:#?}");
    let marker = std::fs::read_to_string(file("state/uninstalled")).unwrap();
    assert_eq!(marker, "/etc/cni/net.d\n");
    assert!(file("conf/10-weft.conflist").exists() && file("bin/weft-cni").exists());

    // Without: everything goes. Twice is as good as once.
    drop(pod);
    let link = link_of(ip("10.32.1.10"));
    eventually(GRACE, || {
        let gone = world.n1.try_sh(&format!("ip link show {link}"));
        gone.map_or(Ok(()), Err)
    });
    clean(&world.n1, dir.path());
    clean(&world.n1, dir.path());
    let left = traces(&world.n1);
    let ours: Vec<&str> = left
        .lines()
        .filter(|l| !l.to_lowercase().contains(before))
        .collect();
    assert_eq!(ours, [""; 0]);
    assert!(
        left.contains("FOREIGN") && left.contains("foreign1"),
        "{left}"
    );
    for name in [
        "state/ipam.log",
        "state/uninstalled",
        "conf/10-weft.conflist",
        "bin/weft-cni",
    ] {
        assert!(!file(name).exists(), "{name} is left");
    }
    assert!(file("bin/portmap").exists());
}
