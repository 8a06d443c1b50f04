use std::{collections::BTreeMap, net::IpAddr};

use kube::ResourceExt;
use proptest::prelude::*;
use weft_crds::{Condition, ConditionStatus, Peer, PeerSliceSpec, WeftNodeSpec, WeftNodeStatus};
use weft_ipam::{
    claim::{BlockView, NodeRef, Phase},
    pool::Pool,
};

use super::{
    slices::{PER_SLICE, Write, peers, writes},
    weft_node::{Step, steps},
    *,
};

fn row(name: &str, uid: &str) -> Arc<NodeRow> {
    Arc::new(NodeRow {
        id: NodeRef {
            name: name.into(),
            uid: uid.into(),
        },
        addresses: vec![IpAddr::from([172, 30, 0, 11])],
        ready: true,
        ..NodeRow::default()
    })
}

fn block(cidr: &str, name: &str, uid: &str, epoch: i64) -> BlockView {
    BlockView {
        cidr: cidr.parse().unwrap(),
        pool: "default".into(),
        node: NodeRef {
            name: name.into(),
            uid: uid.into(),
        },
        epoch,
        phase: Phase::Confirmed,
        confirmed_uid: uid.into(),
        confirmed_epoch: epoch,
        deleting: false,
        used: 0,
    }
}

fn pools() -> BTreeMap<String, Pool> {
    let pool = Pool::parse("default", &["10.32.0.0/12".into()], 26, 122, &[]).unwrap();
    [("default".to_owned(), pool)].into()
}

fn gateways_after(steps: &[Step]) -> Vec<String> {
    match steps {
        [Step::Create(w) | Step::Replace(w)] => w.spec.gateways.clone(),
        other => panic!("{other:?}"),
    }
}

fn existing(name: &str, uid: &str, gateways: &[&str]) -> WeftNode {
    let mut object = WeftNode::new(
        name,
        WeftNodeSpec {
            node_uid: uid.into(),
            addresses: vec!["172.30.0.11".into()],
            gateways: gateways.iter().map(|g| (*g).to_owned()).collect(),
            relays: vec![],
        },
    );
    object.metadata.resource_version = Some("5".into());
    object
}

#[test]
fn a_new_node_gets_a_weft_node_that_it_owns_and_a_gateway_with_its_first_block() {
    let created = steps(&[row("n1", "u1")], &[], &[], &pools());
    let [Step::Create(object)] = created.as_slice() else {
        panic!("{created:?}");
    };
    assert_eq!(object.spec.gateways, [""; 0]);
    assert_eq!(object.owner_references()[0].uid, "u1");
    // 10.32.0.0 is the network address of the range.
    let blocks = [
        block("10.32.0.64/26", "n1", "u1", 8),
        block("10.32.0.0/26", "n1", "u1", 7),
    ];
    let created = steps(&[row("n1", "u1")], &[], &blocks, &pools());
    assert_eq!(gateways_after(&created), ["10.32.0.1"]);
}

#[test]
fn a_node_that_came_back_with_another_uid_gets_a_fresh_weft_node() {
    let old = Arc::new(existing("n1", "before", &["10.32.0.1"]));
    let blocks = [block("10.32.0.0/26", "n1", "before", 1)];
    let nodes = [row("n1", "u1")];
    let deleted = steps(&nodes, &[Arc::clone(&old)], &blocks, &pools());
    assert_eq!(deleted, [Step::Delete(old)]);
    let created = steps(&nodes, &[], &blocks, &pools());
    assert_eq!(
        gateways_after(&created),
        [""; 0],
        "the old node's block is not its own"
    );
}

#[test]
fn a_weft_node_without_node_goes() {
    let left = Arc::new(existing("n9", "u9", &[]));
    assert_eq!(
        steps(&[], &[Arc::clone(&left)], &[], &pools()),
        [Step::Delete(left)]
    );
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    let blocks = [block("10.32.0.0/26", "n1", "u1", 1)];
    let nodes = [row("n1", "u1")];
    let created = steps(&nodes, &[], &blocks, &pools());
    let [Step::Create(object)] = created.as_slice() else {
        panic!("{created:?}");
    };
    assert_eq!(
        steps(&nodes, &[Arc::new(object.clone())], &blocks, &pools()),
        []
    );
}

proptest! {
    #[test]
    fn a_gateway_never_changes_whatever_blocks_come_and_go(
        before in prop::collection::btree_set(0u8..40, 1..6),
        after in prop::collection::btree_set(0u8..40, 0..6),
    ) {
        let blocks = |numbers: &std::collections::BTreeSet<u8>| -> Vec<BlockView> {
            let cidr = |n: &u8| format!("10.32.{n}.0/26");
            numbers.iter().map(|n| block(&cidr(n), "n1", "u1", i64::from(*n))).collect()
        };
        let nodes = [row("n1", "u1")];
        let created = steps(&nodes, &[], &blocks(&before), &pools());
        let [Step::Create(object)] = created.as_slice() else {
            panic!("{created:?}");
        };
        prop_assert_eq!(object.spec.gateways.len(), 1);
        let again = steps(&nodes, &[Arc::new(object.clone())], &blocks(&after), &pools());
        prop_assert_eq!(again, vec![]);
    }

    #[test]
    fn placement_is_stable_complete_and_writes_only_what_changed(
        first in prop::collection::btree_set(0u16..400, 0..350),
        second in prop::collection::btree_set(0u16..400, 0..350),
    ) {
        let named = |numbers: &std::collections::BTreeSet<u16>| -> BTreeMap<String, Peer> {
            let peer = |n: &u16| {
                let node = format!("n{n:03}");
                (node.clone(), Peer { node, ..Peer::default() })
            };
            numbers.iter().map(peer).collect()
        };
        let one = apply(&[], writes(&[], &named(&first)));
        prop_assert_eq!(content(&one), named(&first));
        prop_assert_eq!(writes(&one, &named(&first)), vec![]);

        let planned = writes(&one, &named(&second));
        let top = one.iter().map(|s| s.spec.generation).max().unwrap_or(0);
        let generations: Vec<i64> = planned.iter().map(|w| match w {
            Write::Create(s) | Write::Replace(s) => s.spec.generation,
        }).collect();
        let expected: Vec<i64> = (top + 1..).take(planned.len()).collect();
        prop_assert_eq!(generations, expected);

        let two = apply(&one, planned);
        prop_assert_eq!(content(&two), named(&second));
        for old in &one {
            let new = two.iter().find(|s| s.name_any() == old.name_any()).unwrap();
            for peer in &old.spec.peers {
                let stays = named(&second).contains_key(&peer.node);
                prop_assert_eq!(new.spec.peers.contains(peer), stays, "peers do not move");
            }
            prop_assert!(new.spec.peers.len() <= PER_SLICE);
        }
    }
}

fn apply(before: &[Arc<PeerSlice>], writes: Vec<Write>) -> Vec<Arc<PeerSlice>> {
    let mut after = before.to_vec();
    for write in writes {
        match write {
            Write::Create(slice) => after.push(Arc::new(slice)),
            Write::Replace(slice) => {
                after.retain(|s| s.name_any() != slice.name_any());
                after.push(Arc::new(slice));
            }
        }
    }
    after
}

fn content(slices: &[Arc<PeerSlice>]) -> BTreeMap<String, Peer> {
    let all = slices.iter().flat_map(|s| s.spec.peers.clone());
    all.map(|p| (p.node.clone(), p)).collect()
}

#[test]
fn a_peer_is_a_node_that_exists_and_reported_with_its_confirmed_blocks() {
    let reported = |uid: &str| {
        let mut object = existing("n1", "u1", &["10.32.0.1"]);
        object.status = Some(WeftNodeStatus {
            node_uid: uid.into(),
            underlay_addresses: vec!["172.30.0.11".into()],
            ..WeftNodeStatus::default()
        });
        Arc::new(object)
    };
    let mut pending = block("10.32.0.128/26", "n1", "u1", 3);
    pending.confirmed_epoch = 2;
    let blocks = [
        block("10.32.0.64/26", "n1", "u1", 2),
        block("10.32.0.0/26", "n1", "u1", 1),
        pending,
    ];
    let nodes = [row("n1", "u1")];
    let peer = Peer {
        node: "n1".into(),
        underlay: vec!["172.30.0.11".into()],
        gateways: vec!["10.32.0.1".into()],
        blocks: vec!["10.32.0.0/26".into(), "10.32.0.64/26".into()],
    };
    assert_eq!(
        peers(&nodes, &[reported("u1")], &blocks),
        [("n1".to_owned(), peer)].into()
    );
    assert_eq!(
        peers(&nodes, &[reported("before")], &blocks),
        BTreeMap::new()
    );
    assert_eq!(peers(&[], &[reported("u1")], &blocks), BTreeMap::new());
    let silent = Arc::new(existing("n1", "u1", &[]));
    assert_eq!(peers(&nodes, &[silent], &blocks), BTreeMap::new());
}

#[test]
fn a_duplicate_in_two_slices_is_kept_once() {
    let peer = Peer {
        node: "n1".into(),
        ..Peer::default()
    };
    let slice = |name: &str, generation| {
        let spec = PeerSliceSpec {
            generation,
            peers: vec![peer.clone()],
        };
        Arc::new(PeerSlice::new(name, spec))
    };
    let before = [slice("peers-000", 4), slice("peers-001", 5)];
    let planned = writes(&before, &[("n1".to_owned(), peer.clone())].into());
    let [Write::Replace(emptied)] = planned.as_slice() else {
        panic!("{planned:?}");
    };
    assert_eq!(
        (emptied.name_any().as_str(), emptied.spec.generation),
        ("peers-001", 6)
    );
    assert_eq!(emptied.spec.peers, []);
}

mod node_condition {
    use super::*;

    fn with_ready(status: Option<ConditionStatus>, uid: &str) -> Arc<WeftNode> {
        let mut object = existing("n1", "u1", &[]);
        let ready = |status| Condition {
            type_: "Ready".into(),
            status,
            reason: "R".into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: None,
        };
        object.status = Some(WeftNodeStatus {
            node_uid: uid.into(),
            conditions: status.map(ready).into_iter().collect(),
            ..WeftNodeStatus::default()
        });
        Arc::new(object)
    }

    #[test]
    fn table() {
        use ConditionStatus::{False, True, Unknown};
        // (WeftNode Ready, by which Node, present condition) -> what is written
        let table = [
            (Some(True), "u1", None, Some(false)),
            (Some(True), "u1", Some(true), Some(false)),
            (Some(True), "u1", Some(false), None),
            (Some(False), "u1", Some(false), Some(true)),
            (Some(Unknown), "u1", Some(false), None),
            (None, "u1", Some(true), None),
            (Some(True), "before", Some(true), None),
        ];
        for (ready, uid, present, expected) in table {
            let node = Arc::new(NodeRow {
                network_unavailable: present,
                ..NodeRow::clone(&row("n1", "u1"))
            });
            let written = condition::network_unavailable(&[node], &[with_ready(ready, uid)]);
            let values: Vec<bool> = written.into_iter().map(|(_, v)| v).collect();
            assert_eq!(
                values,
                Vec::from_iter(expected),
                "{ready:?} {uid} {present:?}"
            );
        }
    }

    #[test]
    fn a_node_without_address_is_told_once_and_cleared_when_it_has_one() {
        let homeless = Arc::new(NodeRow {
            addresses: vec![],
            ..NodeRow::clone(&row("n1", "u1"))
        });
        let object = with_ready(None, "u1");
        let written = condition::addresses(&[Arc::clone(&homeless)], &[Arc::clone(&object)], "t1");
        let [(_, conditions)] = written.as_slice() else {
            panic!("{written:?}");
        };
        assert_eq!(
            (
                conditions[0].type_.as_str(),
                conditions[0].status,
                conditions[0].reason.as_str()
            ),
            ("Addresses", ConditionStatus::False, "NoInternalIP")
        );
        let mut told = WeftNode::clone(&object);
        told.status.get_or_insert_default().conditions = conditions.clone();
        let told = Arc::new(told);
        assert_eq!(
            condition::addresses(&[homeless], &[Arc::clone(&told)], "t2"),
            []
        );
        let cleared = condition::addresses(&[row("n1", "u1")], &[told], "t3");
        assert_eq!(cleared[0].1[0].status, ConditionStatus::True);
        assert_eq!(
            condition::addresses(&[row("n1", "u1")], &[object], "t4"),
            []
        );
    }
}
