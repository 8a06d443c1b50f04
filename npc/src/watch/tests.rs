use serde_json::{from_value, json};

use super::*;

fn pod(name: &str, uid: &str, labels: serde_json::Value) -> Pod {
    let pod = json!({
        "metadata": {"name": name, "namespace": "x", "uid": uid, "resourceVersion": "1",
            "labels": labels},
        "spec": {"nodeName": "n2", "containers": []},
        "status": {"podIPs": [{"ip": "10.32.1.2"}]},
    });
    from_value(pod).expect("a pod")
}

fn relist(state: &State, pods: &[Pod]) {
    pod_event(state, Event::Init);
    for pod in pods {
        pod_event(state, Event::InitApply(pod.clone()));
    }
    pod_event(state, Event::InitDone);
}

#[test]
fn a_relist_that_changes_nothing_asks_for_no_sync() {
    let state = State::new("n1");
    let pods = [
        pod("a", "1", json!({"app": "web"})),
        pod("b", "2", json!({})),
    ];
    relist(&state, &pods);
    let changed = state.watch_changed();
    let version = *changed.borrow();
    relist(&state, &pods);
    assert_eq!(*changed.borrow(), version);
    relist(&state, &pods[..1]);
    assert!(*changed.borrow() > version);
}

#[test]
fn a_relist_that_fails_on_the_way_takes_nothing_away() {
    let state = State::new("n1");
    let pods = [pod("a", "1", json!({})), pod("b", "2", json!({}))];
    let known = |name: &str| state.look_up(|index| index.pod(&ObjectKey::new("x", name)).is_some());
    relist(&state, &pods);
    pod_event(&state, Event::Init);
    pod_event(&state, Event::InitApply(pods[0].clone()));
    assert!(known("a") && known("b"));
    relist(&state, &pods[1..]);
    assert!(!known("a") && known("b"));
}

#[test]
fn a_thousand_changes_of_labels_are_one_change_for_who_comes_later() {
    let state = State::new("n1");
    for list in List::ALL {
        state.arrived(list);
    }
    for n in 0..1000 {
        pod_event(
            &state,
            Event::Apply(pod("a", "1", json!({"turn": n.to_string()}))),
        );
    }
    let first = state.snapshot().expect("every list is there");
    let second = state.snapshot().expect("every list is there");
    assert!(first.since.is_some() && second.since.is_none());
    assert_eq!(first.model, second.model);
}
