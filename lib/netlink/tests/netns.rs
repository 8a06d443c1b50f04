//! The rtnetlink adapter against the kernel, in namespaces of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{future::Future, time::Duration};

use weft_netlink::{
    Address, Bridge, Desired, Events, FdbEntry, GROUP, IfName, Kernel, Kind, Link, MacAddr,
    Netlink, Network, Owner, Plan, Port, Route, Step, Vxlan, diff,
};
use weft_testkit::netns::Netns;

fn name(s: &str) -> IfName {
    IfName::parse(s).unwrap()
}

fn owner() -> Owner {
    Owner::new("netns-test")
}

/// Runs async work on a runtime whose sockets belong to the namespace.
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

async fn settle(kernel: &Kernel, desired: &Desired) -> Plan {
    let plan = diff(&kernel.dump().await.unwrap(), desired, &owner());
    for step in &plan.steps {
        kernel.apply(step).await.unwrap();
    }
    plan
}

fn link(kind: Kind) -> Link {
    Link {
        kind,
        alias: owner().fabric_alias(),
        group: GROUP,
        mac: None,
        mtu: Some(1400),
        up: Some(true),
        port: None,
    }
}

fn port(bridge: &str) -> Port {
    Port {
        bridge: name(bridge),
        learning: false,
        unicast_flood: false,
        hairpin: true,
    }
}

fn picture() -> Desired {
    let bridge = Kind::Bridge(Bridge {
        ageing: 300,
        multicast_snooping: false,
        nf_call_iptables: true,
        nf_call_ip6tables: true,
        nf_call_arptables: false,
    });
    let mut d = Desired::default();
    d.links.insert(
        name("br0"),
        Link {
            mac: Some(MacAddr([0x06, 0, 0, 0, 0, 1])),
            ..link(bridge)
        },
    );
    for (a, b) in [("va", "vb"), ("vb", "va")] {
        let mut end = link(Kind::Veth {
            peer: Some(name(b)),
        });
        end.port = (a == "va").then(|| port("br0"));
        d.links.insert(name(a), end);
    }
    d.links.insert(
        name("vx"),
        Link {
            port: Some(Port {
                learning: true,
                unicast_flood: true,
                hairpin: false,
                ..port("br0")
            }),
            ..link(Kind::Vxlan(Vxlan {
                vni: 6784,
                port: 6784,
                local: Some("192.0.2.1".parse().unwrap()),
                learning: true,
            }))
        },
    );
    for net in ["10.32.0.1/12", "fd00:10::1/64"] {
        d.addresses.insert(Address {
            link: name("br0"),
            net: net.parse().unwrap(),
        });
    }
    for net in ["10.64.0.0/16", "fd00:20::/64"] {
        d.routes.insert(Route {
            link: name("br0"),
            destination: net.parse().unwrap(),
        });
    }
    for remote in ["192.0.2.2", "192.0.2.3"] {
        d.fdb.insert(FdbEntry::Tunnel {
            link: name("vx"),
            mac: MacAddr::ZERO,
            remote: remote.parse().unwrap(),
        });
    }
    d.fdb.insert(FdbEntry::Port {
        link: name("va"),
        mac: MacAddr([0x0a, 0x58, 10, 32, 0, 9]),
    });
    d.neighbours.insert(weft_netlink::Neighbour {
        link: name("br0"),
        address: "10.32.0.9".parse().unwrap(),
        mac: MacAddr([0x0a, 0x58, 10, 32, 0, 9]),
    });
    d
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_kernel_takes_every_step_and_shows_it_back() {
    let ns = Netns::new();
    let (first, second, observed) = in_ns(&ns, || async {
        let kernel = Kernel::connect().unwrap();
        let first = settle(&kernel, &picture()).await;
        let observed = kernel.dump().await.unwrap();
        let second = settle(&kernel, &picture()).await;
        (first, second, observed)
    });
    assert!(!first.steps.is_empty());
    assert_eq!(second, Plan::default(), "second plan:\n{second}");
    let d = picture();
    assert_eq!(observed.fdb, d.fdb);
    assert_eq!(observed.routes, d.routes);
    assert_eq!(observed.neighbours, d.neighbours);
    let flood = ns.sh("bridge fdb show dev vx | grep 00:00:00:00:00:00 | sort");
    assert_eq!(
        flood,
        "00:00:00:00:00:00 dst 192.0.2.2 self permanent\n00:00:00:00:00:00 dst 192.0.2.3 self permanent"
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn every_foreign_change_is_undone() {
    let ns = Netns::new();
    in_ns(&ns, || async {
        let kernel = Kernel::connect().unwrap();
        settle(&kernel, &picture()).await;
    });
    for damage in [
        "ip link del vx",
        "ip link del va",
        "ip link del br0",
        "ip link set va down",
        "ip link set va nomaster",
        "ip link set va mtu 1300",
        "ip link set br0 address 02:00:00:00:00:07",
        "ip link set vx type bridge_slave learning off flood off",
        "ip link set br0 type bridge nf_call_iptables 0 ageing_time 100",
        "ip addr del 10.32.0.1/12 dev br0",
        "ip addr add 10.33.0.1/12 dev br0",
        "ip route del 10.64.0.0/16",
        "bridge fdb del 00:00:00:00:00:00 dev vx dst 192.0.2.3",
        "bridge fdb append 00:00:00:00:00:00 dev vx dst 192.0.2.9",
        "bridge fdb del 0a:58:0a:20:00:09 dev va master",
        "ip neigh del 10.32.0.9 dev br0",
        "ip link set vb alias ''",
    ] {
        ns.sh(damage);
        let (repair, rest) = in_ns(&ns, || async {
            let kernel = Kernel::connect().unwrap();
            let repair = settle(&kernel, &picture()).await;
            (repair, settle(&kernel, &picture()).await)
        });
        assert!(!repair.steps.is_empty(), "`{damage}` was not noticed");
        assert_eq!(rest, Plan::default(), "after `{damage}`:\n{rest}");
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_foreign_device_is_reported_and_left_alone() {
    let ns = Netns::new();
    ns.sh("ip link add br0 type veth peer name other; ip addr add 198.51.100.1/24 dev br0");
    let before = ns.sh("ip -d -j addr show br0");
    let plan = in_ns(&ns, || async {
        let kernel = Kernel::connect().unwrap();
        settle(&kernel, &picture()).await
    });
    assert_eq!(plan.foreign.len(), 1);
    assert_eq!(plan.foreign[0].found, "veth");
    assert_eq!(ns.sh("ip -d -j addr show br0"), before);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn errors_name_the_step_and_carry_the_errno() {
    let ns = Netns::new();
    let err = in_ns(&ns, || async {
        let kernel = Kernel::connect().unwrap();
        kernel
            .apply(&Step::DeleteLink(name("nothere")))
            .await
            .unwrap_err()
    });
    assert_eq!(err.action, "delete link nothere");
    assert_eq!(err.errno, Some(19));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_change_is_announced() {
    let ns = Netns::new();
    let seen = in_ns(&ns, || async {
        let kernel = Kernel::connect().unwrap();
        settle(&kernel, &picture()).await;
        let mut events = Events::subscribe().unwrap();
        kernel.apply(&Step::DeleteLink(name("vx"))).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), events.changed()).await
    });
    assert_eq!(seen, Ok(true));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn an_empty_namespace_dumps_loopback_only() {
    let ns = Netns::new();
    let observed: Network = in_ns(&ns, || async {
        Kernel::connect().unwrap().dump().await.unwrap()
    });
    // Tunnel modules of the kernel may add their fallback devices (sit0, ...).
    assert!(observed.links.contains_key(&name("lo")));
    assert!(observed.fdb.is_empty() && observed.routes.is_empty());
}
