//! What somebody else does to the rules of a running npc is undone within a second.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_netfilter::nft;
use weft_testkit::eventually::eventually;

use crate::{
    node::{CLOSED, Node, OPEN},
    world::PATIENCE,
};

/// What is promised.
const PROMISE: Duration = Duration::from_secs(1);

/// Where the rules are, and how to look at all of them.
struct Place {
    policy: Value,
    look: Look,
}

/// Rules and sets, without counters.
enum Look {
    /// What a script prints.
    Iptables(String),
    /// Objects of these tables.
    Nftables([&'static str; 2]),
}

impl Place {
    fn iptables(variant: &str) -> Self {
        let tool = variant.to_lowercase();
        let save = |version: &str| {
            format!(
                "ip{version}tables-{tool}-save -t filter | grep -v -e '^#' -e 'FORWARD.*-j ACCEPT' | \
                 sed 's/\\[.*//; s/ACCEPT $/-/; s/DROP $/-/; s/\\.b / /g'"
            )
        };
        // A set is not told from its twin.
        Self {
            policy: json!({"backend": "Iptables", "iptablesVariant": variant}),
            look: Look::Iptables(format!(
                "{}; {}; ipset save | sed -n 's/^add \\(weft-npc-[^ ]*\\)/\\1/p' | \
                 sed 's/\\.b / /' | sort -u",
                save(""),
                save("6")
            )),
        }
    }

    fn nftables() -> Self {
        Self {
            policy: json!({"backend": "Nftables"}),
            look: Look::Nftables(["inet weft", "bridge weft-npc"]),
        }
    }

    fn node(&self) -> Node {
        Node::new(&self.policy)
    }

    fn seen(&self, node: &Node) -> String {
        match &self.look {
            Look::Iptables(script) => node.world.ns.sh(script),
            Look::Nftables(tables) => tables
                .map(|table| {
                    // It may be away; its objects are listed in the order in which they were made.
                    let listed = node.world.ns.try_sh(&format!("nft -n list table {table}"));
                    format!("{table}: {:#?}", listed.map(|text| nft::read(&text)))
                })
                .concat(),
        }
    }

    /// Does each harm, and waits until nothing is seen of it, it was counted, and the closed pod is
    /// closed. Returns how long the slowest repair took, and of what.
    fn suffer(&self, node: &Node, harms: &[String]) -> (Duration, String) {
        let right = self.seen(node);
        assert!(right.contains("pod2"), "{right}");
        let mut slowest = (Duration::ZERO, String::new());
        for (count, harm) in (node.repairs() + 1..).zip(harms) {
            node.world.ns.sh(harm);
            let start = Instant::now();
            eventually(PATIENCE, || match (self.seen(node), node.repairs()) {
                (seen, counted) if seen == right && counted == count => Ok(()),
                (seen, counted) => Err(format!("{harm}: {counted} repairs of {count}\n{seen}")),
            });
            let took = start.elapsed();
            if took > slowest.0 {
                slowest = (took, harm.clone());
            }
            assert!(node.is_closed(), "after `{harm}`");
        }
        for family in 0..2 {
            assert!(node.reaches(OPEN, family), "family {family}");
        }
        slowest
    }

    /// What is not drift: nothing of ours changes, nothing is counted, and the closed pod is closed.
    fn ignore(&self, node: &Node, changes: &[&str]) {
        let (right, counted) = (self.seen(node), node.repairs());
        for change in changes {
            node.world.ns.sh(change);
            // As long as a repair may take, at least.
            let until = Instant::now() + PROMISE;
            while Instant::now() < until {
                assert!(node.is_closed(), "after `{change}`");
            }
            assert_eq!(self.seen(node), right, "after `{change}`");
            assert_eq!(node.repairs(), counted, "after `{change}`");
        }
    }
}

/// The bridge that hands nothing to any rule.
fn bridge_harms() -> Vec<String> {
    ["nf_call_iptables", "nf_call_ip6tables"]
        .map(|what| format!("ip link set weave type bridge {what} 0"))
        .into()
}

fn is_right(node: &Node) {
    let bridge = node.world.ns.sh("ip -d link show weave");
    for what in ["nf_call_iptables 1", "nf_call_ip6tables 1"] {
        assert!(bridge.contains(what), "{bridge}");
    }
}

/// Others set the node's sysctl as they like: the bridge itself says what it does.
const SYSCTL: [&str; 2] = [
    "sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
    "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
];

fn reported(node: &Node, slowest: &(Duration, String)) {
    // Room for a busy machine.
    assert!(slowest.0 < 2 * PROMISE, "{slowest:?}");
    assert!(node.notes("something else changed the rules") >= 1);
    // More than five repairs in a minute are a fight.
    assert!(node.world.metrics().contains("weft_npc_drift_contested 1"));
    assert_eq!(node.notes("again and again (5 repairs"), 1);
}

fn iptables(variant: &str) {
    let place = Place::iptables(variant);
    let node = place.node();
    let mut harms = bridge_harms();
    // Every set loses everything at once; what that opens and what it closes is repaired by twins.
    harms.push("ipset flush".to_owned());
    for (version, member, stranger) in [
        ("", "10.32.0.2", "10.32.0.9"),
        ("6", "fd10:32::2", "fd10:32::9"),
    ] {
        let tool = format!("ip{version}tables-{}", variant.to_lowercase());
        let set = format!("weft-npc-known-{}", if version == "6" { 6 } else { 4 });
        // The half that rules look up: the kernel may hold the other one for a moment.
        let in_use = format!("{tool}-save -t filter | grep -o '{set}[^ ]*' | head -n 1");
        let either = |what: &str, rest: &str| format!("ipset {what} $({in_use}) {rest}");
        harms.extend([
            format!("{tool} -F"),
            format!("{tool} -F WEFT-NPC"),
            format!("{tool} -F WEFT-NPC-DENY-I"),
            format!("{tool} -D FORWARD -j WEFT-NPC"),
            format!("{tool} -I FORWARD -j ACCEPT"),
            format!("{tool} -I WEFT-NPC -j ACCEPT"),
            either("flush", ""),
            either("del", member),
            either("add", stranger),
            "ipset flush".to_owned(),
            either("flush", ""),
        ]);
    }
    let slowest = place.suffer(&node, &harms);
    for version in ["", "6"] {
        let tool = format!("ip{version}tables-{}", variant.to_lowercase());
        // Theirs stays, behind ours.
        let rules = node.world.ns.sh(&format!("{tool} -S FORWARD"));
        let rules: Vec<&str> = rules.lines().skip(1).collect();
        assert_eq!(rules, ["-A FORWARD -j WEFT-NPC", "-A FORWARD -j ACCEPT"]);
        node.world.ns.sh(&format!("{tool} -D FORWARD -j ACCEPT"));
    }
    is_right(&node);
    reported(&node, &slowest);
    // The policy of FORWARD belongs to the host: ours neither needs nor changes it.
    let tool = variant.to_lowercase();
    let policy = |target: &str| {
        format!("iptables-{tool} -P FORWARD {target} && ip6tables-{tool} -P FORWARD {target}")
    };
    place.ignore(
        &node,
        &[&policy("DROP"), &policy("ACCEPT"), SYSCTL[0], SYSCTL[1]],
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_undone_at_once_with_iptables_nft() {
    iptables("Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_undone_at_once_with_iptables_legacy() {
    iptables("Legacy");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_undone_at_once_with_nftables() {
    let place = Place::nftables();
    let node = place.node();
    let mut harms = bridge_harms();
    harms.extend(
        [
            "nft flush ruleset",
            "nft delete table inet weft",
            "nft delete table bridge weft-npc",
            "nft flush table inet weft",
            "nft insert rule inet weft forward accept",
            "nft 'add chain inet weft forward { type filter hook forward priority -10; policy drop; }'",
        ]
        .map(str::to_owned),
    );
    for (family, member, stranger) in [
        ("4", "10.32.0.2", "10.32.0.9"),
        ("6", "fd10:32::2", "fd10:32::9"),
    ] {
        let element = |what: &str, set: &str, element: &str| {
            format!("nft '{what} element inet weft {set}-{family} {{ {element} }}'")
        };
        harms.extend([
            format!("nft flush chain inet weft WEFT-NPC-{family}"),
            format!("nft flush chain inet weft WEFT-NPC-DENY-I-{family}"),
            format!("nft flush set inet weft weft-npc-known-{family}"),
            element("delete", "weft-npc-known", member),
            element("add", "weft-npc-known", stranger),
            // The way to the closed pod's chain.
            element("delete", "WEFT-NPC-INGRESS", member),
        ]);
    }
    let slowest = place.suffer(&node, &harms);
    is_right(&node);
    reported(&node, &slowest);
    place.ignore(
        &node,
        &[
            SYSCTL[0],
            SYSCTL[1],
            "iptables-nft -P FORWARD DROP && iptables-nft -P FORWARD ACCEPT",
            // An accept ends the hook of its own table alone: ours is asked all the same.
            "nft 'add table inet other; add chain inet other early { type filter hook forward \
             priority -300; policy accept; }; add rule inet other early accept'",
            "iptables-nft -I FORWARD -j ACCEPT && ip6tables-nft -I FORWARD -j ACCEPT",
            // Who closes more than we do undoes nothing of ours.
            "nft add rule inet other early ip daddr 10.32.0.9 drop",
        ],
    );
}

/// Somebody undoes every repair, until told to stop.
fn fight(policy: &Value, harm: &str) {
    let node = Node::new(policy);
    let mut agent = node.world.ns.spawn(&format!(
        "sh -c 'while :; do {harm} >/dev/null 2>&1; sleep 0.02; done'"
    ));
    eventually(PATIENCE, || {
        match node.world.metrics().contains("weft_npc_drift_contested 1") {
            true => Ok(()),
            false => Err(node.repairs()),
        }
    });
    // Reports get rare, repairs do not: as long as it lasts each comes within two seconds (a second,
    // and room for a busy machine).
    let until = Instant::now() + 5 * PROMISE;
    while Instant::now() < until {
        let before = node.repairs();
        eventually(2 * PROMISE, || match node.repairs() {
            now if now > before => Ok(()),
            now => Err(now),
        });
    }
    assert_eq!(node.notes("again and again"), 1);
    assert!(node.notes("something else changed the rules") <= 4);
    // It ends, and what is closed stays closed.
    agent.kill().expect("killed");
    agent.wait().expect("waited for");
    eventually(2 * PROMISE, || match node.is_closed() {
        true => Ok(()),
        false => Err("open"),
    });
    for _ in 0..10 {
        assert!(!node.reaches(CLOSED, 0));
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_fight_is_reported_rarely_and_repaired_each_time_with_iptables() {
    let policy = json!({"backend": "Iptables", "iptablesVariant": "Nft"});
    fight(&policy, "iptables-nft -D FORWARD -j WEFT-NPC");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_fight_is_reported_rarely_and_repaired_each_time_with_nftables() {
    fight(
        &json!({"backend": "Nftables"}),
        "nft flush chain inet weft forward",
    );
}
