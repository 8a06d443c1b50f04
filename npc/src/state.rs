//! Everything npc knows, with a version, so that whoever changed something can wait until the
//! kernel has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, watch};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey, PolicyModel};
use weft_policy_compile::NodeView;

use crate::{config::Place, early::Here};

/// A first list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum List {
    Pods,
    Namespaces,
    NetworkPolicies,
    /// The router's attachments and blocks.
    Endpoints,
}

impl List {
    pub(crate) const ALL: [Self; 4] = [
        Self::Pods,
        Self::Namespaces,
        Self::NetworkPolicies,
        Self::Endpoints,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Pods => "list of Pods",
            Self::Namespaces => "list of Namespaces",
            Self::NetworkPolicies => "list of NetworkPolicies",
            Self::Endpoints => "the router's list of attachments",
        }
    }
}

/// What a sync works on.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) version: u64,
    pub(crate) model: PolicyModel,
    pub(crate) view: NodeView,
    /// When the oldest change in it came, if there is one that was not applied.
    pub(crate) since: Option<Instant>,
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its Pod object has been seen.
    pub(crate) known: bool,
    /// Version of the state that says so.
    pub(crate) version: u64,
}

struct Inner {
    index: Index,
    place: Place,
    /// Policies' UIDs, for events.
    policy_uids: BTreeMap<ObjectKey, String>,
    /// Namespaces whose allowed connections are logged.
    log_allowed: BTreeSet<Arc<str>>,
    missing: BTreeSet<List>,
    /// Why a list is late, as seen last.
    trouble: BTreeMap<List, String>,
    endpoints: BTreeSet<EndpointId>,
    /// Endpoints that came or went since the router was asked.
    newer: BTreeSet<EndpointId>,
    version: u64,
    since: Option<Instant>,
    urgent: bool,
    failure: Option<String>,
}

/// Shared by watches, servers and the sync loop.
pub(crate) struct State {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    applied: watch::Sender<u64>,
    /// Somebody waits: the sync loop need not wait for more changes.
    pub(crate) wake: Notify,
}

impl State {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            inner: Mutex::new(Inner {
                index: Index::new(node),
                place: Place::default(),
                policy_uids: BTreeMap::new(),
                log_allowed: BTreeSet::new(),
                missing: List::ALL.into(),
                trouble: BTreeMap::new(),
                endpoints: BTreeSet::new(),
                newer: BTreeSet::new(),
                version: 0,
                since: None,
                urgent: false,
                failure: None,
            }),
            changed: watch::Sender::new(0),
            applied: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self, inner: &mut Inner) {
        inner.version += 1;
        inner.since.get_or_insert_with(Instant::now);
        self.changed.send_replace(inner.version);
        self.wake.notify_one();
    }

    /// Changes the index; `change` answers whether the model may have changed.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Index) -> bool) {
        let mut inner = self.lock();
        if change(&mut inner.index) {
            self.bump(&mut inner);
        }
    }

    /// A first list is complete: also a change, the first sync may have waited for it.
    pub(crate) fn arrived(&self, list: List) {
        let mut inner = self.lock();
        inner.trouble.remove(&list);
        if inner.missing.remove(&list) {
            tracing::info!("{} arrived", list.name());
            self.bump(&mut inner);
        }
    }

    /// A list or watch fails.
    pub(crate) fn trouble(&self, list: List, why: String) {
        self.lock().trouble.insert(list, why);
    }

    /// A watch works again.
    pub(crate) fn recovered(&self, list: List) {
        self.lock().trouble.remove(&list);
    }

    /// First lists that have not arrived, for a person.
    pub(crate) fn missing(&self) -> Vec<String> {
        let inner = self.lock();
        let why = |list: &List| match inner.trouble.get(list) {
            Some(why) => format!("{} has not arrived ({why})", list.name()),
            None => format!("{} has not arrived", list.name()),
        };
        inner.missing.iter().map(why).collect()
    }

    /// What hinders watches that have listed once, for a person.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let inner = self.lock();
        let why = |(list, why): (&List, &String)| format!("{}: {why}", list.name());
        inner.trouble.iter().map(why).collect()
    }

    /// Remembers UIDs of policies.
    pub(crate) fn policy_uids(&self, change: impl FnOnce(&mut BTreeMap<ObjectKey, String>)) {
        change(&mut self.lock().policy_uids);
    }

    pub(crate) fn policy_uid(&self, key: &ObjectKey) -> Option<String> {
        self.lock().policy_uids.get(key).cloned()
    }

    /// Remembers the namespaces that ask for a log of what is allowed.
    pub(crate) fn log_allowed(&self, change: impl FnOnce(&mut BTreeSet<Arc<str>>)) {
        let mut inner = self.lock();
        let mut asking = inner.log_allowed.clone();
        change(&mut asking);
        if asking != inner.log_allowed {
            inner.log_allowed = asking;
            self.bump(&mut inner);
        }
    }

    /// CNI attaches a pod and waits.
    pub(crate) fn attach(&self, id: EndpointId, endpoint: Endpoint) {
        let mut inner = self.lock();
        inner.endpoints.insert(id.clone());
        inner.newer.insert(id.clone());
        inner.urgent = true;
        if inner.index.apply_endpoint(id, endpoint) {
            self.bump(&mut inner);
        }
    }

    /// CNI detached a pod.
    pub(crate) fn detach(&self, id: &EndpointId) {
        let mut inner = self.lock();
        inner.endpoints.remove(id);
        inner.newer.insert(id.clone());
        if inner.index.delete_endpoint(id) {
            self.bump(&mut inner);
        }
    }

    /// Blocks or gateways changed.
    pub(crate) fn place(&self, place: Place) {
        let mut inner = self.lock();
        if inner.place != place {
            inner.place = place;
            self.bump(&mut inner);
        }
    }

    /// The router is about to be asked: what comes or goes from now on is newer than its answer.
    pub(crate) fn asking(&self) -> BTreeSet<EndpointId> {
        let mut inner = self.lock();
        inner.newer.clear();
        inner.endpoints.clone()
    }

    /// The router's answer; `before` is what [`State::asking`] returned.
    pub(crate) fn answered(
        &self,
        before: &BTreeSet<EndpointId>,
        listed: Vec<(EndpointId, Endpoint)>,
        place: Place,
    ) {
        let mut inner = self.lock();
        let mut changed = inner.place != place;
        inner.place = place;
        let ids: BTreeSet<EndpointId> = listed.iter().map(|(id, _)| id.clone()).collect();
        for (id, endpoint) in listed {
            if !inner.endpoints.contains(&id) && !inner.newer.contains(&id) {
                inner.endpoints.insert(id.clone());
                changed |= inner.index.apply_endpoint(id, endpoint);
            }
        }
        for id in before.difference(&ids) {
            if !inner.newer.contains(id) && inner.endpoints.remove(id) {
                changed |= inner.index.delete_endpoint(id);
            }
        }
        if changed {
            self.bump(&mut inner);
        }
    }

    /// Looks something up in the index.
    pub(crate) fn look_up<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock().index)
    }

    /// Has the endpoint's Pod been seen?
    pub(crate) fn is_known(&self, id: &EndpointId) -> Known {
        let inner = self.lock();
        Known {
            known: inner.index.is_known(id),
            version: inner.version,
        }
    }

    /// What to apply; `None` until every first list is there.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let mut inner = self.lock();
        if !inner.missing.is_empty() {
            return None;
        }
        inner.urgent = false;
        Some(Snapshot {
            version: inner.version,
            model: inner.index.refresh(),
            view: NodeView {
                log_allowed: inner.log_allowed.clone(),
                ..inner.place.view()
            },
            since: inner.since.take(),
        })
    }

    /// What is known of this node without the API.
    pub(crate) fn here(&self) -> Here {
        let inner = self.lock();
        Here {
            subjects: inner.index.subjects(),
            place: inner.place.clone(),
        }
    }

    /// Does somebody wait for the next sync?
    pub(crate) fn urgent(&self) -> bool {
        self.lock().urgent
    }

    /// The kernel has everything up to `version`.
    pub(crate) fn applied(&self, version: u64) {
        self.lock().failure = None;
        self.applied.send_replace(version);
    }

    /// The last sync failed; its changes still wait.
    pub(crate) fn failed(&self, since: Option<Instant>, why: String) {
        let mut inner = self.lock();
        inner.failure = Some(why);
        inner.since = match (since, inner.since) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Versions as they change.
    pub(crate) fn watch_changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Versions as the kernel gets them.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }
}

#[cfg(test)]
pub(crate) mod tests;
