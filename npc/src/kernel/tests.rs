use weft_netfilter::{
    Chain, ChainName, Family, Hook, HookJump, Position, Rule, Table, TableName, Verdict,
    fake::{FakeKernel, FakeNft},
};

use super::*;
use crate::cleanup::tests::host;

fn evidence(tables: &[&str], kube_proxy_in_iptables: bool) -> Evidence {
    Evidence {
        nft: true,
        iptables: true,
        tables: tables.iter().map(|table| (*table).to_owned()).collect(),
        kube_proxy_in_iptables,
        nftables_last: false,
    }
}

#[test]
fn auto_follows_kube_proxy() {
    let choose = |tables: &[&str], iptables| evidence(tables, iptables).choose();
    assert_eq!(choose(&["ip kube-proxy"], false), PolicyBackend::Nftables);
    assert_eq!(choose(&["ip6 kube-proxy"], false), PolicyBackend::Nftables);
    // What is left of another mode does not count: kube-proxy removes it.
    assert_eq!(choose(&["ip kube-proxy"], true), PolicyBackend::Nftables);
    assert_eq!(choose(&["ip filter"], true), PolicyBackend::Iptables);
    assert_eq!(choose(&["inet weft"], true), PolicyBackend::Iptables);
}

#[test]
fn auto_without_kube_proxy_keeps_what_is_in_force() {
    assert_eq!(
        evidence(&["inet weft"], false).choose(),
        PolicyBackend::Nftables
    );
    assert_eq!(evidence(&[], false).choose(), PolicyBackend::Iptables);
}

#[test]
fn auto_after_a_reboot_takes_what_was_before_it_until_kube_proxy_says_otherwise() {
    let after_reboot = |kube_proxy| Evidence {
        nftables_last: true,
        ..evidence(&[], kube_proxy)
    };
    assert_eq!(after_reboot(false).choose(), PolicyBackend::Nftables);
    assert_eq!(after_reboot(true).choose(), PolicyBackend::Iptables);
}

#[test]
fn auto_never_chooses_what_the_host_cannot_do() {
    let mut found = evidence(&["ip kube-proxy"], false);
    found.nft = false;
    assert_eq!(found.choose(), PolicyBackend::Iptables);
    let mut found = evidence(&[], true);
    found.iptables = false;
    assert_eq!(found.choose(), PolicyBackend::Nftables);
}

#[tokio::test]
async fn what_may_hold_our_rules_and_cannot_be_looked_at_is_no_empty_place() {
    let slow = "echo 'Resource temporarily unavailable' >&2; exit 1";
    for tool in ["nft", "iptables-nft-save", "ip6tables-legacy-save"] {
        let (runner, _dir) = host(tool, slow);
        let error = gather(&runner).await.expect_err(tool);
        assert!(error.tool.starts_with(tool), "{error}");
    }
    let ours = "echo ':WEFT-NPC - [0:0]'";
    let (runner, _dir) = host("ip6tables-legacy-save", ours);
    let (_, variants) = gather(&runner).await.expect("looked at");
    assert_eq!(variants, [Variant::Legacy]);
    let absent = "echo 'Address family not supported by protocol' >&2; exit 1";
    let (runner, _dir) = host("ip6tables-*", absent);
    assert_eq!(gather(&runner).await.expect("looked at").1, []);
}

#[tokio::test]
async fn sets_of_ours_that_are_left_are_found_where_there_is_ipset() {
    for (does, expected) in [
        ("echo weft-npc-known-4", true),
        ("echo weft-npcx", false),
        ("echo 'Cannot open session to kernel.' >&2; exit 1", false),
        ("echo 'Kernel error received: oh' >&2; exit 1", false),
    ] {
        let (runner, _dir) = host("ipset", does);
        assert_eq!(sets_remain(&runner).await, Ok(expected), "{does}");
    }
    let nowhere = Runner {
        wrapper: vec!["/proc".to_owned()],
        ..Runner::default()
    };
    let error = sets_remain(&nowhere).await.expect_err("not started");
    assert_eq!(error.class, "start");
}

/// Nothing is forwarded.
fn closed() -> Ruleset {
    let chain = ChainName::new("WEFT-NPC").expect("name");
    let table = Table {
        chains: [(
            chain.clone(),
            Chain::filter(vec![Rule::new([], Verdict::Drop)]),
        )]
        .into(),
        hooks: vec![HookJump {
            hook: Hook::Forward,
            to: chain,
            matches: vec![],
            position: Position::Top,
        }],
        ..Table::default()
    };
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

fn closed_by_iptables(kernel: &FakeKernel) -> bool {
    kernel
        .chain(Family::V4, TableName::Filter, "WEFT-NPC")
        .is_some()
}

#[tokio::test]
async fn iptables_is_swept_when_nftables_holds_the_rules_and_not_before() {
    let mut old = Iptables::new(owner(), FakeKernel::default());
    old.sync(&closed()).await.expect("synced");
    let mut new = Nftables::new(owned(), FakeNft::default());
    new.tool_mut().fail_after(0);
    let mut both = Successor::new(new, vec![old], None);
    both.sync(&closed()).await.expect_err("nft failed");
    assert!(closed_by_iptables(both.before[0].tools_mut()));
    both.sync(&closed()).await.expect("synced");
    assert!(both.before.is_empty());
    assert!(both.current.tool_mut().tables.contains_key("inet weft"));
}

#[tokio::test]
async fn nftables_is_swept_when_iptables_holds_the_rules_and_a_failure_is_tried_again() {
    let mut old = Nftables::new(owned(), FakeNft::default());
    old.sync(&closed()).await.expect("synced");
    old.tool_mut().fail_after(0);
    let new = Iptables::new(owner(), FakeKernel::default());
    let mut both = Successor::new(new, vec![old], None);
    both.sync(&closed()).await.expect_err("the sweep failed");
    assert!(closed_by_iptables(both.current.tools_mut()));
    assert_eq!(both.before.len(), 1);
    both.sync(&closed()).await.expect("synced");
    assert!(both.before.is_empty());
}
