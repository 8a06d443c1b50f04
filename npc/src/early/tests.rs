use weft_netfilter::{Family, TableName, backend::Iptables, fake::FakeKernel};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey};
use weft_testkit::builders::{make_namespace, make_network_policy, make_pod, pods};

use super::*;
use crate::{
    state::{List, State},
    sync::tests::{Told, forward, harm, sync},
};

fn address(host: u8) -> IpAddr {
    IpAddr::from([10, 32, 0, host])
}

fn endpoint(name: &str, uid: &str, host: u8) -> (EndpointId, Endpoint) {
    let endpoint = Endpoint {
        pod: ObjectKey::new("default", name),
        uid: uid.into(),
        addresses: [address(host)].into(),
        host_ifname: format!("vethwepl{host}"),
    };
    (EndpointId::new(&format!("c{host}"), "eth0"), endpoint)
}

fn key(name: &str, uid: &str) -> SubjectKey {
    SubjectKey {
        pod: ObjectKey::new("default", name),
        uid: uid.into(),
    }
}

/// Before the reboot: `web` (10.32.0.2) lets `client` (10.32.0.3 here, 10.32.0.70 elsewhere) in and
/// may send to the named port `http` of `client`.
fn before() -> Kept {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("default", &[]));
    let web = make_pod("default", "web").uid("u-web").node("n1");
    index.apply_pod(&web.label("app", "web").build());
    for (name, node, ip) in [("client", "n1", "10.32.0.3"), ("far", "n2", "10.32.0.70")] {
        let pod = make_pod("default", name).uid(&format!("u-{name}"));
        let pod = pod.node(node).address(ip).label("app", "client");
        index.apply_pod(&pod.port("http", "TCP", 8080).build());
    }
    let clients = || vec![pods(&[("app", "client")])];
    let http = k8s_openapi::api::networking::v1::NetworkPolicyPort {
        port: Some(
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("http".to_owned()),
        ),
        ..Default::default()
    };
    let policy = make_network_policy("default", "p")
        .selects(&[("app", "web")])
        .types(&["Ingress", "Egress"])
        .ingress(clients(), vec![])
        .egress(clients(), vec![http]);
    index.apply_network_policy(&policy.build());
    for (id, endpoint) in [
        endpoint("web", "u-web", 2),
        endpoint("client", "u-client", 3),
    ] {
        index.apply_endpoint(id, endpoint);
    }
    Kept {
        backend: "iptables-nft".to_owned(),
        blocks: place().blocks,
        gateways: place().gateways,
        model: index.model(),
    }
}

fn place() -> Place {
    Place {
        blocks: ["10.32.0.0/26".parse().expect("net")].into(),
        gateways: [address(1)].into(),
    }
}

/// What the router lists after the reboot.
fn here(endpoints: &[(EndpointId, Endpoint)]) -> Here {
    let mut index = Index::new("n1");
    index.reset_endpoints(endpoints.to_vec());
    Here {
        subjects: index.subjects(),
        place: place(),
    }
}

/// Who is a peer, and whose named ports are.
fn peers(model: &PolicyModel) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let addresses = model
        .peers
        .values()
        .flat_map(|peer| peer.iter().copied())
        .collect();
    let rules = model.policies.values().flat_map(|policy| &policy.egress);
    let ports = rules.flatten().flat_map(|rule| match &rule.ports {
        Ports::Only(ports) => ports.iter().collect(),
        Ports::Any => Vec::new(),
    });
    let named = ports.flat_map(|port| match port {
        PortMatch::Named(named) => named.members.iter().map(|(address, _)| *address).collect(),
        PortMatch::Protocol(_) | PortMatch::Range(..) => Vec::new(),
    });
    (addresses, named.collect())
}

#[test]
fn pods_that_are_still_attached_are_judged_as_before() {
    let kept = before();
    let listed = [
        endpoint("web", "u-web", 2),
        endpoint("client", "u-client", 3),
    ];
    let (model, place) = last_state(Some(&kept), here(&listed));
    assert_eq!(model, kept.model);
    assert_eq!(place, self::place());
    let both: BTreeSet<IpAddr> = [address(3), address(70)].into();
    assert_eq!(peers(&model), (both.clone(), both));
}

#[test]
fn until_the_router_answers_nobody_is_known_and_local_addresses_are_no_peers() {
    let kept = before();
    let (model, place) = last_state(Some(&kept), Here::default());
    assert_eq!(model.subjects, BTreeMap::new());
    assert_eq!(model.policies.len(), 1);
    assert_eq!(place, self::place());
    let far: BTreeSet<IpAddr> = [address(70)].into();
    assert_eq!(peers(&model), (far.clone(), far));
    assert!(place.view().is_closed(&model, address(2)));
}

#[test]
fn an_address_that_another_pod_has_now_is_no_peer_and_the_pod_is_not_known() {
    let listed = [
        endpoint("web", "u-web", 2),
        // A client of the same name, and somebody else at the old address.
        endpoint("client", "u-new", 4),
        endpoint("evil", "u-evil", 3),
    ];
    let (model, place) = last_state(Some(&before()), here(&listed));
    let unknown = |key: SubjectKey| model.subjects[&key].standing == Standing::Unknown;
    assert!(unknown(key("client", "u-new")) && unknown(key("evil", "u-evil")));
    assert!(!unknown(key("web", "u-web")));
    let far: BTreeSet<IpAddr> = [address(70)].into();
    assert_eq!(peers(&model), (far.clone(), far));
    let closed = [2, 3, 4].map(|host| place.view().is_closed(&model, address(host)));
    assert_eq!(closed, [false, true, true]);
}

#[test]
fn a_pod_in_a_new_sandbox_keeps_its_policy_at_its_new_address() {
    let listed = [endpoint("web", "u-web", 9)];
    let (model, place) = last_state(Some(&before()), here(&listed));
    let web = &model.subjects[&key("web", "u-web")];
    assert_eq!(web.addresses, [address(9)].into());
    assert!(web.standing.is_closed(weft_policy::Direction::Ingress));
    let closed = [2, 9].map(|host| place.view().is_closed(&model, address(host)));
    assert_eq!(closed, [true, false]);
}

#[test]
fn without_a_snapshot_the_router_s_blocks_are_closed_and_without_either_nothing_is() {
    let (model, place) = last_state(None, here(&[endpoint("web", "u-web", 2)]));
    assert!(place.view().is_closed(&model, address(2)));
    assert!(!place.view().is_closed(&model, address(1)));
    let (model, place) = last_state(None, Here::default());
    assert_eq!((model, place), (PolicyModel::default(), Place::default()));
}

/// A loop whose API has not answered; the router has.
fn loop_after_reboot(kept: Option<Kept>) -> (Arc<State>, Sync<Iptables<FakeKernel>>) {
    let state = Arc::new(State::new("n1"));
    let mut sync = sync(&state);
    sync.early = Early::new(kept);
    let before = state.asking();
    state.answered(&before, vec![endpoint("web", "u-web", 2)], place());
    state.arrived(List::Endpoints);
    (state, sync)
}

fn known(sync: &mut Sync<Iptables<FakeKernel>>) -> Vec<String> {
    let sets = sync.backend.tools_mut().sets();
    let known = sets
        .get("weft-npc-known-4")
        .or_else(|| sets.get("weft-npc-known-4.b"))
        .expect("the set");
    known.elements.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn an_empty_kernel_gets_the_last_state_and_no_pod_is_let_in() {
    let (state, mut sync) = loop_after_reboot(Some(before()));
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
    assert_eq!(known(&mut sync), ["10.32.0.1", "10.32.0.2"]);
    assert_eq!(*state.watch_applied().borrow(), 0);
    // A pod that comes now is closed; one that goes leaves.
    let (id, new) = endpoint("new", "u-new", 7);
    state.attach(id, new);
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(known(&mut sync), ["10.32.0.1", "10.32.0.2"]);
    state.detach(&endpoint("web", "u-web", 2).0);
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(known(&mut sync), ["10.32.0.1"]);
    assert_eq!(*state.watch_applied().borrow(), 0);
}

#[tokio::test]
async fn without_a_snapshot_an_empty_kernel_gets_the_closed_blocks() {
    let (_, mut sync) = loop_after_reboot(None);
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
    assert_eq!(known(&mut sync), ["10.32.0.1"]);
}

#[tokio::test]
async fn rules_that_are_there_stay_until_somebody_takes_them_away() {
    // An npc before this one applied what the API said.
    let (state, mut first) = loop_after_reboot(None);
    for list in List::ALL {
        state.arrived(list);
    }
    state.update(|index| {
        index.apply_pod(&make_pod("default", "web").uid("u-web").node("n1").build())
    });
    first.sync().await.expect("synced");
    let there = first.backend.tools_mut().clone();

    let (_, mut sync) = loop_after_reboot(None);
    *sync.backend.tools_mut() = there.clone();
    sync.before_first_lists(false).await.expect("nothing to do");
    sync.before_first_lists(true).await.expect("nothing to do");
    assert_eq!(*sync.backend.tools_mut(), there);

    let kernel = sync.backend.tools_mut();
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .clear();
    sync.before_first_lists(true).await.expect("applied");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
    // From now on they are ours, and drift of them is repaired.
    let kernel = sync.backend.tools_mut();
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .clear();
    sync.before_first_lists(true).await.expect("repaired");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
}

#[tokio::test]
async fn a_chain_that_was_emptied_is_not_in_force() {
    let (_, mut sync) = loop_after_reboot(None);
    sync.before_first_lists(false).await.expect("applied");
    let there = sync.backend.tools_mut().clone();
    let (_, mut sync) = loop_after_reboot(None);
    *sync.backend.tools_mut() = there.clone();
    let kernel = sync.backend.tools_mut();
    kernel
        .chain_mut(Family::V4, TableName::Filter, "WEFT-NPC")
        .clear();
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(*sync.backend.tools_mut(), there);
}

#[tokio::test]
async fn a_repair_that_fails_is_tried_again_whether_or_not_it_is_time_to_look() {
    let (_, mut sync) = loop_after_reboot(None);
    sync.before_first_lists(false).await.expect("applied");
    let kernel = sync.backend.tools_mut();
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .clear();
    kernel.fail_after(0);
    sync.before_first_lists(true).await.unwrap_err();
    sync.before_first_lists(false).await.expect("repaired");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
}

#[tokio::test]
async fn a_failure_is_tried_again_and_the_first_lists_end_it() {
    let (state, mut sync) = loop_after_reboot(Some(before()));
    let in_force = sync.early.in_force();
    sync.backend.tools_mut().fail_after(1);
    sync.before_first_lists(false).await.unwrap_err();
    sync.before_first_lists(false).await.expect("applied");
    assert_eq!(known(&mut sync), ["10.32.0.1", "10.32.0.2"]);
    assert_eq!(*in_force.borrow(), None);
    for list in List::ALL {
        state.arrived(list);
    }
    sync.sync().await.expect("synced");
    // The API knows no such pod.
    assert_eq!(known(&mut sync), ["10.32.0.1"]);
    assert!(*state.watch_applied().borrow() > 0);
    assert_eq!(*in_force.borrow(), sync.wanted.get());
    assert_eq!(sync.early.kept, None);
}

#[tokio::test]
async fn a_repair_of_the_last_state_that_succeeds_at_the_second_try_is_drift_too() {
    let (state, mut sync) = loop_after_reboot(Some(before()));
    let mut told = Told::by(&mut sync);
    sync.before_first_lists(false).await.expect("applied");
    harm(&mut sync);
    let failed = sync.before_first_lists(true).await;
    failed.expect_err("the tool failed");
    // What changed meanwhile is not forgotten over the repair.
    state.detach(&endpoint("web", "u-web", 2).0);
    sync.before_first_lists(false).await.expect("repaired");
    assert_eq!(forward(&mut sync), ["-j WEFT-NPC"]);
    assert_eq!(known(&mut sync), ["10.32.0.1"]);
    assert_eq!(told.repairs(), (1, 1));
}
