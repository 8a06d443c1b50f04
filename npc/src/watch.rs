//! Watches of the API. Objects are pruned before they are stored: a Pod is reduced to what policy
//! needs as it comes off the wire, also in the first list.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use weft_policy::ObjectKey;

use crate::state::{List, State};

/// Runs one watch for ever; `handle` gets what happened. Errors are retried with back-off and
/// remembered as trouble of `list`.
async fn run<K>(
    client: Client,
    state: Arc<State>,
    list: List,
    token: CancellationToken,
    mut handle: impl FnMut(&State, Event<K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let stream = watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .take_until(token.cancelled_owned());
    let mut stream = std::pin::pin!(stream.into_stream());
    let mut failing = false;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    state.recovered(list);
                }
                handle(&state, event);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, ?list, "watch failed; what is known stays in force");
                }
                state.trouble(list, error.to_string());
            }
        }
    }
}

/// Pods of the cluster.
pub(crate) async fn pods(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed = Vec::new();
    run::<Pod>(
        client,
        state,
        List::Pods,
        token,
        move |state, event| match event {
            Event::Init => listed = Vec::new(),
            Event::InitApply(pod) => listed.push(weft_policy::Pod::prune(&pod)),
            Event::InitDone => {
                let pods = std::mem::take(&mut listed);
                state.update(|index| index.reset_pruned_pods(pods));
                state.arrived(List::Pods);
            }
            Event::Apply(pod) => state.update(|index| index.apply_pod(&pod)),
            Event::Delete(pod) => state.update(|index| index.delete_pod(&ObjectKey::of(&pod))),
        },
    )
    .await;
}

/// Namespaces.
pub(crate) async fn namespaces(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed: Vec<Namespace> = Vec::new();
    run::<Namespace>(
        client,
        state,
        List::Namespaces,
        token,
        move |state, event| match event {
            Event::Init => listed = Vec::new(),
            Event::InitApply(namespace) => listed.push(namespace),
            Event::InitDone => {
                let namespaces = std::mem::take(&mut listed);
                state.update(|index| index.reset_namespaces(&namespaces));
                state.arrived(List::Namespaces);
            }
            Event::Apply(namespace) => state.update(|index| index.apply_namespace(&namespace)),
            Event::Delete(namespace) => {
                let name = namespace.metadata.name.unwrap_or_default();
                state.update(|index| index.delete_namespace(&name));
            }
        },
    )
    .await;
}

/// NetworkPolicies.
pub(crate) async fn network_policies(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed: Vec<NetworkPolicy> = Vec::new();
    let uid = |policy: &NetworkPolicy| policy.metadata.uid.clone().unwrap_or_default();
    run::<NetworkPolicy>(
        client,
        state,
        List::NetworkPolicies,
        token,
        move |state, event| match event {
            Event::Init => listed = Vec::new(),
            Event::InitApply(policy) => listed.push(policy),
            Event::InitDone => {
                let policies = std::mem::take(&mut listed);
                let uids: BTreeMap<ObjectKey, String> = policies
                    .iter()
                    .map(|policy| (ObjectKey::of(policy), uid(policy)))
                    .collect();
                state.policy_uids(|all| *all = uids);
                state.update(|index| index.reset_network_policies(&policies));
                state.arrived(List::NetworkPolicies);
            }
            Event::Apply(policy) => {
                state.policy_uids(|all| {
                    all.insert(ObjectKey::of(&policy), uid(&policy));
                });
                state.update(|index| index.apply_network_policy(&policy));
            }
            Event::Delete(policy) => {
                let key = ObjectKey::of(&policy);
                state.policy_uids(|all| {
                    all.remove(&key);
                });
                state.update(|index| index.delete_network_policy(&key));
            }
        },
    )
    .await;
}
