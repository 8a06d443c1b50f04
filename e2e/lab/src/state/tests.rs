use super::*;
use crate::options::{Families, ProxyMode};

fn state() -> State {
    let options = Options {
        nodes: 3,
        proxy_mode: ProxyMode::Iptables,
        families: Families::V4,
        underlay_mtu: 1500,
    };
    State::new("0a1b2c3d".into(), options)
}

#[test]
fn no_file_is_no_lab() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(
        State::read(&directory.path().join("state.json")).unwrap(),
        None
    );
}

#[test]
fn every_change_is_on_disk_when_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lab/state.json");
    let store = Store::create(path.clone(), state()).unwrap();
    assert_eq!(State::read(&path).unwrap(), Some(state()));

    store
        .change(|state| state.nodes.insert("n1".into(), 1))
        .unwrap();
    store
        .change(|state| {
            state.daemons.insert(
                key("n1", "kubelet"),
                ProcessId {
                    pid: 7,
                    start_time: 9,
                },
            )
        })
        .unwrap();
    let expected = State {
        nodes: BTreeMap::from([("n1".into(), 1)]),
        daemons: BTreeMap::from([(
            "n1/kubelet".into(),
            ProcessId {
                pid: 7,
                start_time: 9,
            },
        )]),
        ..state()
    };
    assert_eq!(State::read(&path).unwrap(), Some(expected.clone()));
    assert_eq!(store.get(), expected);
}

#[test]
fn a_broken_or_foreign_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.json");
    for text in ["", "{\"version\":1", "{\"version\":1}"] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(
            State::read(&path).unwrap_err().to_string(),
            format!("{} is no state file of a lab", path.display())
        );
    }
    std::fs::write(
        &path,
        serde_json::to_vec(&State {
            version: 2,
            ..state()
        })
        .unwrap(),
    )
    .unwrap();
    assert_eq!(
        State::read(&path).unwrap_err().to_string(),
        format!(
            "{} has version 2, this program knows 1; run `down` from the checkout that made it",
            path.display()
        )
    );
}
