//! Puts the process together: probes, warm tables, election, controllers.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource};
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_render::Facts;
use weft_runtime::{
    health::Health,
    http::{self, Listen},
    lease::{self, Candidate, Ended, Timing},
    logging, shutdown,
};

use crate::{
    args,
    blocks::{Blocks, service_range::ServiceRange},
    crds, defaults,
    events::Events,
    looping::{self, Error, Rhythm},
    metrics::Metrics,
    network::{Network, teardown},
    nodes::Nodes,
    pools::Pools,
    stores::{Stores, Wakes},
    table::Wake,
    uninstall::mark::{self, Mark},
};

/// Name of the Lease.
const LEASE: &str = "weft-operator";
/// How often an operator that finds an uninstall under way looks whether it was called off.
const MARKED_LOOK: Duration = Duration::from_secs(30);
/// Longest time one reconcile may take.
const LIMIT: Duration = Duration::from_mins(1);

/// `weft-operator run`.
pub(crate) async fn run(options: args::Run) -> anyhow::Result<()> {
    logging::init(options.log_format, &options.log)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pod = options.pod_name,
        node = options.node_name,
        "weft-operator starts"
    );
    let token = shutdown::token()?;
    let client = Client::try_default()
        .await
        .context("no way to the Kubernetes API: run in a pod, or set KUBECONFIG")?;
    let health = Health::new(&["probes"]);
    let (metrics, registry) = Metrics::new();
    let mut tasks = JoinSet::new();
    let probes = http::serve(
        Listen::Unix(options.health_socket.clone()),
        http::routes(health.clone(), Arc::clone(&registry)),
        token.clone(),
    );
    let mut probes = tokio::spawn(probes);
    health.ready("probes");

    // A standby keeps its tables warm. They fill even before the CRDs are there: the watches of
    // our kinds try again until they are.
    let wakes = Wakes::default();
    let stores = Stores::start(&client, &options.namespace, &wakes, &mut tasks);
    let candidate = Candidate {
        client: client.clone(),
        namespace: options.namespace.clone(),
        name: LEASE.into(),
        identity: options.pod_name.clone(),
        timing: Timing::default(),
        owners: lease_owner(&client, &options.namespace).await,
    };
    let leadership = tokio::select! {
        leadership = lease::acquire(candidate, &token) => leadership,
        ended = &mut probes => {
            ended.context("the probe server crashed")??;
            None
        }
    };
    let Some(leadership) = leadership else {
        return Ok(());
    };
    metrics.leader.set(1);
    // Renewal has a task of its own: it must not wait for a controller that computes.
    let held = token.clone();
    let holding = tokio::spawn(async move { leadership.hold(&held).await });
    let work = lead(
        &options, client, stores, &wakes, &metrics, registry, &health, &token,
    );
    let ended = tokio::select! {
        ended = holding => ended.context("the election crashed")?,
        failed = work => {
            failed?;
            bail!("a controller ended")
        }
    };
    match ended {
        Ended::Released => Ok(()),
        // Everything that still runs ends with the process.
        Ended::Lost => bail!("the lease is lost; exiting, another replica takes over"),
    }
}

/// What only the leader does. Returns only with an error.
#[allow(
    clippy::too_many_arguments,
    reason = "called once: the parts of the process"
)]
async fn lead(
    options: &args::Run,
    client: Client,
    stores: Arc<Stores>,
    wakes: &Wakes,
    metrics: &Metrics,
    registry: Arc<Registry>,
    health: &Health,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    // Ends with this future.
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_metrics(
        options.metrics,
        health.clone(),
        registry,
        token.clone(),
    ));
    let events = Events::new(client.clone(), &options.pod_name);
    let config = defaults::read(&options.config)?;
    let facts = retry("cannot learn about the cluster", async || {
        facts(&client, options).await
    })
    .await;
    let mark = Mark::new(&client, &options.namespace);
    let install = async || {
        retry("cannot install the CustomResourceDefinitions", async || {
            match crds::install(&client, options.manage_crds, &mark).await {
                // The controllers run all the same: what is being deleted needs them.
                Err(Error::Uninstalling(why)) => {
                    tracing::warn!("{why}");
                    Ok(false)
                }
                result => result.map(|()| true),
            }
        })
        .await
    };
    let mut installed = install().await;

    let services = Arc::new(ServiceRange::default());
    let nodes = Nodes {
        client: client.clone(),
        stores: Arc::clone(&stores),
        events: events.clone(),
    };
    let network = Network {
        client: client.clone(),
        stores: Arc::clone(&stores),
        facts,
        events: events.clone(),
    };
    let pools = Pools {
        client: client.clone(),
        stores: Arc::clone(&stores),
        services: Arc::clone(&services),
        events: events.clone(),
        metrics: metrics.clone(),
    };
    let mut blocks = Blocks::new(
        client.clone(),
        Arc::clone(&stores),
        services,
        options.reclaim_grace,
    );
    let configuring = async {
        while !installed {
            tokio::time::sleep(MARKED_LOOK).await;
            installed = install().await;
        }
        retry("cannot apply the configuration", async || {
            defaults::apply(&client, &options.namespace, &config, &events, &mark).await
        })
        .await;
        tracing::info!("configuration applied");
    };
    let controlling = async {
        stores.synced().await;
        tracing::info!("all lists arrived, controllers start");
        let run = |name, quiet: u64, limit, wake: &Wake| {
            let rhythm = Rhythm {
                name,
                quiet: Duration::from_millis(quiet),
                limit,
            };
            (rhythm, Arc::clone(wake))
        };
        let (metrics, health) = (metrics.clone(), health.clone());
        let looped = looping::Looped { metrics, health };
        tokio::join!(
            looped.run(run("blocks", 50, LIMIT, &wakes.blocks), async || blocks
                .reconcile()
                .await),
            looped.run(run("nodes", 50, LIMIT, &wakes.nodes), async || nodes
                .reconcile()
                .await),
            // Changes of the peer list within a second are one write.
            looped.run(run("peers", 1000, LIMIT, &wakes.peers), async || nodes
                .publish()
                .await),
            looped.run(run("pools", 1000, LIMIT, &wakes.pools), async || pools
                .reconcile()
                .await),
            looped.run(
                run("network", 200, teardown::LIMIT, &wakes.network),
                async || { network.reconcile().await }
            ),
            looped.run(run("status", 500, LIMIT, &wakes.status), async || network
                .report()
                .await),
        );
    };
    tokio::join!(configuring, controlling);
    Ok(())
}

/// Serves `/metrics`. An occupied port costs the metrics, not the network: it is tried again.
async fn serve_metrics(
    address: std::net::SocketAddr,
    health: Health,
    registry: Arc<Registry>,
    token: CancellationToken,
) {
    while !token.is_cancelled() {
        let routes = http::routes(health.clone(), Arc::clone(&registry));
        if let Err(error) = http::serve(Listen::Tcp(address), routes, token.clone()).await {
            tracing::warn!(%error, "no metrics; set WEFT_METRICS to a free address");
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    }
}

async fn facts(client: &Client, options: &args::Run) -> Result<Facts, Error> {
    use crate::looping::Tried;
    let namespace = Api::<Namespace>::all(client.clone())
        .get("kube-system")
        .await
        .tried(|| "cannot read Namespace kube-system, whose UID identifies the cluster".into())?;
    let uid = namespace.metadata.uid.unwrap_or_default();
    let secrets = options.image_pull_secrets.iter();
    Ok(Facts {
        namespace: options.namespace.clone(),
        cluster_id: uid,
        image: options.image.clone(),
        image_pull_secrets: secrets.filter(|s| !s.is_empty()).cloned().collect(),
        image_pull_policy: options.image_pull_policy.clone(),
        api_server: options.api_server.clone(),
        log: Some((options.log.clone(), options.log_format.to_string())),
    })
}

/// The Lease goes away with the operator's ServiceAccount, that is at uninstall. Best effort.
async fn lease_owner(client: &Client, namespace: &str) -> Vec<OwnerReference> {
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    match tokio::time::timeout(LIMIT, api.get_opt(mark::ACCOUNT)).await {
        Ok(Ok(Some(account))) => account.owner_ref(&()).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Tries until it works: without this step nothing else makes sense.
async fn retry<T>(what: &str, mut step: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let mut backoff =
        weft_runtime::backoff::Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    loop {
        match tokio::time::timeout(LIMIT, step()).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => tracing::warn!(%error, "{what}, trying again"),
            Err(_) => tracing::warn!("{what} within {LIMIT:?}, trying again"),
        }
        tokio::time::sleep(backoff.next(weft_runtime::backoff::random())).await;
    }
}

/// `weft-operator health`.
pub(crate) async fn health(options: &args::Health) -> anyhow::Result<()> {
    http::probe(
        &options.health_socket,
        &options.path,
        Duration::from_secs(5),
    )
    .await
    .map(drop)
    .context(options.path.clone())
}

/// `weft-operator uninstall`.
pub(crate) async fn uninstall(options: &args::Uninstall) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no way to the Kubernetes API: run in a pod, or set KUBECONFIG")?;
    crate::uninstall::run(&client, &options.namespace, options.timeout).await?;
    Ok(())
}
