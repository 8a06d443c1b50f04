//! The port table by netlink, beside what `nft` makes of the same rules.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use weft_fabric::{Change, Delta, PodPort, PortRules, TABLE_KEY};
use weft_netfilter::{
    exec::{Interest, Monitor, NfSocket, NftFamily},
    nfnetlink::{ElementChange, Transaction},
};
use weft_netlink::{IfName, MacAddr};
use weft_router::kernel::{Pods, PortTable, Ports};
use weft_testkit::netns::Netns;

use crate::world::{here, in_ns};

/// A pod: the longest and the shortest name of a port, one or two families.
fn pod(n: u8) -> (IfName, PodPort) {
    let name = if n.is_multiple_of(2) {
        format!("vethwepl{n}")
    } else {
        format!("vethwepl00000{n:02x}")
    };
    let v4 = IpAddr::from([10, 32, 0, n]);
    let mut addresses = BTreeSet::from([v4]);
    if n.is_multiple_of(3) {
        addresses.insert(format!("fd32::{n:x}").parse().unwrap());
    }
    let mac = MacAddr::of_pod(v4);
    (IfName::parse(&name).unwrap(), PodPort { mac, addresses })
}

fn rules(pods: impl IntoIterator<Item = u8>, nodes: &[&str]) -> PortRules {
    PortRules {
        ports: pods.into_iter().map(pod).collect(),
        nodes: nodes.iter().map(|a| a.parse().unwrap()).collect(),
        closed_udp: [6783, 6784].into(),
    }
}

/// The table as `nft` lists it, with the elements of each set in order.
fn listed(ns: &Netns) -> String {
    let listing = ns.sh("nft list table bridge weft");
    let mut out = String::new();
    let mut rest = listing.as_str();
    while let Some((before, behind)) = rest.split_once("elements = {") {
        let (inside, after) = behind.split_once('}').unwrap();
        let mut elements: Vec<String> = inside
            .split(',')
            .map(|e| e.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        elements.sort();
        out += &format!("{before}{{ {} }}", elements.join(", "));
        rest = after;
    }
    out + rest
}

/// The table as a whole write makes it.
fn whole(rules: &PortRules) -> String {
    let ns = Netns::new();
    let rules = rules.clone();
    in_ns(&ns, move || async move {
        PortTable::new(false).apply(&rules, false).await.unwrap();
    });
    listed(&ns)
}

/// Sends the delta by netlink, and nothing else.
fn commit(ns: &Netns, from: &PortRules, to: &PortRules) -> Result<(), String> {
    let Some(Delta::Elements(changes)) = to.delta(from) else {
        unreachable!("elements differ");
    };
    let changes: Vec<ElementChange> = changes.iter().map(Change::encode).collect();
    let (family, table) = TABLE_KEY;
    let transaction = Transaction::new(family, table, &changes).unwrap();
    ns.run(move || {
        let socket = NfSocket::open().unwrap();
        socket.commit(&transaction).map_err(|e| e.to_string())
    })
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_delta_by_netlink_makes_the_table_that_nft_writes() {
    let ns = Netns::new();
    let states = [
        rules([], &["192.0.2.1"]),
        rules([3], &["192.0.2.1", "2001:db8::1"]),
        rules([2, 3, 9], &["2001:db8::1"]),
        rules([2, 15], &["192.0.2.7", "2001:db8::1"]),
        rules([], &["192.0.2.7"]),
    ];
    let first = states[0].clone();
    in_ns(&ns, move || async move {
        PortTable::new(false).apply(&first, false).await.unwrap();
    });
    for pair in states.windows(2) {
        commit(&ns, &pair[0], &pair[1]).unwrap();
        assert_eq!(listed(&ns), whole(&pair[1]));
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let ns = Netns::new();
    let (empty, one, two) = (rules([], &[]), rules([3], &[]), rules([2, 3, 9], &[]));
    let base = one.clone();
    in_ns(&ns, move || async move {
        PortTable::new(false).apply(&base, false).await.unwrap();
    });
    // Pod 3 is there, so the batch that adds it among others is refused.
    let refused = commit(&ns, &empty, &two).unwrap_err();
    assert!(refused.contains("File exists"), "{refused}");
    assert_eq!(listed(&ns), whole(&one));
    // Pods 2 and 9 are not there.
    let refused = commit(&ns, &two, &empty).unwrap_err();
    assert!(refused.contains("No such file"), "{refused}");
    assert_eq!(listed(&ns), whole(&one));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn after_somebody_s_change_a_delta_still_ends_in_the_right_table() {
    let desired = rules([2, 3, 9], &["192.0.2.1"]);
    let expected = whole(&desired);
    for (change, next) in [
        (
            "nft delete table bridge weft",
            "write table bridge weft (3 ports)",
        ),
        (
            "nft flush set bridge weft port",
            "write table bridge weft (3 ports)",
        ),
        (
            "nft add element bridge weft v4 '{ \"vethwepl2\" . 0a:58:0a:20:00:02 . 10.32.0.2 }'",
            "change table bridge weft (3 ports)",
        ),
    ] {
        let ns = Netns::new();
        let mut table = in_ns(&ns, move || async move {
            let mut table = PortTable::new(true);
            let before = rules([3, 15], &["192.0.2.1"]);
            table.apply(&before, false).await.unwrap();
            table
        });
        ns.sh(change);
        let wanted = desired.clone();
        let said = in_ns(&ns, move || async move {
            table.apply(&wanted, false).await.unwrap()
        });
        assert_eq!(said.as_deref(), Some(next), "{change}");
        assert_eq!(listed(&ns), expected, "{change}");
    }
}

/// Opens the port of pod 3 for the MAC of pod 5; the listing before it is never seen by anybody.
const OPENED: &str =
    "nft add element bridge weft port '{ \"vethwepl0000003\" . 0a:58:0a:20:00:05 }'";

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_first_look_after_a_write_undoes_what_somebody_did_since() {
    let elsewhere = "nft add table ip elsewhere";
    let closed = "nft flush set bridge weft v4";
    let unjudged = "nft flush chain bridge weft prerouting";
    for netlink in [true, false] {
        // What is done after the whole table was written, and after a pod came.
        for (first, second) in [
            (None, None),
            (None, Some(OPENED)),
            (None, Some(closed)),
            (None, Some(unjudged)),
            (None, Some("nft delete table bridge weft")),
            (None, Some(elsewhere)),
            (Some(OPENED), None),
            (Some(unjudged), None),
            (Some(unjudged), Some(elsewhere)),
        ] {
            let ns = Netns::new();
            let done = in_ns(&ns, move || async move {
                let mut table = PortTable::new(netlink);
                table.apply(&rules([3], &[]), false).await.unwrap();
                first.map(here);
                let desired = rules([3, 9], &[]);
                table.apply(&desired, false).await.unwrap();
                second.map(here);
                table.apply(&desired, true).await.unwrap();
                // From here on the table is known.
                table.apply(&desired, true).await.unwrap()
            });
            let said = format!("netlink {netlink}, {first:?}, {second:?}");
            assert_eq!(done, None, "{said}");
            assert_eq!(listed(&ns), whole(&rules([3, 9], &[])), "{said}");
        }
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn without_others_a_look_writes_nothing() {
    let ns = Netns::new();
    let done = in_ns(&ns, || async {
        let mut table = PortTable::new(true);
        let mut done = Vec::new();
        for (pods, verify) in [(vec![3], false), (vec![3], true), (vec![3, 9], false)] {
            let desired = rules(pods, &[]);
            done.push(table.apply(&desired, verify).await.unwrap());
        }
        // A look, then another pod, and somebody who writes elsewhere behind a look.
        let desired = rules([3, 9], &[]);
        done.push(table.apply(&desired, true).await.unwrap());
        here("nft add table ip elsewhere");
        done.push(table.apply(&desired, true).await.unwrap());
        done
    });
    let said = |verb: &str, n: u8| Some(format!("{verb} table bridge weft ({n} ports)"));
    assert_eq!(
        done,
        [said("write", 1), None, said("change", 2), None, None]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn fifty_adds_at_once_and_passes_between_them_leave_every_port_open() {
    let ns = Netns::new();
    let base = rules([], &["192.0.2.1"]);
    in_ns(&ns, move || async move {
        let ports = Arc::new(Ports::new(PortTable::new(true)));
        let held: Arc<Mutex<Pods>> = Arc::default();
        let refused = ports.bring(Pods::default).await;
        assert!(refused.is_err(), "no port opens before the first pass");
        ports.write(&base, Pods::default, false).await.unwrap();
        ports.allow(Ok(&base)).await;
        let mut adds = tokio::task::JoinSet::new();
        for n in 1..=50 {
            let (ports, held, base) = (Arc::clone(&ports), Arc::clone(&held), base.clone());
            adds.spawn(async move {
                let (link, port) = pod(n);
                held.lock().unwrap().insert(link, port);
                let pods = || held.lock().unwrap().clone();
                ports.bring(pods).await.unwrap();
                if n.is_multiple_of(10) {
                    // A pass that began before any pod was there.
                    ports.write(&base, pods, true).await.unwrap();
                    ports.allow(Ok(&base)).await;
                }
            });
        }
        while let Some(done) = adds.join_next().await {
            done.unwrap();
        }
    });
    let all = rules(1..=50, &["192.0.2.1"]);
    assert_eq!(listed(&ns), whole(&all));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_change_of_ones_own_is_no_news_and_that_of_others_is() {
    let ns = Netns::new();
    let (news, foreign) = in_ns(&ns, || async {
        let mut table = PortTable::new(true);
        table.apply(&rules([3], &[]), false).await.unwrap();
        let own = table.netlink_port();
        assert!(own.is_some(), "there is a socket");
        let table_of_ports = Interest::default().in_table(NftFamily::Bridge, TABLE_KEY.1);
        let mut events = Monitor::subscribe(table_of_ports.but_of(own)).unwrap();
        // The kernel queues the events of a change before it acknowledges it: nothing comes later.
        let moment = Duration::from_millis(50);
        table.apply(&rules([3, 5], &[]), false).await.unwrap();
        let news = tokio::time::timeout(moment, events.changed()).await.ok();
        // Another socket is somebody else.
        let mut other = PortTable::new(true);
        other.apply(&rules([3, 5], &[]), false).await.unwrap();
        let limit = Duration::from_secs(10);
        let foreign = tokio::time::timeout(limit, events.changed()).await.ok();
        (news, foreign)
    });
    assert_eq!((news, foreign), (None, Some(true)));
}
