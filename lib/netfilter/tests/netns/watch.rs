//! What the monitor and the probe notice of a real kernel's changes.

use std::time::Duration;

use weft_netfilter::{
    Element, Family, Ruleset, Set, SetKind, Table,
    backend::Backend as _,
    exec::{Interest, Monitor, NftFamily, Probe, Variant},
};
use weft_testkit::netns::Netns;

use crate::{backend, chain, npc, runner, set, wait};

/// Long enough for an event that was sent already.
const SOON: Duration = Duration::from_millis(300);

fn ruleset(address: &str) -> Ruleset {
    let mut table = Table::default();
    let element = Element::Addr(address.parse().expect("address"));
    let known = Set::new(SetKind::Addr).containing([element]);
    table.sets.insert(set("weft-npc-known"), known);
    let rule = weft_netfilter::Rule::new(
        [weft_netfilter::Match::src_set(set("weft-npc-known"))],
        weft_netfilter::Verdict::Drop,
    );
    let filter = weft_netfilter::Chain::filter(vec![rule]);
    table.chains.insert(chain("WEFT-NPC"), filter);
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

/// The monitor's socket belongs to the namespace in which it is made.
fn monitored(ns: &Netns) -> bool {
    let inside = runner(ns);
    let name = ns.name().to_owned();
    ns.run(move || {
        wait(async move {
            let interest = Interest::default()
                .in_iptables(npc())
                .in_table(NftFamily::Inet, "weft");
            let mut monitor = Monitor::subscribe(interest).expect("netlink");
            let tools = weft_netfilter::exec::HostTools::probe(inside.clone(), Variant::Nft);
            let mut ours =
                weft_netfilter::backend::Iptables::new(npc(), tools.await.expect("tools"));
            let mut noticed = Vec::new();
            ours.sync(&ruleset("10.32.0.2")).await.expect("synced");
            noticed.push(tokio::time::timeout(SOON, monitor.changed()).await.is_ok());
            // Somebody else's business, then ours.
            for command in [
                "iptables-nft -N DOCKER",
                "iptables-nft -I FORWARD -j DOCKER",
                "nft add table inet other",
                "nft add table inet weft",
                "iptables-nft -F",
            ] {
                #[allow(clippy::disallowed_methods, reason = "tests run the tools")]
                let done = std::process::Command::new("ip")
                    .args(["netns", "exec", &name])
                    .args(command.split(' '))
                    .status();
                assert!(done.expect("ip").success(), "{command}");
                noticed.push(tokio::time::timeout(SOON, monitor.changed()).await.is_ok());
                while tokio::time::timeout(SOON / 10, monitor.changed())
                    .await
                    .is_ok()
                {}
            }
            assert_eq!(noticed, [false, false, true, false, true, true]);
        });
        true
    })
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_announced_and_our_own_are_not() {
    assert!(monitored(&Netns::new()));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_probe_sees_changes_of_legacy_rules_and_of_sets() {
    let ns = Netns::new();
    wait(async {
        let mut ours = backend(&ns, Variant::Legacy, npc()).await;
        ours.sync(&ruleset("10.32.0.2")).await.expect("synced");
    });
    let inside = runner(&ns);
    // Netlink speaks of the namespace in which its socket is made.
    let probe = move || {
        let mut probe = Probe::new(npc(), inside.clone(), Variant::Legacy);
        move || {
            wait(async {
                let rules = probe.rules().await.expect("rules");
                (rules, probe.sets().await.expect("sets"))
            })
        }
    };
    let look = {
        let ns = &ns;
        move || {
            let probe = probe();
            ns.run(probe)
        }
    };
    let (rules, sets) = look();
    assert_eq!(sets, [("weft-npc-known".to_owned(), 1)].into());
    ns.sh("iptables-legacy -N DOCKER; iptables-legacy -A DOCKER -j DROP; ipset create x hash:ip");
    assert_eq!(look(), (rules, sets.clone()));
    ns.sh("ipset flush weft-npc-known");
    assert_eq!(look(), (rules, [("weft-npc-known".to_owned(), 0)].into()));
    ns.sh("iptables-legacy -I FORWARD -j DOCKER");
    let (inserted, _) = look();
    assert_ne!(inserted, rules);
    ns.sh("iptables-legacy -D FORWARD -j DOCKER");
    assert_eq!(look().0, rules);
    ns.sh("iptables-legacy -F WEFT-NPC");
    assert_ne!(look().0, rules);
}
