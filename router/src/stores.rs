//! What the router watches: its own objects, the pools, the peers, the pods of its node.

use std::{fmt::Debug, hash::Hash, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinSet};
use weft_crds::{IPBlock, IPPool, PeerSlice, WeftNode};

/// "Something changed", for any number of listeners, none of which can miss it.
type Changes = Arc<watch::Sender<()>>;

/// Snapshots of everything watched. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) node: Store<Node>,
    pub(crate) weft_node: Store<WeftNode>,
    pub(crate) blocks: Store<IPBlock>,
    pub(crate) slices: Store<PeerSlice>,
    pub(crate) pools: Store<IPPool>,
    pub(crate) pods: Store<Pod>,
    pub(crate) namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Something that a sync depends on changed.
    changed: Changes,
    /// A pod of this node or a namespace was seen.
    pods_changed: Changes,
    ready: watch::Sender<bool>,
}

impl Stores {
    /// Starts all watches on `tasks`.
    pub(crate) fn start(client: &Client, node: &str, tasks: &mut JoinSet<()>) -> Self {
        let changed = Arc::new(watch::Sender::new(()));
        let pods_changed = Arc::new(watch::Sender::new(()));
        let own = watcher::Config::default().fields(&format!("metadata.name={node}"));
        let on_node = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let granted = watcher::Config::default().fields(&format!("spec.node.name={node}"));
        let all = watcher::Config::default;
        let api = || client.clone();
        let stores = Self {
            ready: watch::Sender::new(false),
            node: follow_kind(Api::all(api()), own.clone(), &changed, tasks, prune_node),
            weft_node: follow_kind(Api::all(api()), own, &changed, tasks, |_| {}),
            blocks: follow_kind(Api::all(api()), granted, &changed, tasks, |_| {}),
            slices: follow_kind(Api::all(api()), all(), &changed, tasks, |_| {}),
            pools: follow_kind(Api::all(api()), all(), &changed, tasks, |_| {}),
            pods: follow_kind(Api::all(api()), on_node, &pods_changed, tasks, prune_pod),
            namespaces: follow_kind(Api::all(api()), all(), &pods_changed, tasks, |m| {
                m.metadata.managed_fields = None
            }),
            changed,
            pods_changed,
        };
        let waiting = stores.clone();
        tasks.spawn(async move {
            if waiting.all_listed().await {
                waiting.ready.send_replace(true);
            }
        });
        stores
    }

    /// Hears of every change of what a sync depends on, from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Hears of every pod and namespace that is seen, from now on.
    pub(crate) fn pod_changes(&self) -> watch::Receiver<()> {
        self.pods_changed.subscribe()
    }

    /// Waits until every first list arrived (I5). `false`: a watch ended, which means shutdown.
    pub(crate) async fn ready(&self) -> bool {
        self.ready
            .subscribe()
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }

    /// Only one task may wait for a store: it wakes no more than the last that asked (kube-runtime
    /// 5.0, `DelayedInit`).
    async fn all_listed(&self) -> bool {
        self.node.wait_until_ready().await.is_ok()
            && self.weft_node.wait_until_ready().await.is_ok()
            && self.blocks.wait_until_ready().await.is_ok()
            && self.slices.wait_until_ready().await.is_ok()
            && self.pools.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
    }

    /// The pod with this UID. A static pod is known by its mirror's annotation.
    pub(crate) fn pod(&self, namespace: &str, name: &str, uid: &str) -> Option<Arc<Pod>> {
        self.pods.find(|p| {
            p.name_any() == name
                && p.namespace().as_deref() == Some(namespace)
                && (p.uid().as_deref() == Some(uid)
                    || p.annotations()
                        .get("kubernetes.io/config.hash")
                        .is_some_and(|hash| hash == uid))
        })
    }
}

fn follow_kind<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Changes,
    tasks: &mut JoinSet<()>,
    prune: fn(&mut K),
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default + Unpin + Send + Sync,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, config)
        .default_backoff()
        .modify(prune)
        .reflect(writer);
    follow(
        stream,
        Arc::clone(changed),
        tasks,
        K::kind(&K::DynamicType::default()).into_owned(),
    );
    store
}

fn follow<K: Send + 'static>(
    stream: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    changed: Changes,
    tasks: &mut JoinSet<()>,
    kind: String,
) {
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => {
                    changed.send_replace(());
                }
                Err(error) => tracing::warn!(kind, %error, "Watch failed, trying again"),
            }
        }
    });
}

/// Only what is read stays in memory.
fn prune_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.spec = None;
    if let Some(status) = &mut pod.status {
        let ips = status.pod_ips.take();
        *status = k8s_openapi::api::core::v1::PodStatus {
            pod_ips: ips,
            ..Default::default()
        };
    }
}

fn prune_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.conditions = None;
    }
}

#[cfg(test)]
impl Stores {
    /// Stores that hold these objects and never change.
    pub(crate) fn fixed(
        node: Node,
        weft_node: Option<WeftNode>,
        slices: Vec<PeerSlice>,
        pools: Vec<IPPool>,
    ) -> Self {
        Self {
            node: filled(vec![node]),
            weft_node: filled(weft_node.into_iter().collect()),
            blocks: filled(Vec::new()),
            slices: filled(slices),
            pools: filled(pools),
            pods: filled(Vec::new()),
            namespaces: filled(Vec::new()),
            changed: Arc::new(watch::Sender::new(())),
            pods_changed: Arc::new(watch::Sender::new(())),
            ready: watch::Sender::new(true),
        }
    }
}

#[cfg(test)]
impl Stores {
    /// Stores of node `n1` that hold nothing else.
    pub(crate) fn bare() -> Self {
        let mut node = Node::default();
        node.metadata.name = Some("n1".into());
        Self::fixed(node, None, Vec::new(), Vec::new())
    }

    /// The same with these blocks.
    pub(crate) fn with_blocks(self, blocks: Vec<IPBlock>) -> Self {
        Self {
            blocks: filled(blocks),
            ..self
        }
    }
}

#[cfg(test)]
fn filled<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone + Default,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Init);
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::InitApply(object));
    }
    writer.apply_watcher_event(&watcher::Event::InitDone);
    store
}
