use std::path::Path;

use super::*;
use crate::options::{Families, Options, ProxyMode};
use crate::process::ProcessId;

fn lab() -> (Layout, State) {
    let options = Options {
        nodes: 1,
        proxy_mode: ProxyMode::Iptables,
        families: Families::V4,
        underlay_mtu: 1500,
    };
    let mut state = State::new("0a1b2c3d".into(), options);
    state.phase = Phase::Up;
    state.nodes.insert("n1".into(), 1);
    let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
    for name in [HUB, OUTSIDE, "n1"] {
        state.holders.insert(name.into(), own);
    }
    // The API server is left out: nothing answers here.
    for process in ["etcd", "kube-controller-manager", "kube-scheduler"] {
        state.daemons.insert(key(HUB, process), own);
    }
    for process in node::PROCESSES {
        state.daemons.insert(key("n1", process), own);
    }
    (Layout::new(Path::new("/src"), Path::new("/cache")), state)
}

#[test]
fn a_lab_is_healthy_only_when_everything_runs() {
    let (layout, mut state) = lab();
    assert!(
        !of(&layout, &state).is_healthy(),
        "the API server is missing"
    );

    let dead = ProcessId {
        pid: i32::MAX,
        start_time: 1,
    };
    state.daemons.insert(key("n1", "kubelet"), dead);
    state.stopped.insert(key("n1", "link"));
    let status = of(&layout, &state);
    assert_eq!(
        status.members[2],
        MemberStatus {
            name: "n1".into(),
            addresses: vec!["172.30.0.11".into()],
            namespaces_pid: Some(std::process::id().cast_signed()),
            processes: BTreeMap::from([
                ("containerd".into(), ProcessStatus::Running),
                ("kube-proxy".into(), ProcessStatus::Running),
                ("kubelet".into(), ProcessStatus::Died),
            ]),
            link: Some(ProcessStatus::Stopped),
            ready: None,
        }
    );
}

#[test]
fn the_table_shows_what_is_wrong() {
    let (layout, mut state) = lab();
    state.stopped.insert(key("n1", "kubelet"));
    let text = of(&layout, &state).to_string();
    assert!(
        text.contains("export KUBECONFIG=/src/target/lab/admin.kubeconfig\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "n1       172.30.0.11              -         containerd running, kube-proxy running, kubelet stopped\n"
        ),
        "{text}"
    );
}

#[test]
fn a_node_without_a_report_is_not_registered() {
    assert_eq!(
        parse_readiness("n1=True n2=False n3= \n"),
        BTreeMap::from([("n1".into(), "True".into()), ("n2".into(), "False".into())])
    );
}
