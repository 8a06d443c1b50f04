//! Two nodes, their pods, and a router that has just started.

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use weft_crds::IptablesVariant;
use weft_fabric::{Input, PodPort, fabric};
use weft_netlink::{IfName, Kernel, MacAddr};
use weft_router::kernel::{Applier, Outcome, PortTable, RuleTable};
use weft_testkit::{
    eventually::eventually,
    netns::{Netns, join},
};

pub(crate) const CLUSTER: &str = "netns-test";
pub(crate) const SHORTCUT_WRITTEN: &str =
    "write table netdev weft (vethwe-datapath <-> vxlan-6784)";
pub(crate) const GRACE: Duration = Duration::from_secs(5);

pub(crate) fn in_ns<T, F>(ns: &Netns, work: impl FnOnce() -> F + Send + 'static) -> T
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

/// Runs a script in the namespace of the calling thread.
#[allow(clippy::disallowed_methods, reason = "a test damages what it tests")]
pub(crate) fn here(script: &str) -> String {
    let shell = std::process::Command::new("sh")
        .args(["-ec", script])
        .output();
    let output = shell.unwrap();
    assert!(output.status.success(), "`{script}`: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Node `n` of two: underlay 192.0.2.n, gateway 10.32.n.1.
pub(crate) fn input(n: u8, pods: &[&str]) -> Input {
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
pub(crate) fn v6_of(v4: IpAddr) -> IpAddr {
    let IpAddr::V4(a) = v4 else {
        panic!("{v4} is no IPv4 address")
    };
    let [_, _, c, d] = a.octets();
    ip(&format!("fd00:10:0:{c:x}::{d:x}"))
}

pub(crate) fn link_of(v4: IpAddr) -> String {
    let IpAddr::V4(a) = v4 else {
        panic!("{v4} is no IPv4 address")
    };
    let [_, b, c, d] = a.octets();
    format!("vethwepl0{b:02x}{c:02x}{d:02x}")
}

/// Applies the fabric once; every call is a router that has just started.
pub(crate) fn apply(ns: &Netns, input: Input) -> Outcome {
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
pub(crate) fn settle(ns: &Netns, input: Input) -> Outcome {
    let outcome = apply(ns, input);
    assert!(outcome.is_complete(), "{outcome:#?}");
    outcome
}

/// What the CNI plugin does: a veth whose host end is a port of `weave`, set up last.
pub(crate) fn plug(node: &Netns, address: &str) -> Netns {
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

pub(crate) struct World {
    pub(crate) n1: Netns,
    pub(crate) n2: Netns,
}

impl World {
    pub(crate) fn new() -> Self {
        let (n1, n2) = (Netns::new(), Netns::new());
        join(&n1, "eth0", "192.0.2.1/24", &n2, "eth0", "192.0.2.2/24");
        Self { n1, n2 }
    }

    /// Two nodes in force, each with one pod in it: 10.32.1.10 and 10.32.2.10, in this order.
    pub(crate) fn with_a_pod_on_each() -> (Self, Netns, Netns) {
        let world = Self::new();
        let settle_both = || {
            settle(&world.n1, input(1, &["10.32.1.10"]));
            settle(&world.n2, input(2, &["10.32.2.10"]));
        };
        settle_both();
        let pods = ["10.32.1.10", "10.32.2.10"];
        let (a, c) = (plug(&world.n1, pods[0]), plug(&world.n2, pods[1]));
        settle_both();
        (world, a, c)
    }
}

#[track_caller]
pub(crate) fn pings(from: &Netns, to: &str) {
    eventually(GRACE, || from.try_sh(&format!("ping -c 1 -W 1 {to}")));
}

#[track_caller]
pub(crate) fn never_pings(from: &Netns, to: &str) {
    let got = from.try_sh(&format!("ping -c 2 -i 0.2 -W 1 {to}"));
    assert!(got.is_err(), "{to} answered: {got:?}");
}
