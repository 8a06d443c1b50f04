use super::*;
#[cfg(feature = "trace")]
use crate::backend::tests::traced;
use crate::{
    backend::tests::{now, ruleset},
    fake::FakeKernel,
};

fn owner() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

#[test]
fn the_first_sync_reads_and_later_ones_remember() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    let first = now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    assert!(first.read_back && first.rules);
    let second = now(backend.sync(&ruleset(&["10.0.0.1", "10.0.0.2"]))).expect("synced");
    assert_eq!(
        second,
        Done {
            plan: "# ipset restore\nadd weft-npc-in 10.0.0.2\n".to_owned(),
            steps: 1,
            rules: false,
            read_back: false,
        }
    );
    let third = now(backend.sync(&ruleset(&["10.0.0.1", "10.0.0.2"]))).expect("synced");
    assert!(!third.changed());
}

#[test]
fn after_a_failure_the_next_sync_reads_back() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    backend.tools_mut().fail_after(1);
    let desired = ruleset(&["10.0.0.2", "10.0.0.3"]);
    let error = now(backend.sync(&desired)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ipset restore: ipset v7.17: Error in line 2: Kernel error received: Device or resource \
         busy (at: add weft-npc-in 10.0.0.3)"
    );
    let done = now(backend.sync(&desired)).expect("synced");
    assert!(done.read_back);
    let (_, _, elements) = now(backend.read()).expect("read").size();
    assert_eq!(elements, 2);
}

#[test]
fn drift_is_what_a_verification_changes() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    let desired = ruleset(&["10.0.0.1"]);
    now(backend.sync(&desired)).expect("synced");
    assert!(!now(backend.verify(&desired)).expect("verified").changed());
    let kernel = backend.tools_mut();
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .clear();
    assert!(!now(backend.sync(&desired)).expect("synced").changed());
    assert!(now(backend.verify(&desired)).expect("verified").changed());
    assert!(!now(backend.verify(&desired)).expect("verified").changed());
}

#[test]
fn sizes_are_those_of_the_sets_that_rules_look_up() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    assert_eq!(backend.set_sizes(), BTreeMap::new());
    let sizes = |name: &str, size| BTreeMap::from([(name.to_owned(), size)]);
    now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    assert_eq!(backend.set_sizes(), sizes("weft-npc-in", 1));
    // Together with a rule a set changes by its twin.
    let mut desired = ruleset(&["10.0.0.2", "10.0.0.3"]);
    if let Some(table) = desired.tables.get_mut(&Family::V4) {
        let chain = table.chains.values_mut().next().expect("a chain");
        chain
            .rules
            .push(crate::Rule::new([], crate::Verdict::Return));
    }
    now(backend.sync(&desired)).expect("synced");
    assert_eq!(backend.set_sizes(), sizes("weft-npc-in.b", 2));
    backend.tools_mut().fail_after(0);
    now(backend.verify(&Ruleset::default())).unwrap_err();
    assert_eq!(backend.set_sizes(), BTreeMap::new());
}

#[test]
fn a_set_that_the_kernel_holds_for_a_moment_is_destroyed_later() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    now(backend.sync(&ruleset(&["10.0.0.1"]))).expect("synced");
    // Somebody's rule looks the set up.
    backend
        .tools_mut()
        .chain_mut(Family::V4, TableName::Filter, "THEIRS")
        .push("-m set --match-set weft-npc-in src -j DROP".to_owned());
    now(backend.sync(&Ruleset::default())).expect("synced");
    assert_eq!(backend.tools_mut().sets().len(), 1);
    backend
        .tools_mut()
        .chain_mut(Family::V4, TableName::Filter, "THEIRS")
        .clear();
    now(backend.sync(&Ruleset::default())).expect("synced");
    assert_eq!(backend.tools_mut().sets().len(), 0);
}

#[test]
fn an_impossible_ruleset_is_refused_and_nothing_written() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    let mut desired = ruleset(&["10.0.0.1"]);
    if let Some(table) = desired.tables.get_mut(&Family::V4) {
        table.sets.clear();
    }
    let before = backend.tools_mut().clone();
    assert_eq!(now(backend.sync(&desired)).unwrap_err().class(), "invalid");
    assert_eq!(*backend.tools_mut(), before);
}

#[test]
fn rules_are_in_force_while_jumps_lead_to_some_whatever_they_say() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    let desired = ruleset(&["10.0.0.1"]);
    assert_eq!(now(backend.in_force(&desired)), Ok(false));
    now(backend.sync(&ruleset(&["10.0.0.2"]))).expect("synced");
    assert_eq!(now(backend.in_force(&desired)), Ok(true));
    let there = backend.tools_mut().clone();
    let chain = |backend: &mut Iptables<FakeKernel>, name: &str, rules: &[&str]| {
        *backend.tools_mut() = there.clone();
        let kernel = backend.tools_mut();
        let chain = kernel.chain_mut(Family::V4, TableName::Filter, name);
        *chain = rules.iter().map(|rule| (*rule).to_owned()).collect();
        now(backend.in_force(&desired))
    };
    assert_eq!(chain(&mut backend, "FORWARD", &[]), Ok(false));
    assert_eq!(chain(&mut backend, "WEFT-NPC", &[]), Ok(false));
    // Of another version.
    let odd = ["-m recent --set -j DROP"];
    assert_eq!(chain(&mut backend, "WEFT-NPC", &odd), Ok(true));
    assert_eq!(now(backend.in_force(&Ruleset::default())), Ok(true));
}

#[cfg(feature = "trace")]
#[test]
fn a_packet_is_taken_through_what_the_kernel_holds_and_drift_is_told() {
    let mut backend = Iptables::new(owner(), FakeKernel::default());
    let wanted = ruleset(&["10.0.0.1"]);
    now(backend.sync(&wanted)).expect("synced");
    assert_eq!(traced(&mut backend, &wanted), (Some(true), vec![]));
    let right = backend.tools_mut().clone();
    let forward = |backend: &mut Iptables<FakeKernel>, rules: &[&str]| {
        let kernel = backend.tools_mut();
        let chain = kernel.chain_mut(Family::V4, TableName::Filter, "FORWARD");
        *chain = rules.iter().map(|rule| (*rule).to_owned()).collect();
    };
    forward(&mut backend, &[]);
    let (dropped, drift) = traced(&mut backend, &wanted);
    assert_eq!(dropped, Some(false));
    assert_eq!(drift[2..], ["-I FORWARD 1 -j WEFT-NPC", "COMMIT"]);
    // Somebody else decides before us, or behind us.
    forward(&mut backend, &["-j ACCEPT", "-j WEFT-NPC"]);
    let (dropped, drift) = traced(&mut backend, &wanted);
    assert_eq!((dropped, drift.is_empty()), (None, false));
    forward(&mut backend, &["-j WEFT-NPC", "-j ACCEPT"]);
    assert_eq!(traced(&mut backend, &wanted), (Some(true), vec![]));
    // A rule of ours that is not ours.
    let kernel = backend.tools_mut();
    *kernel = right;
    kernel
        .chain_mut(Family::V4, TableName::Filter, "WEFT-NPC")
        .insert(0, "-m tcp --tcp-flags SYN SYN -j ACCEPT".to_owned());
    let (dropped, drift) = traced(&mut backend, &wanted);
    assert_eq!((dropped, drift.is_empty()), (None, false));
}
