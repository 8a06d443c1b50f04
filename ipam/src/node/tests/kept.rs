//! What outlives a restart, a damaged log and a full disk.

use super::*;
use crate::{
    log::Fault,
    node::{Reservation, ReserveError},
};

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
