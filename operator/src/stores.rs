//! Every kind the operator watches, once. Controllers share the tables; a standby keeps them warm.

use std::sync::Arc;

use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    apps::v1::DaemonSet,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{NamespaceResourceScope, PartialObjectMeta},
    runtime::watcher,
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use weft_crds::{DEFAULT_NAME, IPBlock, IPPool, PeerSlice, WeftNetwork, WeftNode};

use crate::{
    rows::{DaemonSetRow, NodeRow, PodRow},
    slim::{Node, Pod},
    table::{Table, Wake, follow},
};

/// One wake per controller.
#[derive(Default)]
pub(crate) struct Wakes {
    pub(crate) blocks: Wake,
    pub(crate) nodes: Wake,
    pub(crate) peers: Wake,
    pub(crate) pools: Wake,
    pub(crate) network: Wake,
    pub(crate) status: Wake,
}

/// The tables.
pub(crate) struct Stores {
    pub(crate) nodes: Arc<Table<NodeRow>>,
    pub(crate) pods: Arc<Table<PodRow>>,
    pub(crate) networks: Arc<Table<WeftNetwork>>,
    pub(crate) pools: Arc<Table<IPPool>>,
    pub(crate) blocks: Arc<Table<IPBlock>>,
    pub(crate) weft_nodes: Arc<Table<WeftNode>>,
    pub(crate) slices: Arc<Table<PeerSlice>>,
    pub(crate) daemon_sets: Arc<Table<DaemonSetRow>>,
}

impl Stores {
    /// Starts to watch; the tasks end with `tasks`.
    pub(crate) fn start(
        client: &Client,
        namespace: &str,
        wakes: &Wakes,
        tasks: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let Wakes {
            blocks,
            nodes,
            peers,
            pools,
            network,
            status,
        } = wakes;
        let stores = Arc::new(Self {
            nodes: Table::new(&[blocks, nodes, peers, pools, status]),
            // A reclaim looks again by itself: pods wake nobody.
            pods: Table::new(&[]),
            networks: Table::new(&[blocks, nodes, peers, pools, network, status]),
            pools: Table::new(&[blocks, nodes, pools]),
            blocks: Table::new(&[blocks, nodes, peers, pools]),
            weft_nodes: Table::new(&[nodes, peers, status]),
            slices: Table::new(&[peers]),
            daemon_sets: Table::new(&[status]),
        });
        let all = watcher::Config::default;
        tasks.spawn(follow(
            Arc::clone(&stores.nodes),
            Api::<Node>::all(client.clone()),
            all(),
            |n| NodeRow::from_node(&n),
        ));
        tasks.spawn(follow(
            Arc::clone(&stores.pods),
            Api::<Pod>::all(client.clone()),
            all(),
            |p| PodRow::from_pod(&p),
        ));
        whole(tasks, client, &stores.networks);
        whole(tasks, client, &stores.pools);
        whole(tasks, client, &stores.blocks);
        whole(tasks, client, &stores.weft_nodes);
        whole(tasks, client, &stores.slices);
        let ours = || watcher::Config::default().labels(weft_render::SELECTOR);
        tasks.spawn(follow(
            Arc::clone(&stores.daemon_sets),
            Api::<DaemonSet>::namespaced(client.clone(), namespace),
            ours(),
            |set| DaemonSetRow::from_daemon_set(&set),
        ));
        // Generation (or resourceVersion) of everything we rendered: a change is drift to look at.
        let rendered = Table::new(&[network]);
        drift_namespaced::<DaemonSet>(tasks, client, namespace, &rendered);
        drift_namespaced::<ConfigMap>(tasks, client, namespace, &rendered);
        drift_namespaced::<ServiceAccount>(tasks, client, namespace, &rendered);
        drift::<ClusterRole>(tasks, Api::all(client.clone()), &rendered);
        drift::<ClusterRoleBinding>(tasks, Api::all(client.clone()), &rendered);
        drift::<ValidatingAdmissionPolicy>(tasks, Api::all(client.clone()), &rendered);
        drift::<ValidatingAdmissionPolicyBinding>(tasks, Api::all(client.clone()), &rendered);
        stores
    }

    /// Waits until every table that decisions are made from had its first complete list.
    pub(crate) async fn synced(&self) {
        self.nodes.synced().await;
        self.pods.synced().await;
        self.networks.synced().await;
        self.pools.synced().await;
        self.blocks.synced().await;
        self.weft_nodes.synced().await;
        self.slices.synced().await;
        self.daemon_sets.synced().await;
    }

    /// The WeftNetwork, unless it is being deleted: without one, nothing is granted or rendered.
    pub(crate) fn network(&self) -> Option<Arc<WeftNetwork>> {
        let network = self.networks.get(DEFAULT_NAME)?;
        network
            .metadata
            .deletion_timestamp
            .is_none()
            .then_some(network)
    }
}

fn whole<K>(tasks: &mut JoinSet<()>, client: &Client, table: &Arc<Table<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + PartialEq,
    K: Send + Sync + 'static,
{
    let api = Api::<K>::all(client.clone());
    tasks.spawn(follow(
        Arc::clone(table),
        api,
        watcher::Config::default(),
        |mut object: K| {
            object.managed_fields_mut().clear();
            object
        },
    ));
}

fn drift_namespaced<K>(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &str,
    table: &Arc<Table<String>>,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + Send + Sync + 'static,
{
    drift::<K>(tasks, Api::namespaced(client.clone(), namespace), table);
}

fn drift<K>(tasks: &mut JoinSet<()>, api: Api<PartialObjectMeta<K>>, table: &Arc<Table<String>>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let ours = watcher::Config::default().labels(weft_render::SELECTOR);
    // Each kind has its own table behind the shared wake: a relist of one must not drop another's.
    let own = table.sibling();
    tasks.spawn(follow(own, api, ours, |object: PartialObjectMeta<K>| {
        let meta = object.metadata;
        // Status updates of a DaemonSet change the resourceVersion and not the generation.
        meta.generation.map_or_else(
            || meta.resource_version.unwrap_or_default(),
            |g| g.to_string(),
        )
    }));
}
