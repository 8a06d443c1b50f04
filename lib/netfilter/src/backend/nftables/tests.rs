use super::*;
#[cfg(feature = "trace")]
use crate::backend::tests::traced;
use crate::{
    Family,
    backend::tests::{now, ruleset},
    fake::FakeNft,
};

fn backend() -> Nftables<FakeNft> {
    Nftables::new(Owned::new("weft", "weft-npc"), FakeNft::default())
}

#[test]
fn the_first_sync_reads_and_later_ones_remember() {
    let mut backend = backend();
    let first = now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    assert!(first.read_back && first.rules);
    let second = now(backend.sync(&ruleset(&["10.0.0.1", "10.0.0.2"]))).expect("synced");
    assert_eq!(
        second,
        Done {
            plan: "# nft -f -\nadd table inet weft\n\
                   add element inet weft weft-npc-in { 10.0.0.2 }\n"
                .to_owned(),
            steps: 1,
            rules: false,
            read_back: false,
        }
    );
    let third = now(backend.sync(&ruleset(&["10.0.0.1", "10.0.0.2"]))).expect("synced");
    assert!(!third.changed());
}

#[test]
fn a_failure_changes_nothing_and_the_next_sync_reads_back() {
    let mut backend = backend();
    now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    let before = backend.tool_mut().tables.clone();
    backend.tool_mut().fail_after(0);
    let error = now(backend.sync(&ruleset(&["10.0.0.2"]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nft -f -: Could not process rule: Interrupted system call"
    );
    assert_eq!(backend.tool_mut().tables, before);
    let done = now(backend.sync(&ruleset(&["10.0.0.2"]))).expect("synced");
    assert!(done.read_back && done.changed());
}

#[test]
fn a_start_adopts_what_is_there() {
    let mut backend = backend();
    let desired = ruleset(&["10.0.0.1"]);
    now(backend.sync(&desired)).expect("synced");
    let kernel = backend.tool_mut().clone();
    let mut next = Nftables::new(Owned::new("weft", "weft-npc"), kernel);
    assert!(!now(next.sync(&desired)).expect("synced").changed());
    assert_eq!(next.tool_mut().taken.len(), 1);
}

#[test]
fn drift_is_what_a_verification_changes() {
    type Spoil = fn(&mut FakeNft);
    let spoils: [Spoil; 6] = [
        |kernel| kernel.tables.clear(),
        |kernel| {
            let table = kernel.tables.get_mut("inet weft").expect("table");
            table
                .chains
                .values_mut()
                .for_each(|chain| chain.rules.clear());
        },
        |kernel| {
            let table = kernel.tables.get_mut("inet weft").expect("table");
            table.sets.values_mut().for_each(|set| set.elements.clear());
        },
        |kernel| {
            let table = kernel.tables.get_mut("inet weft").expect("table");
            let chain = table.chains.get_mut("forward").expect("chain");
            chain.rules.insert(0, "accept".to_owned());
        },
        |kernel| {
            let table = kernel.tables.get_mut("inet weft").expect("table");
            let chain = table.chains.get_mut("forward").expect("chain");
            chain.base = Some("type filter hook forward priority 5; policy accept;".to_owned());
        },
        |kernel| {
            let script = "add chain inet weft theirs\nadd rule inet weft theirs drop";
            kernel.run(script).expect("taken");
        },
    ];
    for spoil in spoils {
        let mut backend = backend();
        let desired = ruleset(&["10.0.0.1"]);
        now(backend.sync(&desired)).expect("synced");
        let good = backend.tool_mut().tables.clone();
        assert!(!now(backend.verify(&desired)).expect("verified").changed());
        spoil(backend.tool_mut());
        assert!(!now(backend.sync(&desired)).expect("synced").changed());
        assert!(now(backend.verify(&desired)).expect("verified").changed());
        assert_eq!(backend.tool_mut().tables, good);
        assert!(!now(backend.verify(&desired)).expect("verified").changed());
    }
}

#[test]
fn an_impossible_ruleset_is_refused_and_nothing_written() {
    let mut backend = backend();
    let mut desired = ruleset(&["10.0.0.1"]);
    if let Some(table) = desired.tables.get_mut(&Family::V4) {
        table.sets.clear();
    }
    assert_eq!(now(backend.sync(&desired)).unwrap_err().class(), "invalid");
    assert_eq!(*backend.tool_mut(), FakeNft::default());
}

#[test]
fn a_sweep_leaves_nothing_and_others_tables() {
    let mut backend = backend();
    backend
        .tool_mut()
        .run("add table inet other")
        .expect("taken");
    now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    assert!(now(backend.sweep()).expect("swept").changed());
    let left: Vec<&String> = backend.tool_mut().tables.keys().collect();
    assert_eq!(left, ["inet other"]);
    assert!(!now(backend.sweep()).expect("swept").changed());
}

#[test]
fn rules_are_in_force_while_the_base_chains_lead_to_some_whatever_they_say() {
    let mut backend = backend();
    let desired = ruleset(&["10.0.0.1"]);
    let other = ruleset(&["10.0.0.2"]);
    assert_eq!(now(backend.in_force(&desired)), Ok(false));
    now(backend.sync(&other)).expect("synced");
    assert_eq!(now(backend.in_force(&desired)), Ok(true));
    let there = backend.tool_mut().clone();
    for harm in [
        "flush chain inet weft forward\n",
        "flush chain inet weft WEFT-NPC-4\n",
        "delete table inet weft\n",
    ] {
        *backend.tool_mut() = there.clone();
        backend.tool_mut().run(harm).expect(harm);
        assert_eq!(now(backend.in_force(&desired)), Ok(false), "{harm}");
    }
    assert_eq!(now(backend.in_force(&Ruleset::default())), Ok(true));
}

#[cfg(feature = "trace")]
#[test]
fn a_packet_is_taken_through_what_the_kernel_holds_and_drift_is_told() {
    let mut backend = backend();
    let wanted = ruleset(&["10.0.0.1"]);
    now(backend.sync(&wanted)).expect("synced");
    assert_eq!(traced(&mut backend, &wanted), (Some(true), vec![]));
    let right = backend.tool_mut().tables.clone();
    for (script, dropped, drift) in [
        (
            "delete element inet weft weft-npc-in { 10.0.0.1 }\n\
             add element inet weft weft-npc-in { 10.9.0.1, 10.9.0.2, 10.9.0.3, 10.9.0.4 }\n",
            Some(false),
            "set weft-npc-in lacks 10.0.0.1 and holds 10.9.0.1, 10.9.0.2, 10.9.0.3 and 1 more",
        ),
        (
            "flush chain inet weft WEFT-NPC-4\n",
            Some(false),
            "chain WEFT-NPC-4 rule 1 is none, wanted is `ip daddr @weft-npc-in drop` (0 rules, \
             wanted are 1)",
        ),
        (
            "add rule inet weft WEFT-NPC-4 accept\n",
            None,
            "chain WEFT-NPC-4 rule 2 is `accept`, wanted is none (2 rules, wanted are 1)",
        ),
        (
            "add chain inet weft theirs\n",
            Some(true),
            "chain theirs is nothing of ours",
        ),
    ] {
        backend.tool_mut().run(script).expect("taken");
        assert_eq!(
            traced(&mut backend, &wanted),
            (dropped, vec![format!("table inet weft: {drift}")])
        );
        backend.tool_mut().tables.clone_from(&right);
    }
    backend.tool_mut().tables.clear();
    assert_eq!(
        traced(&mut backend, &wanted),
        (Some(false), vec!["table inet weft is missing".to_owned()])
    );
}
