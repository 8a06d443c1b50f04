//! As much of an API server as npc talks to: three lists with watches, and events.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Lists by path.
pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";

/// The server's contents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    objects: Arc<Mutex<BTreeMap<&'static str, Vec<Value>>>>,
    changes: broadcast::Sender<(&'static str, String)>,
    /// How often something was listed.
    pub(crate) lists: Arc<AtomicU32>,
    /// Notes of the events that were written.
    pub(crate) notes: Arc<Mutex<Vec<String>>>,
}

impl Api {
    pub(crate) fn new() -> Self {
        Self {
            objects: Arc::default(),
            changes: broadcast::Sender::new(64),
            lists: Arc::default(),
            notes: Arc::default(),
        }
    }

    /// An object appears.
    pub(crate) fn add<T: serde::Serialize>(&self, list: &'static str, object: &T) {
        let mut object = serde_json::to_value(object).expect("object");
        object["metadata"]["resourceVersion"] = json!("2");
        let mut objects = self.objects.lock().expect("objects");
        objects.entry(list).or_default().push(object.clone());
        let line = format!("{}\n", json!({"type": "ADDED", "object": object}));
        // Nobody may be watching.
        let _ = self.changes.send((list, line));
    }

    /// The object of this name changes.
    pub(crate) fn change<T: serde::Serialize>(&self, list: &'static str, object: &T) {
        let object = serde_json::to_value(object).expect("object");
        self.replace(list, object, "MODIFIED", true);
    }

    /// The object of this name is deleted.
    pub(crate) fn remove<T: serde::Serialize>(&self, list: &'static str, object: &T) {
        let object = serde_json::to_value(object).expect("object");
        self.replace(list, object, "DELETED", false);
    }

    fn replace(&self, list: &'static str, mut named: Value, kind: &str, stays: bool) {
        named["metadata"]["resourceVersion"] = json!("2");
        let name = |object: &Value| {
            let metadata = &object["metadata"];
            (metadata["namespace"].clone(), metadata["name"].clone())
        };
        let mut objects = self.objects.lock().expect("objects");
        let objects = objects.entry(list).or_default();
        objects.retain(|object| name(object) != name(&named));
        objects.extend(stays.then(|| named.clone()));
        let line = format!("{}\n", json!({"type": kind, "object": named}));
        // Nobody may be watching.
        let _ = self.changes.send((list, line));
    }

    /// Every watch ends with "410 Gone": whoever watches must list again.
    pub(crate) fn expire(&self) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Expired", "code": 410, "message": "too old resource version"});
        let line = format!("{}\n", json!({"type": "ERROR", "object": status}));
        for list in [PODS, NAMESPACES, POLICIES] {
            let _ = self.changes.send((list, line.clone()));
        }
    }

    /// Serves on port 8080 of the calling thread's namespace, for ever.
    pub(crate) fn serve(self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async move {
            let mut router = Router::new().route(
                "/apis/events.k8s.io/v1/namespaces/{namespace}/events",
                post(event),
            );
            for (path, kind) in [
                (PODS, "PodList"),
                (NAMESPACES, "NamespaceList"),
                (POLICIES, "NetworkPolicyList"),
            ] {
                router = router.route(
                    path,
                    get(
                        async move |State(api): State<Api>,
                                    Query(query): Query<BTreeMap<String, String>>| {
                            api.answer(path, kind, query.contains_key("watch"))
                        },
                    ),
                );
            }
            let listener = tokio::net::TcpListener::bind("127.0.0.1:8080")
                .await
                .expect("port 8080");
            axum::serve(listener, router.with_state(self))
                .await
                .expect("served");
        });
    }

    fn answer(&self, list: &'static str, kind: &str, watch: bool) -> Response {
        let objects = self.objects.lock().expect("objects");
        let objects = objects.get(list).cloned().unwrap_or_default();
        if !watch {
            self.lists.fetch_add(1, Ordering::Relaxed);
            return Json(json!({
                "kind": kind,
                "apiVersion": "v1",
                "metadata": {"resourceVersion": "1"},
                "items": objects,
            }))
            .into_response();
        }
        // What came between list and watch comes again: a watch may repeat.
        let first = objects
            .into_iter()
            .map(|object| format!("{}\n", json!({"type": "ADDED", "object": object})));
        let later = stream::unfold(self.changes.subscribe(), move |mut changes| async move {
            loop {
                let (of, line) = changes.recv().await.ok()?;
                if of == list {
                    return Some((line, changes));
                }
            }
        });
        let lines = stream::iter(first).chain(later).map(Ok::<_, Infallible>);
        Body::from_stream(lines).into_response()
    }
}

async fn event(State(api): State<Api>, Json(event): Json<Value>) -> Json<Value> {
    let note = event["note"].as_str().unwrap_or_default().to_owned();
    api.notes.lock().expect("notes").push(note);
    Json(event)
}
