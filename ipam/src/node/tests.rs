//! The allocator, on a node with a small block of each family.

mod given;
mod kept;
mod random;

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Allocator, Attachment, Durability, NodeBlock, Pod, PoolWant, Request, Start};
use crate::{
    log::{Damage, Identity, MemoryStore},
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
