use super::{
    BlockView, Claim, Evidence, Grant, NodeRef, Phase, Reclaim, Return, confirm, confirmed_of,
    decide_block, decide_reclaim, decide_return, next_epoch,
};
use crate::{
    pool::{Family, Pool},
    sighting::{Patience, Sighting},
};

const PATIENCE: Patience = Patience { gap: 30, grace: 60 };

fn node(uid: &str) -> NodeRef {
    NodeRef {
        name: "n1".into(),
        uid: uid.into(),
    }
}

fn block(cidr: &str, phase: Phase) -> BlockView {
    BlockView {
        cidr: cidr.parse().unwrap(),
        pool: "default".into(),
        node: node("u1"),
        epoch: 5,
        phase,
        confirmed_uid: if phase == Phase::Pending { "" } else { "u1" }.into(),
        confirmed_epoch: if phase == Phase::Pending { 0 } else { 5 },
        deleting: false,
        used: 0,
    }
}

fn pool() -> Pool {
    Pool::parse("default", &["10.32.0.0/24".to_owned()], 26, 122, &[]).unwrap()
}

#[test]
fn a_node_gets_blocks_until_it_has_what_it_wants_and_at_least_one() {
    let mut blocks = vec![];
    let mut given = vec![];
    loop {
        match decide_block(&pool(), Family::V4, &node("u1"), 110, &blocks, 1) {
            Grant::Create { cidr, epoch } => {
                assert!(blocks.iter().all(|b: &BlockView| b.epoch < epoch));
                given.push(cidr.to_string());
                blocks.push(BlockView {
                    cidr,
                    epoch,
                    ..block("10.32.0.0/26", Phase::Pending)
                });
            }
            Grant::Enough => break,
            Grant::Exhausted => panic!("after {given:?}"),
        }
    }
    assert_eq!(given, ["10.32.0.0/26", "10.32.0.64/26"]);
    assert!(matches!(
        decide_block(&pool(), Family::V4, &node("u9"), 0, &blocks, 1),
        Grant::Create { .. }
    ));
}

#[test]
fn blocks_of_other_nodes_pools_and_a_former_self_count_as_taken_never_as_held() {
    let taken = [
        BlockView {
            node: node("former"),
            ..block("10.32.0.0/26", Phase::Confirmed)
        },
        BlockView {
            pool: "other".into(),
            ..block("10.32.0.64/26", Phase::Confirmed)
        },
        BlockView {
            deleting: true,
            ..block("10.32.0.128/26", Phase::Confirmed)
        },
    ];
    let decide =
        |blocks: &[BlockView]| decide_block(&pool(), Family::V4, &node("u1"), 10, blocks, 1);
    assert!(
        matches!(decide(&taken), Grant::Create { cidr, .. } if cidr.to_string() == "10.32.0.192/26")
    );
    let mut all = taken.to_vec();
    all.push(block("10.32.0.192/26", Phase::Releasing));
    assert_eq!(decide(&all), Grant::Exhausted);
}

#[test]
fn epochs_grow_with_every_block_and_with_the_clock() {
    assert_eq!(next_epoch(&[], 0), 1);
    assert_eq!(next_epoch(&[], 1_000), 1_000_000);
    let high = BlockView {
        epoch: 2_000_000,
        ..block("10.32.0.0/26", Phase::Pending)
    };
    assert_eq!(next_epoch(&[high], 1_000), 2_000_001);
}

#[test]
fn a_node_confirms_what_is_granted_to_it_at_the_current_epoch_only() {
    let me = node("u1");
    let pending = block("10.32.0.0/26", Phase::Pending);
    assert_eq!(confirm(&pending, &me), Claim::Confirm { epoch: 5 });
    let held = block("10.32.0.0/26", Phase::Confirmed);
    assert_eq!(confirm(&held, &me), Claim::Held);
    // Granted anew while we were away: the old confirmation is void.
    let newer = BlockView {
        epoch: 6,
        ..held.clone()
    };
    assert_eq!(
        (newer.is_confirmed(), confirm(&newer, &me)),
        (false, Claim::Confirm { epoch: 6 })
    );
    let other = NodeRef {
        name: "n2".into(),
        uid: "u1".into(),
    };
    assert_eq!(confirm(&held, &other), Claim::Ignore);
    assert_eq!(
        confirm(
            &BlockView {
                deleting: true,
                ..pending
            },
            &me
        ),
        Claim::Ignore
    );
    assert_eq!(
        confirm(&block("10.32.0.0/26", Phase::Releasing), &me),
        Claim::Ignore
    );
}

#[test]
fn a_node_that_came_back_as_another_is_fenced() {
    for phase in [Phase::Pending, Phase::Confirmed, Phase::Releasing] {
        assert_eq!(
            confirm(&block("10.32.0.0/26", phase), &node("u2")),
            Claim::Fenced
        );
    }
}

#[test]
fn only_confirmed_blocks_are_a_nodes_share() {
    let blocks = [
        block("10.32.0.0/26", Phase::Confirmed),
        block("10.32.0.64/26", Phase::Pending),
        BlockView {
            confirmed_uid: "u0".into(),
            ..block("10.32.0.128/26", Phase::Confirmed)
        },
        BlockView {
            confirmed_epoch: 4,
            ..block("10.32.0.192/26", Phase::Confirmed)
        },
    ];
    let me = node("u1");
    let share: Vec<String> = confirmed_of(&blocks, &me, "default", Family::V4)
        .map(|b| b.cidr.to_string())
        .collect();
    assert_eq!(share, ["10.32.0.0/26"]);
}

#[test]
fn an_empty_block_returns_after_two_quiet_sightings_unless_it_is_needed() {
    let decide = |used, pinned, spare, seen, now| {
        decide_return(used, pinned, spare, 16, seen, now, PATIENCE)
    };
    let Return::Watch(first) = decide(0, false, 50, None, 100) else {
        panic!()
    };
    assert_eq!(decide(0, false, 50, Some(first), 110), Return::Watch(first));
    let Return::Watch(second) = decide(0, false, 50, Some(first), 130) else {
        panic!()
    };
    assert_eq!(decide(0, false, 50, Some(second), 160), Return::Give);
    for (used, pinned, spare) in [(1, false, 50), (0, true, 50), (0, false, 15)] {
        assert_eq!(decide(used, pinned, spare, Some(second), 160), Return::Keep);
    }
    // The last block of a node has no spare beside it.
    assert_eq!(
        decide_return(0, false, 0, 0, Some(second), 160, PATIENCE),
        Return::Keep
    );
}

#[test]
fn a_block_of_a_node_that_is_gone_is_reclaimed_on_full_evidence_only() {
    let held = BlockView {
        used: 3,
        ..block("10.32.0.0/26", Phase::Confirmed)
    };
    let seen = Some(Sighting {
        first: 100,
        last: 130,
        count: 2,
    });
    let gone = Evidence {
        node_exists: Some(false),
        live_pods: Some(0),
        peer_withdrawn: Some(true),
    };
    let decide = |e| decide_reclaim(&held, e, seen, 165, PATIENCE);
    assert_eq!(decide(gone), Reclaim::Delete);
    for doubt in [
        Evidence {
            node_exists: Some(true),
            ..gone
        },
        Evidence {
            node_exists: None,
            ..gone
        },
        Evidence {
            live_pods: Some(1),
            ..gone
        },
        Evidence {
            live_pods: None,
            ..gone
        },
        Evidence {
            peer_withdrawn: Some(false),
            ..gone
        },
        Evidence {
            peer_withdrawn: None,
            ..gone
        },
        Evidence::default(),
    ] {
        assert_eq!(decide(doubt), Reclaim::Keep, "{doubt:?}");
    }
    assert!(matches!(
        decide_reclaim(&held, gone, None, 165, PATIENCE),
        Reclaim::Watch(_)
    ));
}

#[test]
fn a_block_its_node_gave_back_goes_at_once_and_an_old_release_does_not_count() {
    let given = block("10.32.0.0/26", Phase::Releasing);
    let decide = |b: &BlockView| decide_reclaim(b, Evidence::default(), None, 1, PATIENCE);
    assert_eq!(decide(&given), Reclaim::Delete);
    assert_eq!(
        decide(&BlockView {
            epoch: 6,
            ..given.clone()
        }),
        Reclaim::Keep
    );
    assert_eq!(
        decide(&BlockView {
            used: 1,
            ..given.clone()
        }),
        Reclaim::Keep
    );
    assert_eq!(
        decide(&BlockView {
            deleting: true,
            ..given
        }),
        Reclaim::Keep
    );
}

#[test]
fn a_clock_that_went_back_starts_the_sightings_over() {
    let seen = Sighting {
        first: 100,
        last: 130,
        count: 2,
    };
    assert_eq!(
        Sighting::observe(Some(seen), 50, PATIENCE),
        Sighting {
            first: 50,
            last: 50,
            count: 1
        }
    );
}
