//! The table is whole, its rows can fail, and the evaluator says what they say.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::evaluate;

#[test]
fn every_case_holds_for_the_evaluator() {
    let mut failures = Vec::new();
    let mut tally = Tally::default();
    for case in all() {
        case.play(|index, _, expectation| {
            if expectation.closed {
                let reason = "closed blocks are the compiler's";
                tally.skipped(&case, expectation, reason);
                return;
            }
            tally.judged(&case, expectation);
            let verdict = evaluate(&index.model(), &expectation.packet);
            if verdict.is_allowed() != expectation.allowed {
                let Case { number, clause, .. } = case;
                failures.push(format!(
                    "{number} {clause}\n    {expectation}\n    {verdict}"
                ));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tally.packets() > 700, "{tally}");
    let reasons: Vec<_> = tally.reasons().into_keys().collect();
    assert_eq!(reasons, ["closed blocks are the compiler's"], "{tally}");
}

#[test]
fn every_number_of_the_reference_has_a_row_or_a_reason() {
    let rows: BTreeSet<u8> = all().iter().map(|case| case.number).collect();
    let elsewhere: BTreeSet<u8> = ELSEWHERE.iter().map(|(number, ..)| *number).collect();
    assert_eq!(rows.intersection(&elsewhere).count(), 0);
    let covered: Vec<u8> = rows.union(&elsewhere).copied().filter(|n| *n > 0).collect();
    assert_eq!(covered, Vec::from_iter(1..=75));
}

#[test]
fn every_row_has_a_packet_that_passes_and_one_that_does_not() {
    let mut tally = Tally::default();
    for case in all() {
        case.play(|_, _, expectation| tally.judged(&case, expectation));
    }
    // Without a policy nothing is denied.
    assert_eq!(tally.one_sided(), [1]);
}

#[test]
fn every_line_is_played_in_both_families_but_for_these() {
    let lines: Vec<&str> = all().iter().flat_map(Case::of_one_family).collect();
    assert_eq!(
        lines,
        [
            "fd10:32::41 -> y/a tcp/80 v6 allow",
            "outside -> x/a icmp/2 v6 related allow",
            "y/a -> x/a icmp/135 v6 allow",
            "x/a -> y/a icmp/136 v6 allow",
            "x/a -> node icmp/133 v6 allow",
            "x/a -> ff02::16 icmp/143 v6 allow",
            "y/a -> x/a icmp/138 v6 deny",
            "y/a -> x/a icmp/135 deny",
            "x/a -> 255.255.255.255@y/a udp/67 allow",
            "z/b -> ff02::fb@y/a udp/5353 v6 deny",
            "z/b -> ff02::fb@y/b udp/5353 v6 allow",
        ]
    );
    let mut families = BTreeMap::new();
    for case in all() {
        case.play(|_, _, expectation| {
            *families
                .entry(expectation.packet.source.is_ipv6())
                .or_insert(0_usize) += 1;
        });
    }
    assert!(
        families[&false] > 350 && families[&true] > 350,
        "{families:?}"
    );
}

#[test]
fn a_case_fails_when_its_policies_are_missing() {
    let mut denied = 0;
    let mut without = BTreeSet::new();
    for case in all() {
        let before = denied;
        case.play(|_, cluster, expectation| {
            let open = Cluster {
                policies: BTreeMap::new(),
                ..cluster.clone()
            };
            let verdict = evaluate(&open.index().model(), &expectation.packet);
            denied += usize::from(!expectation.allowed && verdict.is_allowed());
        });
        if denied == before {
            without.insert((case.number, case.clause));
        }
    }
    assert!(denied > 300, "only {denied} denials depend on a policy");
    // No policy at all; and what denies is that the pod is not known yet.
    let without: Vec<u8> = without.iter().map(|(number, _)| *number).collect();
    assert_eq!(without, [0, 1]);
}

#[test]
fn a_case_fails_when_every_pod_is_isolated_and_nothing_is_allowed() {
    let closed: Vec<_> = ["w", "x", "y", "z"]
        .into_iter()
        .map(|namespace| {
            let spec = "{podSelector: {}, policyTypes: [Ingress, Egress]}";
            stage::policy(&format!("{namespace}/closed"), spec)
        })
        .collect();
    let mut without = BTreeSet::new();
    for case in all() {
        let mut refused = 0;
        case.play(|_, cluster, expectation| {
            let mut index = cluster.index();
            index.reset_network_policies(&closed);
            let verdict = evaluate(&index.model(), &expectation.packet);
            refused += usize::from(expectation.allowed && !verdict.is_allowed());
        });
        if refused == 0 {
            without.insert(case.number);
        }
    }
    // What no policy can deny: errors and discovery, replies, the own node, the pod itself.
    assert_eq!(Vec::from_iter(without), [50, 53, 54, 62, 64]);
}

#[test]
fn events_and_a_fresh_list_give_the_same_model() {
    let mut compared = 0;
    for case in all() {
        case.play(|index, cluster, expectation| {
            // What the API no longer has, a fresh start cannot know.
            if expectation.up_to_date && !index.remembers() {
                compared += 1;
                let fresh = cluster.index().model();
                assert_eq!(index.model(), fresh, "{expectation}");
            }
        });
    }
    assert!(compared > 700, "only {compared} moments compared");
}
