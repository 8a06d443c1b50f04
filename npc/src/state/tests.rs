use super::*;

fn id(n: u8) -> EndpointId {
    EndpointId::new(&format!("container{n}"), "eth0")
}

fn endpoint(n: u8) -> Endpoint {
    attached(&format!("default/pod{n}"), &[&format!("10.32.0.{n}")]).1
}

/// The pod `NAMESPACE/NAME` as the router lists it: its container and its UID are called as it is.
pub(crate) fn attached(pod: &str, addresses: &[&str]) -> (EndpointId, Endpoint) {
    let (namespace, name) = pod.split_once('/').expect("NAMESPACE/NAME");
    let addresses = addresses.iter().map(|a| a.parse().expect("address"));
    let endpoint = Endpoint {
        pod: ObjectKey::new(namespace, name),
        uid: name.into(),
        addresses: addresses.collect(),
        host_ifname: format!("vethwepl{name}"),
    };
    (EndpointId::new(name, "eth0"), endpoint)
}

fn ready() -> State {
    let state = State::new("n1");
    for list in List::ALL {
        state.arrived(list);
    }
    state
}

fn subjects(state: &State) -> Vec<String> {
    let snapshot = state.snapshot().expect("every list is there");
    let keys = snapshot.model.subjects.keys();
    keys.map(|key| key.pod.name.to_string()).collect()
}

#[test]
fn there_is_nothing_to_apply_before_every_first_list() {
    let state = State::new("n1");
    for list in [List::Pods, List::Namespaces, List::Endpoints] {
        state.arrived(list);
        assert!(state.snapshot().is_none());
    }
    state.trouble(List::NetworkPolicies, "forbidden".to_owned());
    assert_eq!(
        state.missing(),
        ["list of NetworkPolicies has not arrived (forbidden)"]
    );
    state.arrived(List::NetworkPolicies);
    assert!(state.snapshot().is_some());
}

#[test]
fn what_comes_or_goes_while_the_router_is_asked_is_newer_than_its_answer() {
    let state = ready();
    state.attach(id(1), endpoint(1));
    state.attach(id(2), endpoint(2));
    let before = state.asking();
    state.attach(id(3), endpoint(3));
    state.detach(&id(2));
    // The router answers what it knew when it was asked, and one that npc never heard of.
    let listed = [2, 4].map(|n| (id(n), endpoint(n))).into();
    state.answered(&before, listed, Place::default());
    assert_eq!(subjects(&state), ["pod3", "pod4"]);
}

#[test]
fn what_goes_and_comes_again_while_the_router_is_asked_stays() {
    let state = ready();
    state.attach(id(1), endpoint(1));
    let before = state.asking();
    state.detach(&id(1));
    // The router answers between the two.
    state.attach(id(1), endpoint(1));
    state.answered(&before, Vec::new(), Place::default());
    assert_eq!(subjects(&state), ["pod1"]);
    // It is asked again.
    let before = state.asking();
    state.answered(&before, Vec::new(), Place::default());
    assert_eq!(subjects(&state), [""; 0]);
}

#[test]
fn a_failed_sync_keeps_the_age_of_its_changes() {
    let state = ready();
    let first = state.snapshot().expect("snapshot").since;
    assert!(first.is_some());
    state.failed(first, "busy".to_owned());
    assert_eq!(state.failure().as_deref(), Some("busy"));
    state.attach(id(1), endpoint(1));
    assert_eq!(state.snapshot().expect("snapshot").since, first);
    assert_eq!(state.snapshot().expect("snapshot").since, None);
}

#[test]
fn namespaces_that_ask_for_the_log_are_in_the_view_and_asking_again_is_no_change() {
    let state = ready();
    let asking: BTreeSet<Arc<str>> = ["shop".into()].into();
    state.log_allowed(|all| *all = asking.clone());
    let first = state.snapshot().expect("every list is there");
    assert_eq!(first.view.log_allowed, asking);
    state.log_allowed(|all| *all = asking.clone());
    assert_eq!(state.snapshot().expect("snapshot").version, first.version);
    state.log_allowed(BTreeSet::clear);
    let last = state.snapshot().expect("snapshot");
    assert_eq!(last.view.log_allowed, BTreeSet::new());
    assert!(last.version > first.version);
}
