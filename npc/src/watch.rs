//! Watches of the API. Objects are pruned before they are stored: a Pod is reduced to what policy
//! needs as it comes off the wire ([`crate::slim`]), also in a list, and goes into the index at
//! once. A relist is read page by page and never in memory as a whole; what it does not change
//! costs no sync.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use weft_policy::{Index, ObjectKey};

use crate::{
    slim::{Namespace, NetworkPolicy, Pod},
    state::{List, State},
};

/// Objects in a page of a list. A page is in memory twice while it is read: its text, and what is
/// kept of it.
const PAGE: u32 = 500;

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
    let config = watcher::Config::default().page_size(PAGE);
    let stream = watcher(Api::<K>::all(client), config)
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
    run(client, state, List::Pods, token, pod_event).await;
}

pub(crate) fn pod_event(state: &State, event: Event<Pod>) {
    match event {
        Event::Init => state.update(|index| {
            index.begin_pod_list();
            false
        }),
        Event::InitApply(pod) | Event::Apply(pod) => {
            state.update(|index| index.apply_pruned_pod(&pod.pruned));
        }
        Event::InitDone => {
            state.update(Index::end_pod_list);
            state.arrived(List::Pods);
        }
        Event::Delete(pod) => state.update(|index| index.delete_pod(&pod.pruned.key)),
    }
}

/// Namespaces.
pub(crate) async fn namespaces(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed: BTreeSet<String> = BTreeSet::new();
    let mut asking: BTreeSet<Arc<str>> = BTreeSet::new();
    run::<Namespace>(
        client,
        state,
        List::Namespaces,
        token,
        move |state, event| match event {
            Event::Init => {
                listed.clear();
                asking.clear();
            }
            Event::InitApply(namespace) => {
                let Namespace { name, labels, .. } = namespace;
                state.update(|index| index.apply_namespace_labels(&name, labels));
                asking.extend(namespace.logs_allowed.then(|| name.as_str().into()));
                listed.insert(name);
            }
            Event::InitDone => {
                let asking = std::mem::take(&mut asking);
                state.log_allowed(|all| *all = asking);
                let listed = std::mem::take(&mut listed);
                state.update(|index| index.retain_namespaces(|name| listed.contains(name)));
                state.arrived(List::Namespaces);
            }
            Event::Apply(namespace) => {
                let Namespace { name, labels, .. } = namespace;
                state.log_allowed(|all| {
                    all.remove(&*name);
                    all.extend(namespace.logs_allowed.then(|| name.as_str().into()));
                });
                state.update(|index| index.apply_namespace_labels(&name, labels));
            }
            Event::Delete(namespace) => {
                state.log_allowed(|all| {
                    all.remove(&*namespace.name);
                });
                state.update(|index| index.delete_namespace(&namespace.name));
            }
        },
    )
    .await;
}

/// NetworkPolicies.
pub(crate) async fn network_policies(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed: BTreeSet<ObjectKey> = BTreeSet::new();
    run::<NetworkPolicy>(
        client,
        state,
        List::NetworkPolicies,
        token,
        move |state, event| match event {
            Event::Init => listed.clear(),
            Event::InitApply(policy) => {
                listed.insert(policy.key.clone());
                apply(state, &policy);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut listed);
                state.policy_uids(|all| all.retain(|key, _| listed.contains(key)));
                state.update(|index| index.retain_network_policies(|key| listed.contains(key)));
                state.arrived(List::NetworkPolicies);
            }
            Event::Apply(policy) => apply(state, &policy),
            Event::Delete(NetworkPolicy { key, .. }) => {
                state.policy_uids(|all| {
                    all.remove(&key);
                });
                state.update(|index| index.delete_network_policy(&key));
            }
        },
    )
    .await;
}

fn apply(state: &State, policy: &NetworkPolicy) {
    let NetworkPolicy { key, uid, .. } = policy;
    state.policy_uids(|all| {
        all.insert(key.clone(), uid.clone());
    });
    state.update(|index| match &policy.policy {
        Ok(policy) => index.apply_network_policy(policy),
        Err(why) => index.apply_unreadable_network_policy(key, why),
    });
}

#[cfg(test)]
mod tests;
