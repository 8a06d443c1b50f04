use super::FileStore;
use crate::{
    log::{Damage, Identity, LogStore},
    node::{Allocator, Attachment, NodeBlock, Pod, PoolWant, Request, Start},
    pool::Family,
};

fn identity() -> Identity {
    Identity {
        cluster: "c".into(),
        node: "n1".into(),
    }
}

fn request(container: &str) -> Request {
    Request {
        id: Attachment {
            container_id: container.into(),
            ifname: "eth0".into(),
        },
        pod: Pod::default(),
        pools: vec![PoolWant {
            pool: "default".into(),
            families: vec![Family::V4],
        }],
        fixed: vec![],
    }
}

#[test]
fn a_log_in_a_directory_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("weft");
    let (mut allocator, start) = Allocator::open(FileStore::new(&state), identity());
    assert_eq!(start, Start::NeedsRebuild(Damage::Missing));
    let _ = allocator.rebuild(vec![], 1);
    allocator.set_blocks(
        vec![NodeBlock {
            cidr: "10.32.0.0/26".parse().unwrap(),
            pool: "default".into(),
            pool_cidr: "10.32.0.0/12".parse().unwrap(),
            epoch: 1,
            cooldown: 30,
            reserved: vec!["10.32.0.0/32".parse().unwrap()],
            active: true,
        }],
        vec!["10.32.0.1".parse().unwrap()],
    );
    let given = allocator.reserve(&request("a"), 2).unwrap();
    allocator.reserve(&request("b"), 2).unwrap();
    allocator.release(&request("b").id, 3);
    drop(allocator);
    let (allocator, start) = Allocator::open(FileStore::new(&state), identity());
    assert_eq!(start, Start::Ready { cut: 0 });
    assert_eq!(allocator.list().cloned().collect::<Vec<_>>(), vec![given]);
    assert_eq!(
        allocator.gateways(),
        ["10.32.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(!state.join("ipam.log.new").exists());
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_and_a_log_that_is_a_directory_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(FileStore::new(&file.join("sub")).replace(b"x").is_err());
    std::fs::create_dir(dir.path().join(super::LOG)).unwrap();
    assert!(FileStore::new(dir.path()).read().is_err());
    assert!(FileStore::new(dir.path()).replace(b"x").is_err());
    assert!(!dir.path().join("ipam.log.new").exists());
}
