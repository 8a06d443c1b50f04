//! `weft-operator uninstall`: the pre-delete hook. Deletes our objects while the operator is alive
//! to act on their finalizers, waits with a limit, and strips what is left, so that neither a
//! custom resource nor its definition ever hangs in Terminating. It leaves a [`mark`], so that no
//! operator that starts before helm deletes it brings anything back.
#![allow(
    clippy::print_stdout,
    reason = "progress for the person who runs the hook"
)]

pub(crate) mod mark;
mod nodes;

use std::{fmt::Debug, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};
use weft_crds::{IPBlock, IPPool, PeerSlice, WeftNetwork, WeftNode};

use crate::{
    api::delete,
    crds::is_ours,
    looping::{Error, Tried},
};
use mark::{Mark, SETTLED};

const POLL: Duration = Duration::from_millis(500);
/// Of the time limit, what is kept for everything after the nodes were cleaned.
const RESERVE: Duration = Duration::from_secs(15);

/// Removes every object of weft that the chart does not hold.
pub(crate) async fn run(client: &Client, namespace: &str, limit: Duration) -> Result<(), Error> {
    let end = Instant::now() + limit;
    let operators = Mark::new(client, namespace).leave().await?;
    let settled = Instant::now() + SETTLED;
    // The network first: without it the operator grants and publishes nothing any more, and its
    // finalizer means that the nodes are clean.
    kind::<WeftNetwork>(client, end - RESERVE.min(limit / 2)).await?;
    let pools = Api::<IPPool>::all(client.clone());
    delete_all(&pools).await?;
    kind::<IPBlock>(client, end).await?;
    kind::<IPPool>(client, end).await?;
    kind::<WeftNode>(client, end).await?;
    kind::<PeerSlice>(client, end).await?;
    let released = nodes::release(client).await?;
    println!("condition NetworkUnavailable: removed from {released} nodes");
    if operators && Instant::now() < settled {
        println!("waiting for what an operator may have on its way");
        tokio::time::sleep_until(settled).await;
        kind::<WeftNetwork>(client, end).await?;
        kind::<IPPool>(client, end).await?;
    }
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in weft_crds::all() {
        let name = crd.name_any();
        let present = api
            .get_opt(&name)
            .await
            .tried(|| format!("cannot read CustomResourceDefinition {name}"))?;
        match present {
            None => {}
            Some(crd) if is_ours(&crd) => {
                delete(&api, &name).await?;
                println!("deleted CustomResourceDefinition {name}");
            }
            Some(_) => println!("left CustomResourceDefinition {name}: managed by somebody else"),
        }
    }
    println!("weft's objects are gone");
    Ok(())
}

/// Deletes all objects of a kind, waits until `end`, then strips finalizers.
async fn kind<K>(client: &Client, end: Instant) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let plural = K::plural(&());
    let found = delete_all(&api).await?;
    if found == 0 {
        println!("{plural}: none");
        return Ok(());
    }
    println!("{plural}: deleting {found}");
    loop {
        let left = list(&api).await?;
        if left.is_empty() {
            println!("{plural}: gone");
            return Ok(());
        }
        if Instant::now() >= end {
            for object in left {
                let name = object.name_any();
                println!("{plural}: {name} is still there, stripping its finalizers");
                let patch = json!({"metadata": {"finalizers": null}});
                let result = api
                    .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                    .await;
                match result {
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    other => drop(other.tried(|| format!("cannot strip {plural} {name}"))?),
                }
            }
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// Deletes one by one: `deletecollection` would need a permission of its own. Returns how many.
async fn delete_all<K>(api: &Api<K>) -> Result<usize, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let objects = list(api).await?;
    for object in &objects {
        let name = object.name_any();
        match api.delete(&name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.tried(|| format!("cannot delete {} {name}", K::plural(&())))?),
        }
    }
    Ok(objects.len())
}

/// A kind whose definition is gone has no objects.
async fn list<K>(api: &Api<K>) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error).tried(|| format!("cannot list {}", K::plural(&()))),
    }
}
