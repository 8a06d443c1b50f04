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

/// What a list of Namespaces had so far.
#[derive(Default)]
struct ListedNamespaces {
    names: BTreeSet<Arc<str>>,
    /// Those that ask for the log of what is allowed.
    asking: BTreeSet<Arc<str>>,
}

/// Namespaces.
pub(crate) async fn namespaces(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed = ListedNamespaces::default();
    let handle = move |state: &State, event| namespace_event(state, &mut listed, event);
    run(client, state, List::Namespaces, token, handle).await;
}

fn namespace_event(state: &State, listed: &mut ListedNamespaces, event: Event<Namespace>) {
    match event {
        Event::Init => *listed = ListedNamespaces::default(),
        Event::InitApply(namespace) => {
            let name = &namespace.pruned.name;
            state.update(|index| index.apply_pruned_namespace(&namespace.pruned));
            let asks = namespace.logs_allowed;
            listed.asking.extend(asks.then(|| Arc::clone(name)));
            listed.names.insert(Arc::clone(name));
        }
        Event::InitDone => {
            let ListedNamespaces { names, asking } = std::mem::take(listed);
            state.log_allowed(|all| *all = asking);
            state.update(|index| index.retain_namespaces(|name| names.contains(name)));
            state.arrived(List::Namespaces);
        }
        Event::Apply(namespace) => {
            let name = &namespace.pruned.name;
            state.log_allowed(|all| {
                all.remove(name);
                all.extend(namespace.logs_allowed.then(|| Arc::clone(name)));
            });
            state.update(|index| index.apply_pruned_namespace(&namespace.pruned));
        }
        Event::Delete(namespace) => {
            let name = &namespace.pruned.name;
            state.log_allowed(|all| {
                all.remove(name);
            });
            state.update(|index| index.delete_namespace(name));
        }
    }
}

/// NetworkPolicies.
pub(crate) async fn network_policies(client: Client, state: Arc<State>, token: CancellationToken) {
    let mut listed = BTreeSet::new();
    let handle = move |state: &State, event| policy_event(state, &mut listed, event);
    run(client, state, List::NetworkPolicies, token, handle).await;
}

/// `listed`: what a list had so far.
fn policy_event(state: &State, listed: &mut BTreeSet<ObjectKey>, event: Event<NetworkPolicy>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(policy) => {
            listed.insert(policy.key.clone());
            apply(state, &policy);
        }
        Event::InitDone => {
            let listed = std::mem::take(listed);
            state.policy_uids(|all| all.retain(|key, _| listed.contains(key)));
            state.update(|index| index.retain_network_policies(|key| listed.contains(key)));
            state.arrived(List::NetworkPolicies);
        }
        Event::Apply(policy) => apply(state, &policy),
        Event::Delete(policy) => {
            state.policy_uids(|all| {
                all.remove(&policy.key);
            });
            let gone = policy.version();
            state.update(|index| index.delete_network_policy_at(&policy.key, gone));
        }
    }
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
