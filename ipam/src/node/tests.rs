use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    Allocator, Attachment, Counts, Durability, NodeBlock, Pod, PoolWant, Request, Reservation,
    ReserveError, Start,
    reserve::{FixedProblem, Shortage},
};
use crate::{
    log::{Damage, Fault, Identity, LogStore, MemoryStore},
    pool::Family,
};

const COOLDOWN: u64 = 30;

fn identity() -> Identity {
    Identity {
        cluster: "c1".into(),
        node: "n1".into(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(container: &str) -> Attachment {
    Attachment {
        container_id: container.into(),
        ifname: "eth0".into(),
    }
}

fn block(cidr: &str) -> NodeBlock {
    let cidr: IpNet = cidr.parse().unwrap();
    NodeBlock {
        cidr,
        pool: "default".into(),
        pool_cidr: cidr,
        epoch: 1,
        cooldown: COOLDOWN,
        reserved: vec![IpNet::from(cidr.network())],
        active: true,
    }
}

fn request(container: &str, families: &[Family]) -> Request {
    Request {
        id: id(container),
        pod: Pod {
            namespace: "ns".into(),
            name: container.into(),
            uid: format!("uid-{container}"),
        },
        pools: vec![PoolWant {
            pool: "default".into(),
            families: families.to_vec(),
        }],
        fixed: vec![],
    }
}

fn v4(container: &str) -> Request {
    request(container, &[Family::V4])
}

/// A new node with a /29 (network and gateway taken, six to give) and an IPv6 /126 (two to give).
fn node() -> Allocator<MemoryStore> {
    let (mut allocator, start) = Allocator::open(MemoryStore::default(), identity());
    assert_eq!(start, Start::NeedsRebuild(Damage::Missing));
    assert!(matches!(allocator.rebuild(vec![], 0), Durability::Durable));
    let change = allocator.set_blocks(
        vec![block("10.32.0.0/29"), block("fd00::/126")],
        vec![ip("10.32.0.1"), ip("fd00::1")],
    );
    assert_eq!(change.stranded, vec![]);
    assert!(matches!(change.durability, Durability::Durable));
    allocator
}

fn reopen(allocator: &Allocator<MemoryStore>) -> (Allocator<MemoryStore>, Start) {
    Allocator::open(
        MemoryStore {
            bytes: allocator.store.bytes.clone(),
            ..MemoryStore::default()
        },
        identity(),
    )
}

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

#[test]
fn a_restart_changes_nothing() {
    let mut node = node();
    node.reserve(&v4("a"), 1).unwrap();
    node.reserve(&v4("b"), 1).unwrap();
    node.release(&id("a"), 2);
    let (again, start) = reopen(&node);
    assert_eq!(start, Start::Ready { cut: 0 });
    assert_eq!(again.state, node.state);
}

#[test]
fn logs_of_others_later_formats_and_garbage_need_a_rebuild_and_reserve_is_refused_until_then() {
    let mut good = node();
    good.reserve(&v4("a"), 1).unwrap();
    let bytes = good.store.bytes.clone().unwrap();
    let open = |bytes: Vec<u8>, identity: Identity| {
        Allocator::open(
            MemoryStore {
                bytes: Some(bytes),
                ..MemoryStore::default()
            },
            identity,
        )
    };
    let foreign = Identity {
        node: "n2".into(),
        ..identity()
    };
    let (mut lost, start) = open(bytes.clone(), foreign);
    assert_eq!(start, Start::NeedsRebuild(Damage::Foreign(identity())));
    assert!(matches!(
        lost.reserve(&v4("a"), 1),
        Err(ReserveError::Lost(Damage::Foreign(_)))
    ));
    assert_eq!(
        open(vec![], identity()).1,
        Start::NeedsRebuild(Damage::Empty)
    );
    assert_eq!(
        open(vec![7; crate::log::MAX_BYTES + 1], identity()).1,
        Start::NeedsRebuild(Damage::Oversized(crate::log::MAX_BYTES as u64 + 1))
    );
    let mut flipped = bytes;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(matches!(
        open(flipped, identity()).1,
        Start::NeedsRebuild(Damage::Corrupt(_))
    ));
}

#[test]
fn a_rebuild_takes_the_kernels_word_and_lets_every_other_address_rest() {
    let (mut node, _) = Allocator::open(
        MemoryStore {
            bytes: Some(vec![1, 2, 3, 4, 5, 6, 7, 8, 9]),
            ..MemoryStore::default()
        },
        identity(),
    );
    let seen = |container: &str, address: &str| Reservation {
        id: id(container),
        addresses: vec![ip(address)],
        ..Reservation::default()
    };
    let _ = node.rebuild(
        vec![
            seen("a", "10.32.0.2"),
            seen("b", "10.32.0.2"),
            seen("c", "10.32.0.3"),
        ],
        1000,
    );
    node.set_blocks(vec![block("10.32.0.0/29")], vec![ip("10.32.0.1")]);
    assert_eq!(node.owner_of(ip("10.32.0.2")).unwrap().id, id("a"));
    // The second port with the same address is not given an owner's rights.
    assert_eq!(node.find(&id("b")), None);
    assert!(node.reserve(&v4("x"), 1000 + COOLDOWN - 1).is_err());
    assert_eq!(
        node.reserve(&v4("x"), 1000 + COOLDOWN).unwrap().addresses,
        [ip("10.32.0.4")]
    );
    // The pod of a rebuilt reservation becomes known with its next ADD.
    let known = node.reserve(&v4("a"), 2000).unwrap();
    assert_eq!(
        (known.pod.uid.as_str(), known.addresses[0]),
        ("uid-a", ip("10.32.0.2"))
    );
    let (again, _) = reopen(&node);
    assert_eq!(again.state, node.state);
}

#[test]
fn what_the_kernel_shows_and_the_log_forgot_is_adopted() {
    let mut node = node();
    let held = node.reserve(&v4("a"), 1).unwrap();
    let seen = Reservation {
        id: id("forgotten"),
        addresses: vec![ip("10.32.0.3")],
        ..Reservation::default()
    };
    let (added, _) = node.adopt(vec![held, seen], 5);
    assert_eq!(added.len(), 1);
    assert_eq!(added[0].pool, "default");
    assert_eq!(
        node.reserve(&v4("b"), 6).unwrap().addresses,
        [ip("10.32.0.4")]
    );
}

#[test]
fn a_full_disk_refuses_add_and_lets_del_work() {
    let mut node = node();
    node.reserve(&v4("a"), 1).unwrap();
    for fault in [
        Fault::DiskFull,
        Fault::ReadOnly,
        Fault::Torn(7),
        Fault::SyncFailed,
    ] {
        node.store.always = Some(fault);
        assert!(matches!(
            node.reserve(&v4("b"), 2),
            Err(ReserveError::Storage(_))
        ));
        assert_eq!(node.find(&id("b")), None);
    }
    let released = node.release(&id("a"), 3);
    assert!(released.reservation.is_some());
    assert!(matches!(released.durability, Durability::Pending(_)));
    assert_eq!(node.find(&id("a")), None);
    node.store.always = None;
    assert!(matches!(node.flush_if_pending(), Durability::Durable));
    let (again, _) = reopen(&node);
    assert_eq!(again.state, node.state);
}

#[test]
fn the_log_is_compacted_and_stays_small() {
    let mut node = node();
    let mut largest = 0;
    for n in 0..5000_u64 {
        node.reserve(&v4(&n.to_string()), n * 100).unwrap();
        node.release(&id(&n.to_string()), n * 100 + 1);
        largest = largest.max(node.store.bytes.as_ref().map_or(0, Vec::len));
    }
    assert!(largest < 256 << 10, "{largest}");
    let (again, start) = reopen(&node);
    assert_eq!(start, Start::Ready { cut: 0 });
    assert_eq!(again.list().count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Reserve { container: u8, dual: bool },
    Release(u8),
    Wait(u64),
    Blocks(u8),
    Restart,
    Fault(Option<Fault>),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(None),
        Just(None),
        Just(Some(Fault::DiskFull)),
        Just(Some(Fault::SyncFailed)),
        (0_usize..40).prop_map(|n| Some(Fault::Torn(n))),
    ];
    prop_oneof![
        6 => (0_u8..10, any::<bool>()).prop_map(|(container, dual)| Step::Reserve { container, dual }),
        5 => (0_u8..10).prop_map(Step::Release),
        2 => (1_u64..50).prop_map(Step::Wait),
        1 => (0_u8..4).prop_map(Step::Blocks),
        1 => Just(Step::Restart),
        1 => fault.prop_map(Step::Fault),
    ]
}

/// Blocks by the bits of `which`; gateways stay.
fn some_blocks(which: u8) -> Vec<NodeBlock> {
    let mut blocks = vec![block("10.32.0.0/29"), block("fd00::/125")];
    if which & 1 == 1 {
        blocks.push(block("10.32.0.8/29"));
    }
    if which & 2 == 2 {
        blocks.remove(0);
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was promised by an answer is the model; the allocator may know more (a reservation whose
    /// write failed half-way), never less and never otherwise.
    #[test]
    fn no_address_has_two_owners_none_is_lost_and_none_is_reused_warm(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let gateways = vec![ip("10.32.0.1"), ip("fd00::1")];
        let mut node = node();
        node.set_blocks(some_blocks(0), gateways.clone());
        let mut blocks = some_blocks(0);
        let mut now = 1000;
        let mut owned: BTreeMap<Attachment, Vec<IpAddr>> = BTreeMap::new();
        let mut released: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Reserve { container, dual } => {
                    let families: &[Family] = if dual { &[Family::V4, Family::V6] } else { &[Family::V4] };
                    let request = request(&container.to_string(), families);
                    // Promised to nobody, but on disk when the node restarted.
                    let came_back = node.find(&request.id).is_some();
                    if let Ok(given) = node.reserve(&request, now) {
                        match owned.get(&request.id) {
                            Some(before) => prop_assert_eq!(before, &given.addresses),
                            None => {
                                for address in &given.addresses {
                                    prop_assert!(!owned.values().flatten().any(|a| a == address));
                                    prop_assert!(!gateways.contains(address));
                                    if came_back { continue; }
                                    prop_assert!(blocks.iter().any(|b| b.cidr.contains(address)));
                                    if let Some(at) = released.get(address) {
                                        prop_assert!(now >= at + COOLDOWN, "{} warm", address);
                                    }
                                }
                                owned.insert(request.id, given.addresses);
                            }
                        }
                    }
                }
                Step::Release(container) => {
                    let id = id(&container.to_string());
                    node.release(&id, now);
                    for address in owned.remove(&id).unwrap_or_default() {
                        released.insert(address, now);
                    }
                    prop_assert_eq!(node.find(&id), None);
                }
                Step::Wait(seconds) => now += seconds,
                Step::Blocks(which) => {
                    blocks = some_blocks(which);
                    let change = node.set_blocks(blocks.clone(), gateways.clone());
                    for stranded in &change.stranded {
                        prop_assert!(stranded.addresses.iter().any(|a| !blocks.iter().any(|b| b.cidr.contains(a))));
                    }
                }
                Step::Restart => {
                    let (again, start) = reopen(&node);
                    node = again;
                    prop_assert!(matches!(start, Start::Ready { .. }), "{:?}", start);
                    node.set_blocks(blocks.clone(), gateways.clone());
                }
                Step::Fault(fault) => node.store.always = fault,
            }
            for (id, addresses) in &owned {
                prop_assert_eq!(node.find(id).map(|r| &r.addresses), Some(addresses));
            }
            for (cidr, counts) in node.counts(now) {
                prop_assert_eq!(counts.usable, counts.used + counts.cooling + counts.free, "{}", cidr);
            }
        }
    }

    /// A log cut anywhere gives the state of a prefix or is damaged; a flipped bit is damage.
    #[test]
    fn a_cut_or_garbled_log_never_gives_a_wrong_owner(
        containers in prop::collection::vec((0_u8..6, any::<bool>()), 1..30),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut node = node();
        let mut prefixes = vec![node.state.clone()];
        for (container, release) in containers {
            let container = container.to_string();
            if release {
                node.release(&id(&container), 5);
            } else {
                let _ = node.reserve(&v4(&container), 5000);
            }
            prefixes.push(node.state.clone());
        }
        let bytes = node.store.read().unwrap().unwrap();
        let at = at.index(bytes.len());
        let open = |bytes: &[u8]| Allocator::open(
            MemoryStore { bytes: Some(bytes.to_vec()), ..MemoryStore::default() },
            identity(),
        );
        let (cut, start) = open(&bytes[..at]);
        if let Start::Ready { .. } = start {
            let held: Vec<_> = cut.list().cloned().collect();
            let is_prefix = held.is_empty()
                || prefixes.iter().any(|p| p.list().cloned().collect::<Vec<_>>() == held);
            prop_assert!(is_prefix);
        }
        let mut garbled = bytes;
        garbled[at] ^= 1 << bit;
        prop_assert!(matches!(open(&garbled).1, Start::NeedsRebuild(Damage::Corrupt(_))));
    }
}
