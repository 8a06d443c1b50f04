//! What the cluster hears of this node: WeftNode status and events, on transitions only.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_crds::{Condition, PolicyState, Versions, WeftNode, WeftNodeStatus, set_condition};
use weft_socket::{NpcRequest, NpcStatus};

use crate::{
    clock, server,
    shared::Shared,
    view::{Verdict, View},
};

const LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(3);

/// Writes the status whenever the view changes, until `token` is cancelled.
pub(crate) async fn run(shared: Arc<Shared>, client: Client, token: CancellationToken) {
    if !shared.stores.ready().await {
        return;
    }
    let api: Api<WeftNode> = Api::all(client.clone());
    let recorder = recorder(&shared, client);
    let mut view = shared.view.subscribe();
    let mut changes = shared.stores.changes();
    let mut told: Option<Verdict> = None;
    loop {
        let seen = view.borrow_and_update().clone();
        tell(&shared, &recorder, &seen.fabric, &mut told).await;
        let pause = if write(&shared, &api, &seen).await {
            // The object may have been made anew.
            Duration::from_secs(60)
        } else {
            RETRY
        };
        tokio::select! {
            () = token.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write(shared: &Shared, api: &Api<WeftNode>, view: &View) -> bool {
    let Some(object) = shared.stores.weft_node.state().into_iter().next() else {
        return false;
    };
    if view.node_uid.is_empty() && view.fabric.reason == "Starting" {
        return true;
    }
    let old = object.status.clone().unwrap_or_default();
    let new = status(&old, view, object.metadata.generation);
    if new == old {
        return true;
    }
    let name = object.name_any();
    let patch = Patch::Merge(serde_json::json!({"status": new}));
    let params = PatchParams::default();
    match timeout(LIMIT, api.patch_status(&name, &params, &patch)).await {
        Ok(Ok(_)) => {
            tracing::info!(ready = view.fabric.ok && view.policy.ok, "Status written");
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(node = name, %error, "Cannot write the status of the WeftNode");
            false
        }
        Err(_) => false,
    }
}

fn status(old: &WeftNodeStatus, view: &View, generation: Option<i64>) -> WeftNodeStatus {
    let mut conditions = old.conditions.clone();
    let now = clock::now_text();
    let obstacles = view.obstacles();
    let ready = match obstacles.first() {
        None => Verdict::good("Ready", "pods can be attached"),
        Some(first) => {
            let (reason, message) = first.split_once(": ").unwrap_or(("NotReady", first));
            Verdict::bad(reason, message)
        }
    };
    for (type_, verdict) in [
        ("Ready", &ready),
        ("FabricReady", &view.fabric),
        ("PolicyReady", &view.policy),
    ] {
        set_condition(
            &mut conditions,
            Condition {
                type_: type_.to_owned(),
                status: verdict.ok.into(),
                reason: verdict.reason.clone(),
                message: verdict.message.clone(),
                observed_generation: generation,
                last_transition_time: None,
            },
            &now,
        );
    }
    let text = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect();
    WeftNodeStatus {
        conditions,
        node_uid: view.node_uid.clone(),
        underlay_addresses: text(&view.underlay),
        mtu: view.mtu,
        bridge_mac: view.bridge_mac.map(|m| m.to_string()).unwrap_or_default(),
        unreachable_peers: view.unreachable.iter().take(500).cloned().collect(),
        peers_generation: view.generation,
        policy: (!view.npc_backend.is_empty()).then(|| PolicyState {
            backend: view.npc_backend.clone(),
        }),
        versions: Versions {
            router: env!("CARGO_PKG_VERSION").to_owned(),
            npc: view.npc_version.clone(),
            // Installed from the same image by the init container.
            cni: env!("CARGO_PKG_VERSION").to_owned(),
        },
    }
}

/// An event on the Node for what a person must fix, once per reason.
async fn tell(shared: &Shared, recorder: &Recorder, fabric: &Verdict, told: &mut Option<Verdict>) {
    const FOR_PEOPLE: [&str; 6] = [
        "ForeignDevice",
        "InvalidConfiguration",
        "NoBridgeNetfilter",
        "NoInternalIP",
        "NoUnderlayAddress",
        "ApplyFailed",
    ];
    if told.as_ref().is_some_and(|t| t.reason == fabric.reason) {
        return;
    }
    *told = Some(fabric.clone());
    if !FOR_PEOPLE.contains(&fabric.reason.as_str()) {
        return;
    }
    let event = Event {
        type_: EventType::Warning,
        reason: fabric.reason.clone(),
        note: Some(fabric.message.clone()),
        action: "BuildFabric".to_owned(),
        secondary: None,
    };
    on_node(shared, recorder, event).await;
}

/// Writes events in the router's name.
pub(crate) fn recorder(shared: &Shared, client: Client) -> Recorder {
    let reporter = Reporter {
        controller: "weft-router".to_owned(),
        instance: Some(shared.args.pod_name.clone()),
    };
    Recorder::new(client, reporter)
}

/// Writes an event about this Node. Best effort.
pub(crate) async fn on_node(shared: &Shared, recorder: &Recorder, mut event: Event) {
    let node = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(shared.args.node_name.clone()),
        // The kubelet's own events use the name in place of the UID; `kubectl describe` finds both.
        uid: Some(shared.args.node_name.clone()),
        ..ObjectReference::default()
    };
    // The API takes 1 KiB.
    event.note = event.note.map(|n| n.chars().take(1000).collect());
    match timeout(LIMIT, recorder.publish(&event, &node)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "Cannot write an event"),
        Err(_) => tracing::warn!("No answer to an event"),
    }
}

/// Asks npc how it is, and tells it about blocks, until `token` is cancelled.
pub(crate) async fn watch_npc(shared: Arc<Shared>, token: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(2);
    let mut told = None;
    let mut view = shared.view.subscribe();
    loop {
        match shared
            .npc
            .ask::<NpcStatus>(&NpcRequest::Status, EVERY)
            .await
        {
            Ok(status) => {
                let verdict = if status.ready {
                    Verdict::good(
                        "PolicyUp",
                        format!("npc enforces policies by {}", status.backend),
                    )
                } else {
                    Verdict::bad("PolicyNotReady", status.reasons.join("; "))
                };
                shared.update(|v| {
                    v.policy = verdict;
                    v.npc_backend = status.backend;
                    v.npc_version = status.version;
                });
            }
            Err(error) => {
                // It may have been restarted, and forgot.
                told = None;
                shared.update(|v| v.policy = Verdict::bad("NpcUnreachable", error.to_string()));
            }
        }
        let mut now = server::endpoints(&shared);
        shared.metrics.addresses(now.endpoints.len());
        now.endpoints.clear();
        if told.as_ref() != Some(&now)
            && shared
                .npc
                .ask::<Option<()>>(&NpcRequest::Blocks(now.clone()), EVERY)
                .await
                .is_ok()
        {
            told = Some(now);
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
