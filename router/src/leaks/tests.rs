use std::net::IpAddr;

use clap::Parser;
use prometheus_client::registry::Registry;
use weft_ipam::{
    node::{Attachment, NodeBlock, PoolWant, Request},
    pool::Family,
};
use weft_netlink::{Kind, Link};

use super::*;
use crate::{
    args::{Args, Command},
    kernel::{PortTable, Ports},
    metrics::Metrics,
    stores::Stores,
};

const CLUSTER: &str = "c";

fn id() -> AttachmentId {
    AttachmentId {
        container_id: "0123456789ab".into(),
        ifname: "eth0".into(),
    }
}

struct Stage {
    shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().to_str().unwrap();
        let args = ["weft-router", "run", "--node-name", "n1", "--run-dir", run];
        let Command::Run(args) = Args::parse_from(args).command else {
            unreachable!()
        };
        let (mut allocator, _) = ipam::open(dir.path(), CLUSTER, "n1");
        allocator.rebuild(Vec::new(), 0);
        let cidr = "10.32.0.0/26".parse().unwrap();
        let block = NodeBlock {
            cidr,
            pool: "default".into(),
            pool_cidr: cidr,
            epoch: 1,
            cooldown: 0,
            reserved: Vec::new(),
            active: true,
        };
        allocator.set_blocks(vec![block], Vec::new());
        let stores = Stores::bare();
        let metrics = Metrics::new(&mut Registry::default());
        let config = weft_crds::NodeConfig::default();
        // Nothing is written before a first pass, which never comes here.
        let ports = Ports::new(PortTable::new(false));
        let kernel = Kernel::connect().unwrap();
        Self {
            shared: Arc::new(Shared::new(
                args, config, stores, ports, kernel, metrics, allocator,
            )),
            _dir: dir,
        }
    }

    fn reserve(&self) -> Reservation {
        let request = Request {
            id: ipam::attachment(&id()),
            pools: vec![PoolWant {
                pool: "default".into(),
                families: vec![Family::V4],
            }],
            ..Request::default()
        };
        self.shared.ipam().reserve(&request, clock::now()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_del_that_was_left_to_us_is_carried_out_once() {
    let stage = Stage::new();
    stage.reserve();
    tombstone::bury(&stage.shared.del_dir, &id()).unwrap();
    replay_tombstones(&stage.shared).await;
    assert_eq!(stage.shared.reservations(), []);
    assert_eq!(tombstone::list(&stage.shared.del_dir).unwrap(), []);
}

/// The list of tombstones is as old as the loop over it; the ADD has taken its tombstone away since.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_add_keeps_what_it_was_given() {
    let stage = Stage::new();
    stage.reserve();
    tombstone::bury(&stage.shared.del_dir, &id()).unwrap();
    let stones = tombstone::list(&stage.shared.del_dir).unwrap();
    tombstone::exhume(&stage.shared.del_dir, &id()).unwrap();
    let given = stage.reserve();
    for stone in &stones {
        replay(&stage.shared, stone).await;
    }
    assert_eq!(stage.shared.reservations(), [given]);
}

/// ADDs and replays of one attachment at once: what an ADD was given stays given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_replay_takes_what_an_add_was_given_after_its_tombstone_went() {
    let stage = std::sync::Arc::new(Stage::new());
    let adding = {
        let stage = std::sync::Arc::clone(&stage);
        tokio::task::spawn_blocking(move || {
            let dir = &stage.shared.del_dir;
            for _ in 0..300 {
                tombstone::bury(dir, &id()).unwrap();
                tombstone::exhume(dir, &id()).unwrap();
                let given = stage.reserve();
                std::thread::yield_now();
                assert_eq!(stage.shared.reservations(), [given]);
            }
        })
    };
    while !adding.is_finished() {
        replay_tombstones(&stage.shared).await;
        tokio::task::yield_now().await;
    }
    adding.await.unwrap();
}

fn veth(alias: &str) -> Link {
    Link {
        kind: Kind::Veth { peer: None },
        alias: alias.into(),
        group: 0,
        mac: None,
        mtu: None,
        up: None,
        port: None,
    }
}

#[test]
fn a_link_with_our_alias_lives_and_one_of_its_name_without_is_unknown() {
    let reservation = Reservation {
        id: Attachment {
            container_id: "0123456789ab".into(),
            ifname: "eth0".into(),
        },
        addresses: vec![IpAddr::from([10, 32, 0, 5])],
        ..Reservation::default()
    };
    let shown = |links: &[(&str, &str)]| {
        let network = Network {
            links: links
                .iter()
                .map(|(name, alias)| (IfName::parse(name).unwrap(), veth(alias)))
                .collect(),
            ..Network::default()
        };
        Shown::new(&network, CLUSTER).of(&reservation).host_link
    };
    let usual = "vethwepl0123456";
    assert_eq!(shown(&[(usual, "weft/c/0123456789ab")]), Some(true));
    assert_eq!(shown(&[("renamed0", "weft/c/0123456789ab")]), Some(true));
    assert_eq!(
        shown(&[("renamed0", "weft/c/0123456789ab/net1")]),
        Some(false)
    );
    assert_eq!(shown(&[("vethwepl9999999", "weft/c/9999999")]), Some(false));
    assert_eq!(shown(&[]), Some(false));
    // Somebody wiped the alias, or the link is of another cluster or container.
    for alias in ["", "weft/other/0123456789ab", "weft/c/0123456999"] {
        assert_eq!(shown(&[(usual, alias)]), None, "{alias}");
    }
}

#[test]
fn what_was_taken_back_is_told_with_its_pod() {
    let mut released = Reservation {
        id: ipam::attachment(&id()),
        addresses: vec!["10.32.0.5".parse().unwrap(), "fd00:10::5".parse().unwrap()],
        ..Reservation::default()
    };
    assert_eq!(
        note(&released),
        "took back 10.32.0.5 and fd00:10::5: container 0123456789ab has no link on this node any \
         more, and no DEL came"
    );
    released.pod.namespace = "ns".into();
    released.pod.name = "web-0".into();
    assert!(note(&released).contains("fd00:10::5 of pod ns/web-0: "));
}
