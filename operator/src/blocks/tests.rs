use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use proptest::prelude::*;
use weft_crds::{
    BlockSize, Condition, ConditionStatus, IPPoolSpec, Peer, PeerSlice, PeerSliceSpec, PoolPhase,
    WeftNode, WeftNodeSpec, WeftNodeStatus,
};
use weft_ipam::{
    claim::{Grant, NodeRef, Phase, decide_block},
    pool::Family,
};

use super::*;
use crate::blocks::{
    grant::MAX_BLOCKS,
    status::{news, status},
    verdict::Refusal,
};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pool(name: &str, age: i64, cidr: &str) -> IPPool {
    let spec = IPPoolSpec {
        cidrs: vec![cidr.into()],
        block_size: BlockSize::default(),
        ..IPPoolSpec::default()
    };
    let mut pool = IPPool::new(name, spec);
    pool.metadata.creation_timestamp = Some(Time(Timestamp::from_second(age).unwrap()));
    pool.metadata.generation = Some(1);
    pool
}

fn node(name: &str, pods: u32) -> Arc<NodeRow> {
    Arc::new(NodeRow {
        id: id(name),
        addresses: vec![IpAddr::from([172, 30, 0, 11])],
        pods,
        ready: true,
        ..NodeRow::default()
    })
}

fn id(name: &str) -> NodeRef {
    NodeRef {
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

fn judged(pools: Vec<IPPool>) -> BTreeMap<String, Verdict> {
    judge(
        &pools.into_iter().map(Arc::new).collect::<Vec<_>>(),
        &[],
        &[],
    )
}

fn brief(verdicts: &BTreeMap<String, Verdict>) -> Vec<(&str, &str)> {
    let reason = |v: &Verdict| v.refusal.as_ref().map_or("ok", Refusal::reason);
    verdicts
        .iter()
        .map(|(n, v)| (n.as_str(), reason(v)))
        .collect()
}

fn view_of(cidr: &str, owner: &str) -> BlockView {
    BlockView {
        cidr: net(cidr),
        pool: "default".into(),
        node: id(owner),
        epoch: 1,
        phase: Phase::Confirmed,
        confirmed_uid: id(owner).uid,
        confirmed_epoch: 1,
        deleting: false,
        used: 0,
    }
}

mod verdicts {
    use super::*;

    #[test]
    fn of_pools_that_overlap_the_oldest_wins_whatever_the_names() {
        let young = pool("a", 20, "10.40.0.0/16");
        let old = pool("b", 10, "10.32.0.0/12");
        let other = pool("c", 30, "10.200.0.0/16");
        assert_eq!(
            brief(&judged(vec![young, old, other])),
            [("a", "CIDROverlap"), ("b", "ok"), ("c", "ok")]
        );
    }

    #[test]
    fn a_loser_claims_nothing_and_is_promoted_when_the_winner_is_gone() {
        let oldest = pool("a", 10, "10.32.0.0/16");
        let loser = pool("b", 20, "10.32.0.0/12");
        let third = pool("c", 30, "10.40.0.0/16");
        assert_eq!(
            brief(&judged(vec![oldest, loser.clone(), third.clone()])),
            [("a", "ok"), ("b", "CIDROverlap"), ("c", "ok")]
        );
        assert_eq!(
            brief(&judged(vec![loser, third])),
            [("b", "ok"), ("c", "CIDROverlap")]
        );
    }

    #[test]
    fn a_pool_that_is_being_deleted_keeps_its_range_until_it_is_gone() {
        let mut dying = pool("a", 10, "10.32.0.0/12");
        dying.metadata.deletion_timestamp = dying.metadata.creation_timestamp.clone();
        let next = pool("b", 20, "10.40.0.0/16");
        assert_eq!(
            brief(&judged(vec![dying, next])),
            [("a", "Deleting"), ("b", "CIDROverlap")]
        );
    }

    #[test]
    fn nodes_and_services_are_not_covered_and_the_message_names_them() {
        let pools = [
            Arc::new(pool("n", 1, "172.30.0.0/24")),
            Arc::new(pool("s", 2, "10.96.0.0/20")),
        ];
        let verdicts = judge(&pools, &[node("n1", 110)], &[net("10.96.0.0/16")]);
        assert_eq!(
            brief(&verdicts),
            [("n", "OverlapsNodes"), ("s", "OverlapsServices")]
        );
        let message = |name: &str| verdicts[name].refusal.as_ref().unwrap().message();
        assert!(
            message("n").contains("172.30.0.11 of node n1"),
            "{}",
            message("n")
        );
        assert!(message("s").contains("10.96.0.0/16"), "{}", message("s"));
    }

    #[test]
    fn draining_disabled_and_broken_pools_give_out_nothing() {
        let mut draining = pool("a", 1, "10.1.0.0/16");
        draining.spec.phase = PoolPhase::Draining;
        let mut disabled = pool("b", 1, "10.2.0.0/16");
        disabled.spec.phase = PoolPhase::Disabled;
        let broken = pool("c", 1, "10.3.0.1/16");
        assert_eq!(
            brief(&judged(vec![draining, disabled, broken])),
            [("a", "Draining"), ("b", "Disabled"), ("c", "InvalidSpec")]
        );
    }
}

mod granting {
    use super::*;

    fn granted(
        verdicts: &BTreeMap<String, Verdict>,
        nodes: &[Arc<NodeRow>],
    ) -> Vec<(String, String)> {
        let all = grants(verdicts, nodes, &[], 0).create;
        all.into_iter()
            .map(|n| (n.node.name, n.cidr.to_string()))
            .collect()
    }

    #[test]
    fn a_node_of_110_pods_gets_two_blocks_of_26_and_every_node_one_before_any_gets_two() {
        let verdicts = judged(vec![pool("default", 1, "10.32.0.0/12")]);
        let expected = [
            ("n1", "10.32.0.0/26"),
            ("n2", "10.32.0.64/26"),
            ("n1", "10.32.0.128/26"),
            ("n2", "10.32.0.192/26"),
        ];
        assert_eq!(
            granted(&verdicts, &[node("n1", 110), node("n2", 110)]),
            expected.map(|(n, c)| (n.to_owned(), c.to_owned()))
        );
    }

    #[test]
    fn a_pool_too_small_serves_some_and_names_the_others() {
        let verdicts = judged(vec![pool("default", 1, "10.32.0.0/25")]);
        let nodes = ["n1", "n2", "n3"].map(|n| node(n, 10));
        let grants = grants(&verdicts, &nodes, &[], 0);
        assert_eq!(grants.create.len(), 2);
        assert_eq!(grants.without["default"], ["n3".to_owned()].into());
    }

    #[test]
    fn a_node_without_address_gets_nothing_and_the_others_do() {
        let verdicts = judged(vec![pool("default", 1, "10.32.0.0/12")]);
        let homeless = Arc::new(NodeRow {
            id: id("n0"),
            pods: 10,
            ..NodeRow::default()
        });
        assert_eq!(
            granted(&verdicts, &[homeless, node("n1", 10)]),
            [("n1".to_owned(), "10.32.0.0/26".to_owned())]
        );
    }

    #[test]
    fn other_pools_start_with_one_block_and_grow_at_three_quarters() {
        let verdicts = judged(vec![pool("team", 1, "10.32.0.0/16")]);
        let mut held = view_of("10.32.0.0/26", "n1");
        held.pool = "team".into();
        let more = |used: u32| {
            let view = BlockView {
                used,
                ..held.clone()
            };
            grants(&verdicts, &[node("n1", 110)], &[view], 0)
                .create
                .len()
        };
        assert_eq!((more(0), more(40), more(48)), (0, 0, 1));
    }

    #[test]
    fn single_address_blocks_stop_at_the_cap() {
        let mut tiny = pool("default", 1, "10.32.0.0/16");
        tiny.spec.block_size.v4 = 32;
        let count = grants(&judged(vec![tiny]), &[node("n1", 110)], &[], 0)
            .create
            .len();
        assert_eq!(count as u128, MAX_BLOCKS);
    }

    #[test]
    fn a_recreated_node_gets_blocks_of_its_own() {
        let verdicts = judged(vec![pool("default", 1, "10.32.0.0/12")]);
        let mut old = view_of("10.32.0.0/26", "n1");
        old.node.uid = "before".into();
        let created = grants(&verdicts, &[node("n1", 10)], &[old], 0).create;
        assert_eq!(created[0].cidr, net("10.32.0.64/26"));
        assert_eq!(created[0].node, id("n1"));
    }

    proptest! {
        #[test]
        fn no_two_blocks_overlap_and_granting_again_changes_nothing(
            pods in prop::collection::vec(1u32..300, 1..12),
            prefix in 18u8..26,
            block in 26u8..29,
        ) {
            let mut object = pool("default", 1, &format!("10.32.0.0/{prefix}"));
            object.spec.block_size.v4 = block;
            let verdicts = judged(vec![object]);
            let nodes: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(i, pods)| node(&format!("n{i}"), *pods))
                .collect();
            let first = grants(&verdicts, &nodes, &[], 0);
            let blocks: Vec<BlockView> = first
                .create
                .iter()
                .map(|new| BlockView {
                    node: new.node.clone(),
                    confirmed_uid: new.node.uid.clone(),
                    epoch: new.epoch,
                    confirmed_epoch: new.epoch,
                    ..view_of(&new.cidr.to_string(), "x")
                })
                .collect();
            for (i, a) in blocks.iter().enumerate() {
                for b in &blocks[i + 1..] {
                    prop_assert!(!weft_ipam::pool::overlaps(a.cidr, b.cidr));
                }
            }
            // Each is what the protocol decides with all before it in view.
            let pool = verdicts["default"].pool.as_ref().unwrap();
            for (i, new) in first.create.iter().enumerate() {
                let seen = &blocks[..i];
                let decided = decide_block(pool, Family::V4, &new.node, u128::MAX, seen, 0);
                prop_assert_eq!(decided, Grant::Create { cidr: new.cidr, epoch: new.epoch });
            }
            let again = grants(&verdicts, &nodes, &blocks, 0);
            prop_assert_eq!(again.create, vec![]);
            prop_assert_eq!(again.without, first.without);
        }
    }
}

mod reclaiming {
    use super::*;

    struct Scene {
        nodes: Vec<Arc<NodeRow>>,
        pods: Vec<Arc<PodRow>>,
        slices: Vec<Arc<PeerSlice>>,
        weft_nodes: Vec<Arc<WeftNode>>,
        memory: Memory,
    }

    /// n1 lives and has programmed `generation`; n2 is gone. The slices are of generation 7.
    fn scene(published: &[&str], generation: i64) -> Scene {
        let peer = Peer {
            node: "n2".into(),
            blocks: published.iter().map(|b| (*b).to_owned()).collect(),
            ..Peer::default()
        };
        let slice = PeerSliceSpec {
            generation: 7,
            peers: vec![peer],
        };
        let mut live = WeftNode::new(
            "n1",
            WeftNodeSpec {
                node_uid: id("n1").uid,
                ..WeftNodeSpec::default()
            },
        );
        live.status = Some(WeftNodeStatus {
            node_uid: id("n1").uid,
            peers_generation: generation,
            ..WeftNodeStatus::default()
        });
        Scene {
            nodes: vec![node("n1", 110)],
            pods: vec![],
            slices: vec![Arc::new(PeerSlice::new("peers-000", slice))],
            weft_nodes: vec![Arc::new(live)],
            memory: Memory::new(),
        }
    }

    impl Scene {
        fn look(&mut self, block: &BlockView, now: u64) -> usize {
            let world = World {
                nodes: &self.nodes,
                pods: &self.pods,
                slices: &self.slices,
                weft_nodes: &self.weft_nodes,
                now,
                patience: Patience { gap: 30, grace: 30 },
            };
            reclaim(std::slice::from_ref(block), &world, &mut self.memory).len()
        }
    }

    #[test]
    fn a_block_of_a_deleted_node_comes_back_after_the_grace() {
        let mut scene = scene(&[], 7);
        let block = view_of("10.32.0.0/26", "n2");
        assert_eq!(
            [100, 110, 129, 130].map(|t| scene.look(&block, t)),
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn not_while_a_slice_still_has_it() {
        let mut scene = scene(&["10.32.0.0/26"], 7);
        let block = view_of("10.32.0.0/26", "n2");
        assert_eq!([100, 200, 300].map(|t| scene.look(&block, t)), [0; 3]);
    }

    #[test]
    fn not_before_live_routers_report_the_generation_without_it() {
        let mut scene = scene(&[], 6);
        let block = view_of("10.32.0.0/26", "n2");
        assert_eq!([100, 200].map(|t| scene.look(&block, t)), [0; 2]);
        // A node whose kubelet is silent cannot report, and is not waited for.
        scene.nodes = vec![Arc::new(NodeRow {
            ready: false,
            ..NodeRow::clone(&scene.nodes[0])
        })];
        assert_eq!([300, 330].map(|t| scene.look(&block, t)), [0, 1]);
    }

    #[test]
    fn not_while_a_live_pod_has_an_address_of_it() {
        let mut scene = scene(&[], 7);
        let block = view_of("10.32.0.0/26", "n2");
        let pod = |live| {
            vec![Arc::new(PodRow {
                node: "n2".into(),
                addresses: vec![IpAddr::from([10, 32, 0, 9])],
                live,
                host_network: false,
            })]
        };
        scene.pods = pod(true);
        assert_eq!([100, 200].map(|t| scene.look(&block, t)), [0; 2]);
        scene.pods = pod(false);
        assert_eq!([300, 330].map(|t| scene.look(&block, t)), [0, 1]);
    }

    #[test]
    fn a_node_that_comes_back_resets_the_grace() {
        let mut scene = scene(&[], 7);
        let block = view_of("10.32.0.0/26", "n2");
        assert_eq!(scene.look(&block, 100), 0);
        let gone = scene.nodes.clone();
        scene.nodes.push(node("n2", 110));
        assert_eq!(scene.look(&block, 120), 0);
        scene.nodes = gone;
        assert_eq!([130, 140, 160].map(|t| scene.look(&block, t)), [0, 0, 1]);
    }

    #[test]
    fn what_its_own_node_gives_back_needs_no_grace() {
        let mut scene = scene(&["10.32.0.0/26"], 0);
        let block = BlockView {
            phase: Phase::Releasing,
            ..view_of("10.32.0.0/26", "n1")
        };
        assert_eq!(scene.look(&block, 100), 1);
        let in_use = BlockView { used: 1, ..block };
        assert_eq!(scene.look(&in_use, 100), 0);
    }
}

mod reporting {
    use super::*;

    #[test]
    fn a_status_counts_and_explains_and_is_stable() {
        let object = pool("default", 1, "10.32.0.0/25");
        let verdicts = judged(vec![object.clone()]);
        let nodes = ["n1", "n2", "n3"].map(|n| node(n, 10));
        let blocks = [
            BlockView {
                used: 3,
                ..view_of("10.32.0.0/26", "n1")
            },
            BlockView {
                used: 1,
                ..view_of("10.32.0.64/26", "n2")
            },
        ];
        let grants = grants(&verdicts, &nodes, &blocks, 0);
        let first = status(&object, &verdicts["default"], &grants, &blocks, "t1");
        let condition = |type_: &str, status, reason: &str, message: &str| Condition {
            type_: type_.into(),
            status,
            reason: reason.into(),
            message: message.into(),
            observed_generation: Some(1),
            last_transition_time: Some("t1".into()),
        };
        assert_eq!(
            first.conditions,
            [
                condition("CIDROverlap", ConditionStatus::False, "NoOverlap", ""),
                condition(
                    "Exhausted",
                    ConditionStatus::True,
                    "NodesWithoutBlock",
                    "no block left for: n3; pods there get no address of this pool: add a CIDR to \
                     the pool, or a pool"
                ),
                condition(
                    "Ready",
                    ConditionStatus::True,
                    "InUse",
                    "blocks are given out"
                ),
            ]
        );
        // 128 addresses without network and broadcast address of the range.
        assert_eq!(
            (
                first.capacity.as_str(),
                first.allocated,
                first.free.as_str(),
                first.blocks
            ),
            ("126", 4, "122", 2)
        );
        assert_eq!(
            news(None, &first)
                .iter()
                .map(|c| c.type_.as_str())
                .collect::<Vec<_>>(),
            ["Exhausted"]
        );
        let mut later = object;
        later.status = Some(first.clone());
        let second = status(&later, &verdicts["default"], &grants, &blocks, "t2");
        assert_eq!(second, first);
        assert!(news(Some(&first), &second).is_empty());
    }
}
