use std::net::IpAddr;

use serde_json::{from_value, json};
use weft_policy::{Endpoint, EndpointId};

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

/// Hands over a Namespace `x`, as it was written or deleted at a version.
fn namespace(version: u64, deleted: bool) -> Namespace {
    let timestamp = deleted.then_some("2026-01-01T00:00:00Z");
    let namespace = json!({"metadata": {"name": "x", "resourceVersion": version.to_string(),
        "deletionTimestamp": timestamp}});
    from_value(namespace).expect("a namespace")
}

fn policy(version: u64) -> NetworkPolicy {
    let policy = json!({"metadata": {"name": "p", "namespace": "x", "uid": "u",
        "resourceVersion": version.to_string()}, "spec": {"podSelector": {}}});
    from_value(policy).expect("a policy")
}

/// A state with the pod `x/a` of this node, and every list.
fn with_a_policy() -> State {
    let state = State::new("n1");
    let attached = json!({"metadata": {"name": "a", "namespace": "x", "uid": "1"},
        "spec": {"nodeName": "n1"}});
    pod_event(&state, Event::Apply(from_value(attached).expect("a pod")));
    let endpoint = Endpoint {
        pod: ObjectKey::new("x", "a"),
        uid: "1".into(),
        addresses: [IpAddr::from([10, 32, 0, 2])].into(),
        host_ifname: "veth".to_owned(),
    };
    state.attach(EndpointId::new("1", "eth0"), endpoint);
    namespace_event(
        &state,
        &mut ListedNamespaces::default(),
        Event::Apply(namespace(1, false)),
    );
    policy_event(&state, &mut BTreeSet::new(), Event::Apply(policy(2)));
    for list in List::ALL {
        state.arrived(list);
    }
    state
}

fn policies_in_force(state: &State) -> usize {
    let snapshot = state.snapshot().expect("every list is there");
    snapshot.model.policies.len()
}

#[test]
fn a_policy_that_goes_with_its_namespace_holds_whichever_of_the_two_watches_is_first() {
    let leaves = |state: &State| {
        let event = Event::Apply(namespace(5, true));
        namespace_event(state, &mut ListedNamespaces::default(), event);
    };
    let goes = |state: &State| policy_event(state, &mut BTreeSet::new(), Event::Delete(policy(6)));
    let state = with_a_policy();
    leaves(&state);
    goes(&state);
    assert_eq!(policies_in_force(&state), 1);
    let state = with_a_policy();
    goes(&state);
    assert_eq!(policies_in_force(&state), 0);
    leaves(&state);
    assert_eq!(policies_in_force(&state), 1);
    // A list without it, and the end of the Namespace.
    policy_event(&state, &mut BTreeSet::new(), Event::InitDone);
    let event = Event::Delete(namespace(7, true));
    namespace_event(&state, &mut ListedNamespaces::default(), event);
    assert_eq!(policies_in_force(&state), 1);
    state.detach(&EndpointId::new("1", "eth0"));
    pod_event(&state, Event::Delete(pod("a", "1", json!({}))));
    assert_eq!(state.look_up(Index::clone), Index::new("n1"));
}
