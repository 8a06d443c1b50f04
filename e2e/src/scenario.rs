//! One test: a fresh namespace, its pods, and what is kept when it fails.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, api::ListParams};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use weft_probe::cluster::{Cluster, Plan, Running};

use crate::{Settings, diagnose};

/// A test that takes longer is broken; without a limit it would hold the whole run. It is longer
/// than the deadlines inside a test together, which say better what is wrong.
const LIMIT: Duration = Duration::from_secs(600);

/// A running test.
pub struct Scenario {
    /// Name of the test.
    pub name: String,
    /// Settings of the run.
    pub settings: Settings,
    /// The cluster.
    pub cluster: Cluster,
    /// The test's own namespace.
    pub namespace: String,
    /// Further namespaces, removed with the first.
    pub(crate) more_namespaces: Mutex<Vec<String>>,
    /// Privileged pods by node.
    pub(crate) agents: Mutex<BTreeMap<String, Running>>,
}

/// Runs a test in a fresh namespace. On failure the state of the nodes is written to
/// `target/reports/e2e/<name>/` and a digest to stderr.
///
/// # Panics
/// The test failed.
#[allow(clippy::panic, reason = "this is how a test fails")]
pub async fn scenario(name: &str, body: impl AsyncFnOnce(&Scenario) -> anyhow::Result<()>) {
    if let Err(error) = within(LIMIT, name, body).await {
        panic!("{name}: {error:#}");
    }
}

/// As [`scenario`], with a limit of its own and a value; a failure is the answer.
pub(crate) async fn within<T>(
    limit: Duration,
    name: &str,
    body: impl AsyncFnOnce(&Scenario) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let scenario = Scenario::begin(name).await?;
    let start = Instant::now();
    let result = timeout(limit, body(&scenario))
        .await
        .with_context(|| format!("it took longer than {limit:?}"))
        .and_then(|result| result);
    if let Err(error) = &result {
        eprintln!("\n{name}: {error:#}");
        diagnose::write(&scenario).await;
    }
    scenario.end().await;
    eprintln!("{name}: {:.1?}", start.elapsed());
    result
}

impl Scenario {
    async fn begin(name: &str) -> anyhow::Result<Self> {
        let settings = Settings::new();
        let cluster = settings.cluster().await?;
        let namespace = make_namespace(&cluster, "e2e", BTreeMap::new()).await?;
        Ok(Self {
            name: name.into(),
            settings,
            cluster,
            namespace,
            more_namespaces: Mutex::default(),
            agents: Mutex::default(),
        })
    }

    async fn end(&self) {
        let more = self.more_namespaces.lock().await.clone();
        for namespace in more.iter().chain([&self.namespace]) {
            if let Err(error) = self.cluster.delete_namespace(namespace).await {
                eprintln!("{}: {error:#}", self.name);
            }
        }
    }

    /// Another namespace with labels; it goes with the test.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn another_namespace(&self, labels: &[(&str, &str)]) -> anyhow::Result<String> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let name = make_namespace(&self.cluster, "e2e", labels).await?;
        self.more_namespaces.lock().await.push(name.clone());
        Ok(name)
    }

    /// Starts pods in the test's namespace and waits until they are ready.
    ///
    /// # Errors
    /// One of them does not become ready; the message has its state.
    pub async fn start<const N: usize>(&self, plans: [Plan; N]) -> anyhow::Result<[Running; N]> {
        self.start_in(&self.namespace, plans).await
    }

    /// As [`Scenario::start`], in another namespace.
    ///
    /// # Errors
    /// As [`Scenario::start`].
    pub async fn start_in<const N: usize>(
        &self,
        namespace: &str,
        plans: [Plan; N],
    ) -> anyhow::Result<[Running; N]> {
        let pods = self.cluster.start(namespace, &plans).await?;
        let count = pods.len();
        pods.try_into()
            .map_err(|_| anyhow::anyhow!("{N} pods were started, {count} came"))
    }

    /// Names of the nodes that are Ready, sorted.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.cluster.client.clone())
            .list(&ListParams::default())
            .await?;
        let mut names: Vec<String> = nodes
            .items
            .into_iter()
            .filter(is_ready)
            .filter_map(|node| node.metadata.name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// The first two nodes.
    ///
    /// # Errors
    /// The cluster has fewer.
    pub async fn two_nodes(&self) -> anyhow::Result<[String; 2]> {
        let nodes = self.nodes().await?;
        ensure!(
            nodes.len() >= 2,
            "this test needs two Ready nodes, the cluster has {nodes:?}"
        );
        Ok([nodes[0].clone(), nodes[1].clone()])
    }
}

/// Whether the node's condition Ready is True.
#[must_use]
pub(crate) fn is_ready(node: &Node) -> bool {
    node.status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Labels by which a person (and the next run) recognises what a test left behind.
async fn make_namespace(
    cluster: &Cluster,
    prefix: &str,
    mut labels: BTreeMap<String, String>,
) -> anyhow::Result<String> {
    labels.insert("app.kubernetes.io/part-of".into(), "weft-e2e".into());
    cluster.make_namespace(prefix, labels).await
}
