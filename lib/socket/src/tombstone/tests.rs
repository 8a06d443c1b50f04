use super::{bury, exhume, list};
use crate::AttachmentId;

fn id(container: &str) -> AttachmentId {
    AttachmentId {
        container_id: container.into(),
        ifname: "eth0".into(),
    }
}

#[test]
fn what_is_buried_is_listed_until_it_is_removed_and_twice_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let del = dir.path().join("del");
    assert_eq!(list(&del).unwrap(), vec![]);
    bury(&del, &id("b")).unwrap();
    bury(&del, &id("a")).unwrap();
    bury(&del, &id("a")).unwrap();
    let listed = list(&del).unwrap();
    assert_eq!(
        listed.iter().map(|t| t.id.clone()).collect::<Vec<_>>(),
        vec![id("a"), id("b")]
    );
    listed[0].remove().unwrap();
    listed[0].remove().unwrap();
    exhume(&del, &id("b")).unwrap();
    exhume(&del, &id("b")).unwrap();
    assert_eq!(list(&del).unwrap(), vec![]);
}

#[test]
fn files_that_are_no_tombstones_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x-eth0"), "not json").unwrap();
    std::fs::write(
        dir.path().join(".y-eth0"),
        r#"{"container_id":"y","ifname":"eth0"}"#,
    )
    .unwrap();
    assert_eq!(list(dir.path()).unwrap(), vec![]);
}
