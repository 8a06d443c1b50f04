//! The rules say what the evaluator says: the table, and random clusters.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use weft_netfilter::Family;
use weft_policy::cases::{self, Tally};
use weft_policy::evaluate;

use super::judge::{Engines, node};
use super::random::{clusters, packet};
use crate::{NodeView, compile};

#[test]
fn every_case_holds_for_the_rules() {
    let mut failures = Vec::new();
    let mut tally = Tally::default();
    for case in cases::all() {
        case.play(|index, _, expectation| {
            tally.judged(&case, expectation);
            let packet = &expectation.packet;
            let model = index.model();
            let mut node = node();
            if !expectation.closed {
                // Some cases send from addresses that nobody has.
                node.also_known = BTreeSet::from([packet.source]);
            }
            let closes = node.closes(&model, packet);
            let allowed = evaluate(&model, packet).is_allowed();
            assert_eq!(allowed && !closes, expectation.allowed, "{expectation}");
            assert!(!expectation.closed || allowed && closes, "{expectation}");
            let engines = Engines::new(&model, &node);
            let dropped = engines.dropped_from(expectation.source_port, packet);
            assert_eq!(dropped, [!expectation.allowed; 2], "{expectation}");
            if let Some(why) = engines.disagree(packet) {
                let cases::Case { number, clause, .. } = case;
                failures.push(format!("{number} {clause}: {expectation}\n{why}"));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    // The tracers judge every packet there is, so no row and no reason to leave one out.
    assert!(tally.packets() > 700, "{tally}");
    assert!(tally.reasons().is_empty(), "{tally}");
    assert_eq!(tally.one_sided(), [1]);
}

#[test]
fn every_case_holds_on_a_node_of_one_family() {
    let mut judged = 0;
    for case in cases::all() {
        case.play(|index, _, expectation| {
            judged += 1;
            let packet = &expectation.packet;
            let view = NodeView {
                families: BTreeSet::from([Family::of(&packet.source)]),
                also_known: BTreeSet::from([packet.source]),
                ..node()
            };
            let model = index.model();
            let why = Engines::new(&model, &view).disagree(packet);
            assert_eq!(why, None, "{expectation}");
        });
    }
    assert!(judged > 700, "only {judged} packets");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// For random clusters, policies and packets. That the random ones get everywhere is said by
    /// `random_clusters_reach_every_corner`.
    #[test]
    fn random_rules_agree_with_the_evaluator(
        cluster in clusters(),
        packets in prop::collection::vec(packet(), 40),
    ) {
        let (model, node) = (cluster.index().model(), node());
        let engines = Engines::new(&model, &node);
        for packet in &packets {
            if let Some(why) = engines.disagree(packet) {
                prop_assert!(false, "{why}\n{model:#?}");
            }
        }
    }

    /// I1, to the last byte: order, repetition and relists of events do not matter.
    #[test]
    fn random_events_in_any_order_give_the_same_rules(
        cluster in clusters(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
        relist in any::<prop::sample::Index>(),
    ) {
        let rules = |index: &weft_policy::Index| compile(&index.model(), &node());
        let expected = rules(&cluster.index());
        let mut pending = cluster.events();
        let mut done = Vec::new();
        let mut index = weft_policy::Index::new(cases::NODE);
        for (i, choice) in order.iter().enumerate() {
            if i == relist.index(order.len()) {
                cluster.relist(&mut index);
            }
            if pending.is_empty() || i % 5 == 4 && !done.is_empty() {
                cluster.happen(&mut index, done[choice.index(done.len())]);
            } else {
                let event = pending.swap_remove(choice.index(pending.len()));
                cluster.happen(&mut index, event);
                done.push(event);
            }
        }
        for event in pending {
            cluster.happen(&mut index, event);
        }
        prop_assert_eq!(rules(&index), expected.clone());
        cluster.relist(&mut index);
        prop_assert_eq!(rules(&index), expected);
    }
}

/// The long form (E45).
#[test]
#[ignore = "takes minutes: 100,000 random objects"]
fn a_hundred_thousand_random_objects_are_judged_alike_by_every_engine() {
    let mut runner = TestRunner::deterministic();
    let (mut objects, mut packets, mut wrong) = (0, 0, Vec::new());
    while objects < 100_000 {
        let cluster = clusters()
            .new_tree(&mut runner)
            .expect("a cluster")
            .current();
        objects += cluster.events().len();
        let (model, node) = (cluster.index().model(), node());
        let engines = Engines::new(&model, &node);
        for _ in 0..20 {
            let packet = packet().new_tree(&mut runner).expect("a packet").current();
            packets += 1;
            wrong.extend(engines.disagree(&packet));
        }
    }
    println!(
        "{objects} objects, {packets} packets, {} mismatches",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
