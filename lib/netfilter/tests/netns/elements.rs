//! Elements of sets by netlink, beside what `ipset` does with the same lines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ipnet::IpNet;
use weft_netfilter::{
    Element, Family, Protocol, SetKind, SetName,
    backend::{ToolError, Tools},
    exec::{HostTools, NfSocket, Runner, Variant},
    plan::{SetOp, Step},
};
use weft_testkit::netns::Netns;

use crate::{set, wait};

/// A set of every kind and family, with three elements.
fn shapes() -> Vec<(SetName, SetOp, Vec<Element>)> {
    let mut shapes = Vec::new();
    for (family, nets) in [
        (Family::V4, ["10.1.0.0/16", "10.2.3.4/32", "128.0.0.0/1"]),
        (Family::V6, ["fd00:1::/64", "fd00::2/128", "8000::/1"]),
    ] {
        let nets = nets.map(|n| n.parse::<IpNet>().unwrap());
        for kind in [
            SetKind::Addr,
            SetKind::Net,
            SetKind::AddrPort,
            SetKind::NetPort,
        ] {
            let protocols = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
            let elements = nets
                .iter()
                .zip(protocols)
                .map(|(net, protocol)| match kind {
                    SetKind::Addr => Element::Addr(net.addr()),
                    SetKind::Net => Element::Net(*net),
                    SetKind::AddrPort => Element::AddrPort(net.addr(), protocol, 8080),
                    SetKind::NetPort => Element::NetPort(*net, protocol, 65535),
                });
            let name = set(&format!("t{}", shapes.len()));
            let create = SetOp::Create(name.clone(), family, kind);
            shapes.push((name, create, elements.collect()));
        }
    }
    shapes
}

/// The sets of a namespace, in an order of their own.
fn saved(ns: &Netns) -> String {
    ns.sh("ipset save | sed 's/ initval [^ ]*//; s/ hashsize [^ ]*//' | sort")
}

/// Lines through `ipset restore`.
fn restore(ns: &Netns, ops: &[SetOp]) {
    let text = Step::Sets(ops.to_vec()).text();
    ns.sh(&format!("printf '%s' '{text}' | ipset restore"));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn elements_of_every_kind_are_those_that_ipset_makes() {
    let (ours, theirs) = (Netns::new(), Netns::new());
    let creates: Vec<SetOp> = shapes().into_iter().map(|(_, create, _)| create).collect();
    restore(&ours, &creates);
    restore(&theirs, &creates);
    let adds = shapes().into_iter().flat_map(|(name, _, elements)| {
        let add = move |element| SetOp::Add(name.clone(), element);
        elements.into_iter().map(add)
    });
    let dels = shapes()
        .into_iter()
        .map(|(name, _, elements)| SetOp::Del(name, elements[1]));
    for ops in [adds.collect::<Vec<_>>(), dels.collect()] {
        restore(&theirs, &ops);
        let (lines, count) = (ops.clone(), ops.len());
        let done = ours.run(move || NfSocket::open().unwrap().change_elements(&lines));
        assert_eq!(done, count);
        assert_eq!(saved(&ours), saved(&theirs));
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_refused_element_stops_there_and_is_reported_in_the_tools_words() {
    let (ours, theirs) = (Netns::new(), Netns::new());
    let add =
        |set_name: &str, n: u8| SetOp::Add(set(set_name), Element::Addr([10, 0, 0, n].into()));
    let created = SetOp::Create(set("a"), Family::V4, SetKind::Addr);
    let missing = SetOp::Del(set("a"), Element::Addr([10, 0, 0, 9].into()));
    for (ops, line) in [
        (vec![add("a", 1), add("a", 7), add("a", 2)], 2),
        (vec![add("a", 3), missing, add("a", 4)], 2),
    ] {
        let change = |ns: &Netns, netlink: bool| -> Result<(), ToolError> {
            ns.sh("ipset destroy");
            restore(ns, &[created.clone(), add("a", 7)]);
            let (ops, name) = (ops.clone(), ns.name().to_owned());
            ns.run(move || {
                wait(async move {
                    let mut runner = Runner::default();
                    if !netlink {
                        runner.wrapper = ["ip", "netns", "exec", &name].map(str::to_owned).into();
                    }
                    let mut tools = HostTools::probe(runner, Variant::Nft).await.unwrap();
                    tools.ipset_change(&ops).await
                })
            })
        };
        let (by_netlink, by_tool) = (change(&ours, true), change(&theirs, false));
        assert_eq!(saved(&ours), saved(&theirs));
        let (by_netlink, by_tool) = (by_netlink.unwrap_err(), by_tool.unwrap_err());
        assert_eq!(by_netlink.line_number, Some(line));
        // Before its words the tool names the line of its own input.
        let words = |e: &ToolError| e.message.rsplit_once(": ").map(|(_, w)| w.to_owned());
        assert_eq!(
            (words(&by_netlink), by_netlink.line, by_netlink.class),
            (words(&by_tool), by_tool.line, by_tool.class)
        );
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_set_that_is_not_there_ends_a_change_behind_what_came_before() {
    let ns = Netns::new();
    restore(&ns, &[SetOp::Create(set("a"), Family::V4, SetKind::Addr)]);
    let add = |name: &str, n: u8| SetOp::Add(set(name), Element::Addr([10, 0, 0, n].into()));
    let ops = [add("a", 1), add("none", 2), add("a", 3)];
    let done = ns.run(move || NfSocket::open().unwrap().change_elements(&ops));
    assert_eq!(done, 1);
    assert_eq!(ns.sh("ipset list a | grep ^10."), "10.0.0.1");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_thousand_elements_are_changed_in_a_few_messages() {
    let ns = Netns::new();
    restore(&ns, &[SetOp::Create(set("a"), Family::V4, SetKind::Addr)]);
    let element = |n: u32| Element::Addr((0x0a00_0000_u32 + n).to_be_bytes().into());
    let adds: Vec<SetOp> = (0..1500)
        .map(|n| SetOp::Add(set("a"), element(n)))
        .collect();
    let dels: Vec<SetOp> = (0..1500)
        .map(|n| SetOp::Del(set("a"), element(n)))
        .collect();
    let count = "ipset list a | grep -c ^10. || true";
    let done = ns.run(move || NfSocket::open().unwrap().change_elements(&adds));
    assert_eq!((done, ns.sh(count).as_str()), (1500, "1500"));
    let done = ns.run(move || NfSocket::open().unwrap().change_elements(&dels));
    assert_eq!((done, ns.sh(count).as_str()), (1500, "0"));
}
