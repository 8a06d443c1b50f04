//! Marks of flows, beside what `conntrack` makes and sees.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use weft_netfilter::exec::{Flows, Marked};
use weft_testkit::netns::Netns;

const BIT: u32 = 0x0800_0000;

/// A namespace with a flow from each of `clients`, whose marks are their last bytes.
fn namespace(clients: &[&str]) -> Netns {
    let ns = Netns::new();
    for client in clients {
        let [server, mark] = match client.rsplit_once([':', '.']).unwrap() {
            ("fd00:", mark) => ["fd00::99", mark],
            (_, mark) => ["10.0.0.99", mark],
        };
        ns.sh(&format!(
            "conntrack -I -p tcp -s {client} -d {server} --sport 40000 --dport 80 \
             --state ESTABLISHED -t 600 -m {mark} 2>&1"
        ));
    }
    ns
}

/// Client and mark of every flow, as `conntrack` sees them.
fn marks(ns: &Netns) -> Vec<String> {
    let listed = ns.sh("(conntrack -L; conntrack -L -f ipv6) 2>/dev/null | sort -u");
    let mut marks: Vec<String> = listed
        .lines()
        .map(|line| {
            let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
            format!("{} {}", value("src=").unwrap(), value("mark=").unwrap())
        })
        .collect();
    marks.sort();
    marks
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_bit_is_set_and_cleared_and_others_stay() {
    let ns = namespace(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::4"]);
    let mark = |wants: fn(IpAddr) -> Option<bool>| {
        ns.run(move || {
            let flows = Flows::open().unwrap();
            flows.mark(BIT, |flow| wants(flow.original.source)).unwrap()
        })
    };
    let set = mark(|source| match source {
        client if client == address("10.0.0.1") || client == address("fd00::4") => Some(true),
        client if client == address("10.0.0.2") => Some(false),
        _ => None,
    });
    let done = |set, cleared| Marked {
        seen: 4,
        set,
        cleared,
    };
    assert_eq!(set, done(2, 0));
    let both = [
        format!("10.0.0.1 {}", BIT + 1),
        "10.0.0.2 2".to_owned(),
        "10.0.0.3 3".to_owned(),
        format!("fd00::4 {}", BIT + 4),
    ];
    assert_eq!(marks(&ns), both);
    // What is as it shall be is left alone.
    assert_eq!(
        mark(|source| Some(source.is_ipv6() || source == address("10.0.0.1"))),
        done(0, 0)
    );
    assert_eq!(mark(|_| Some(false)), done(0, 2));
    assert_eq!(
        marks(&ns),
        ["10.0.0.1 1", "10.0.0.2 2", "10.0.0.3 3", "fd00::4 4"]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_flow_that_ends_meanwhile_is_not_counted() {
    let ns = namespace(&["10.0.0.1", "10.0.0.2"]);
    let other = Netns::new();
    let delete = format!("ip netns exec {} conntrack -D -s 10.0.0.2 2>&1", ns.name());
    let marked = ns.run(move || {
        let flows = Flows::open().unwrap();
        flows.mark(BIT, |flow| {
            if flow.original.source == address("10.0.0.2") {
                other.sh(&delete);
            }
            Some(true)
        })
    });
    let expected = Marked {
        seen: 2,
        set: 1,
        cleared: 0,
    };
    assert_eq!(marked.unwrap(), expected);
    assert_eq!(marks(&ns), [format!("10.0.0.1 {}", BIT + 1)]);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn thousands_of_flows_are_marked_in_one_look() {
    let ns = Netns::new();
    ns.sh(
        "file=$(mktemp) && awk 'BEGIN { for (i = 0; i < 5000; i++) printf \"-I -t 3600 -p udp \
         -s 10.33.%d.%d -d 10.0.0.99 --sport 40000 --dport 53\\n\", i / 250, i % 250 + 1 }' > $file \
         && conntrack -R $file && rm $file",
    );
    let look = |wanted| ns.run(move || Flows::open().unwrap().mark(BIT, |_| Some(wanted)).unwrap());
    let expected = |set, cleared| Marked {
        seen: 5000,
        set,
        cleared,
    };
    assert_eq!(look(true), expected(5000, 0));
    assert_eq!(
        ns.sh(&format!("conntrack -L -m {BIT} 2>/dev/null | wc -l")),
        "5000"
    );
    assert_eq!(look(false), expected(0, 5000));
}
