use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use weft_socket::{AttachmentId, PodRef};

use super::*;
use crate::state::List;

const SHORT: Duration = Duration::from_millis(50);

fn server() -> Arc<Server> {
    Arc::new(Server {
        state: Arc::new(State::new("n1")),
        health: Health::new(&["lists"]),
        backend: InUse::new("iptables-nft"),
        wanted: Wanted::default(),
        kernel: Tracer::new().0,
    })
}

fn endpoint_of(uid: &str) -> weft_socket::Endpoint {
    weft_socket::Endpoint {
        id: AttachmentId {
            container_id: "c1".to_owned(),
            ifname: "eth0".to_owned(),
        },
        pod: PodRef {
            namespace: "default".to_owned(),
            name: "web-0".to_owned(),
            uid: uid.to_owned(),
        },
        addresses: vec!["10.32.0.2".parse().expect("address")],
        host_ifname: "vethweplc1".to_owned(),
    }
}

fn pod(uid: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            namespace: Some("default".to_owned()),
            name: Some("web-0".to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    }
}

/// Stands in for the sync loop: everything is applied as it changes.
fn apply_all(state: &Arc<State>) {
    let state = Arc::clone(state);
    let mut changed = state.watch_changed();
    changed.mark_changed();
    tokio::spawn(async move {
        while changed.changed().await.is_ok() {
            let version = *changed.borrow_and_update();
            state.applied(version);
        }
    });
}

#[tokio::test]
async fn a_pod_is_answered_when_its_rules_are_in_the_kernel() {
    let server = server();
    for list in List::ALL {
        server.state.arrived(list);
    }
    server.state.update(|index| index.apply_pod(&pod("u1")));
    let error = server.pod(endpoint_of("u1"), SHORT).await.unwrap_err();
    assert_eq!(error.code, code::TRY_AGAIN_LATER);
    assert_eq!(
        error.msg,
        "pod default/web-0 (UID u1) stays closed: its rules did not get into the kernel within 0 s"
    );
    apply_all(&server.state);
    assert_eq!(server.pod(endpoint_of("u1"), GATE).await, Ok(()));
}

#[tokio::test]
async fn a_pod_whose_uid_the_api_does_not_show_stays_closed() {
    let server = server();
    apply_all(&server.state);
    server.state.update(|index| index.apply_pod(&pod("old")));
    let error = server.pod(endpoint_of("new"), SHORT).await.unwrap_err();
    assert_eq!(
        error.msg,
        "pod default/web-0 (UID new) stays closed: npc did not see it in the API within 0 s"
    );
    assert!(
        error.details.contains("list of Pods has not arrived"),
        "{}",
        error.details
    );
    // It arrives while the next try waits.
    let waiting = {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.pod(endpoint_of("new"), GATE).await })
    };
    tokio::task::yield_now().await;
    server.state.update(|index| index.apply_pod(&pod("new")));
    assert_eq!(waiting.await.expect("task"), Ok(()));
}

#[tokio::test]
async fn a_static_pod_does_not_wait_for_its_mirror() {
    let server = server();
    apply_all(&server.state);
    let hash = "0123456789abcdef0123456789abcdef";
    assert_eq!(server.pod(endpoint_of(hash), GATE).await, Ok(()));
}

#[tokio::test]
async fn requests_are_lines_of_json_and_nonsense_is_answered() {
    let server = server();
    let status = server.answer(br#"{"op":"status"}"#).await;
    let status: Reply<NpcStatus> = decode(&status).expect("status");
    assert_eq!(
        status,
        Reply::Ok(NpcStatus {
            ready: false,
            reasons: vec!["lists: not yet".to_owned()],
            backend: "iptables-nft".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    );
    let gone = server
        .answer(br#"{"op":"pod_gone","container_id":"c1","ifname":"eth0"}"#)
        .await;
    assert_eq!(decode::<Reply<()>>(&gone).expect("answer"), Reply::Ok(()));
    let Reply::Error(error) =
        decode::<Reply<()>>(&server.answer(b"nonsense").await).expect("reply")
    else {
        panic!("no error");
    };
    assert_eq!(error.code, code::DECODING_FAILURE);
}
