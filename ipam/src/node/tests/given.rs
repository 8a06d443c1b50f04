//! Who gets which address, and when it comes back.

use super::*;
use crate::node::{
    Counts, Reservation, ReserveError,
    reserve::{FixedProblem, Shortage},
};

#[test]
fn addresses_are_given_in_order_without_gateway_and_reserved_ones() {
    let mut node = node();
    let given: Vec<String> = (0..6)
        .map(|n| node.reserve(&v4(&n.to_string()), 100).unwrap().addresses[0].to_string())
        .collect();
    assert_eq!(
        given,
        [
            "10.32.0.2",
            "10.32.0.3",
            "10.32.0.4",
            "10.32.0.5",
            "10.32.0.6",
            "10.32.0.7"
        ]
    );
    let Err(ReserveError::NoRoom { reasons }) = node.reserve(&v4("x"), 100) else {
        panic!()
    };
    assert_eq!(
        reasons,
        [Shortage::Full {
            pool: "default".into(),
            family: Family::V4,
            used: 6,
            cooling: 0
        }]
    );
}

#[test]
fn the_same_container_gets_the_same_answer_and_another_pod_does_not_get_it() {
    let mut node = node();
    let first = node.reserve(&v4("a"), 100).unwrap();
    assert_eq!(node.reserve(&v4("a"), 200).unwrap(), first);
    let mut other = v4("a");
    other.pod.uid = "somebody else".into();
    assert!(matches!(
        node.reserve(&other, 100),
        Err(ReserveError::OtherPod { .. })
    ));
    let second_interface = Request {
        id: Attachment {
            ifname: "net1".into(),
            ..id("a")
        },
        ..v4("a")
    };
    assert_ne!(
        node.reserve(&second_interface, 100).unwrap().addresses,
        first.addresses
    );
}

#[test]
fn both_families_or_none() {
    let mut node = node();
    let dual = |c: &str| request(c, &[Family::V4, Family::V6]);
    let first = node.reserve(&dual("a"), 100).unwrap();
    assert_eq!(first.addresses, [ip("10.32.0.2"), ip("fd00::2")]);
    node.reserve(&dual("b"), 100).unwrap();
    // IPv6 is full: IPv4 is not taken either.
    assert!(matches!(
        node.reserve(&dual("c"), 100),
        Err(ReserveError::NoRoom { .. })
    ));
    assert_eq!(
        node.reserve(&v4("d"), 100).unwrap().addresses,
        [ip("10.32.0.4")]
    );
}

#[test]
fn pools_are_tried_in_order_and_inactive_blocks_serve_nobody_new() {
    let mut node = node();
    let mut blocks = node.blocks();
    blocks[0].active = false;
    blocks.push(NodeBlock {
        pool: "second".into(),
        ..block("10.99.0.0/29")
    });
    let gateways = node.gateways().to_vec();
    node.set_blocks(blocks, gateways);
    let mut want = v4("a");
    want.pools.push(PoolWant {
        pool: "second".into(),
        families: vec![Family::V4],
    });
    let given = node.reserve(&want, 1).unwrap();
    assert_eq!(
        (given.pool.as_str(), given.addresses[0]),
        ("second", ip("10.99.0.1"))
    );
    assert!(matches!(
        node.reserve(&v4("b"), 1),
        Err(ReserveError::NoRoom { reasons })
            if reasons == [Shortage::NoBlock { pool: "default".into(), family: Family::V4 }]
    ));
    assert!(matches!(
        node.reserve(&Request::default(), 1),
        Err(ReserveError::NothingAsked)
    ));
}

#[test]
fn a_released_address_rests_and_the_longest_rested_comes_back_first() {
    let mut node = node();
    for n in 0..6 {
        node.reserve(&v4(&n.to_string()), 100).unwrap();
    }
    node.release(&id("3"), 200);
    node.release(&id("1"), 201);
    assert!(node.reserve(&v4("x"), 200 + COOLDOWN - 1).is_err());
    let x = node.reserve(&v4("x"), 300).unwrap();
    let y = node.reserve(&v4("y"), 300).unwrap();
    assert_eq!(
        (x.addresses[0], y.addresses[0]),
        (ip("10.32.0.5"), ip("10.32.0.3"))
    );
}

#[test]
fn every_report_shows_the_third_state() {
    let mut node = node();
    node.reserve(&v4("a"), 100).unwrap();
    node.reserve(&v4("b"), 100).unwrap();
    node.release(&id("a"), 200);
    let of = |now| node.counts(now)[&"10.32.0.0/29".parse().unwrap()];
    assert_eq!(
        of(210),
        Counts {
            usable: 6,
            used: 1,
            cooling: 1,
            free: 4
        }
    );
    assert_eq!(
        of(230),
        Counts {
            usable: 6,
            used: 1,
            cooling: 0,
            free: 5
        }
    );
}

#[test]
fn a_clock_that_was_in_the_future_does_not_lock_addresses_up() {
    let mut node = node();
    for n in 0..6 {
        node.reserve(&v4(&n.to_string()), 9_000_000).unwrap();
    }
    node.release(&id("0"), 9_000_000);
    assert!(node.reserve(&v4("x"), 100).is_err());
    assert!(node.reserve(&v4("x"), 100 + COOLDOWN).is_ok());
}

#[test]
fn release_is_idempotent_and_a_stale_decision_does_nothing() {
    let mut node = node();
    let first = node.reserve(&v4("a"), 100).unwrap();
    assert_eq!(node.release(&id("a"), 101).reservation, Some(first.clone()));
    assert_eq!(node.release(&id("a"), 101).reservation, None);
    let second = node.reserve(&v4("a"), 102).unwrap();
    // The collector decided on the first: the attachment came back meanwhile.
    assert_eq!(node.release_if(first.seq, 103).reservation, None);
    assert_eq!(node.find(&id("a")), Some(&second));
    assert_eq!(node.release_if(second.seq, 103).reservation, Some(second));
}

#[test]
fn static_addresses_are_given_exactly_or_not_at_all() {
    let mut node = node();
    let fixed = |c: &str, addresses: &[&str]| Request {
        pools: vec![],
        fixed: addresses.iter().map(|a| ip(a)).collect(),
        ..v4(c)
    };
    let why = |result: Result<Reservation, ReserveError>| match result {
        Err(ReserveError::Fixed { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let given = node
        .reserve(&fixed("a", &["fd00::3", "10.32.0.5"]), 1)
        .unwrap();
    assert_eq!(given.addresses, [ip("10.32.0.5"), ip("fd00::3")]);
    assert_eq!(
        why(node.reserve(&fixed("b", &["10.32.0.5"]), 1)),
        FixedProblem::Taken(given.pod)
    );
    assert_eq!(
        why(node.reserve(&fixed("b", &["10.32.0.1"]), 1)),
        FixedProblem::Never
    );
    assert_eq!(
        why(node.reserve(&fixed("b", &["10.32.0.9"]), 1)),
        FixedProblem::NotHere
    );
    assert_eq!(
        why(node.reserve(&fixed("b", &["10.32.0.2", "10.32.0.3"]), 1)),
        FixedProblem::SecondOfFamily
    );
    node.release(&id("a"), 100);
    assert_eq!(
        why(node.reserve(&fixed("b", &["10.32.0.5"]), 101)),
        FixedProblem::Cooling
    );
    // A single-address grant is inactive: it serves its pod alone.
    let mut blocks = node.blocks();
    blocks.push(NodeBlock {
        active: false,
        reserved: vec![],
        ..block("10.40.0.7/32")
    });
    node.set_blocks(blocks, vec![ip("10.32.0.1")]);
    assert!(node.reserve(&fixed("s", &["10.40.0.7"]), 200).is_ok());
}

#[test]
fn a_block_that_went_strands_its_pods_and_takes_them_back_when_it_returns() {
    let mut node = node();
    let a = node.reserve(&v4("a"), 1).unwrap();
    let blocks = node.blocks();
    let gateways = node.gateways().to_vec();
    assert!(node.is_pinned(blocks[0].cidr));
    let change = node.set_blocks(vec![], gateways.clone());
    assert_eq!(change.stranded, vec![a.clone()]);
    assert_eq!(node.owner_of(ip("10.32.0.2")), Some(&a));
    assert_eq!(node.set_blocks(blocks, gateways).stranded, vec![]);
    assert_eq!(
        node.reserve(&v4("b"), 1).unwrap().addresses,
        [ip("10.32.0.3")]
    );
}
