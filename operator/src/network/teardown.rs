//! The WeftNetwork goes away: agents off the nodes, nodes cleaned, then the finalizer.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::{Api, Client, api::ListParams};
use tokio::time::{Instant, sleep};
use weft_crds::WeftNetwork;
use weft_render::{CLEANUP, Facts, NAME_LABEL, NODE_AGENT};

use crate::{
    api::{NETWORK, apply, delete, set_finalizer},
    looping::{Error, Tried},
    rows::DaemonSetRow,
};

/// How long agents may take to end.
const AGENTS: Duration = Duration::from_secs(30);
/// How long nodes may take to be cleaned. A node that is off does not hold up the uninstall: what
/// is left on it is removed when weft is installed and removed there again.
const NODES: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// Longest time [`teardown`] takes when the API answers.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);

pub(crate) async fn teardown(
    client: &Client,
    network: &Arc<WeftNetwork>,
    facts: &Facts,
) -> Result<(), Error> {
    if !kube::ResourceExt::finalizers(&**network)
        .iter()
        .any(|f| f == weft_crds::FINALIZER)
    {
        return Ok(());
    }
    let sets = Api::<DaemonSet>::namespaced(client.clone(), &facts.namespace);
    let pods = Api::<Pod>::namespaced(client.clone(), &facts.namespace);
    tracing::info!("removing the node agents");
    delete(&sets, NODE_AGENT).await?;
    let agents = ListParams::default().labels(&format!("{NAME_LABEL}={NODE_AGENT}"));
    let left = poll(AGENTS, async || {
        let list = pods
            .list(&agents)
            .await
            .tried(|| "cannot list the agents' pods".into())?;
        Ok(list.items.is_empty())
    })
    .await?;
    if !left {
        tracing::warn!("node agents still run after {AGENTS:?}, cleaning anyway");
    }
    tracing::info!("cleaning the nodes");
    apply(&sets, NETWORK, &weft_render::cleanup(network, facts)).await?;
    let cleaned = poll(NODES, async || {
        let set = sets
            .get_opt(CLEANUP)
            .await
            .tried(|| format!("cannot read DaemonSet {CLEANUP}"))?;
        let row = set
            .as_ref()
            .map(DaemonSetRow::from_daemon_set)
            .unwrap_or_default();
        Ok(row.observed && row.desired > 0 && row.ready >= row.desired)
    })
    .await?;
    if !cleaned {
        tracing::warn!("not all nodes were cleaned within {NODES:?}");
    }
    delete(&sets, CLEANUP).await?;
    set_finalizer(&Api::<WeftNetwork>::all(client.clone()), &**network, false).await?;
    tracing::info!("the network is removed");
    Ok(())
}

/// Asks until the answer is yes or the time is over.
async fn poll(
    limit: Duration,
    mut done: impl AsyncFnMut() -> Result<bool, Error>,
) -> Result<bool, Error> {
    let end = Instant::now() + limit;
    loop {
        if done().await? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(POLL).await;
    }
}
