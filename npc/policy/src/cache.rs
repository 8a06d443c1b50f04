//! From objects to the model, and what of it can be kept when little has changed.
//!
//! ```text
//! pods, namespaces -> whose an address is --moves--> peers, named (addresses of selectors in use)
//! policies, local pods -> selections (policies by labels) -> active (policies in use, resolved)
//! ```
//!
//! An address that changed hands is taken out of and put into the sets of selectors that name its
//! old and new owner; only a Namespace whose labels changed has selectors resolved anew. A fresh
//! cache resolves everything: that is [`Index::model`](crate::Index::model), which tests hold
//! against this one.

mod activate;
mod named;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) use named::NamedKey;

use settle::Settled;

use crate::limit;
use crate::objects::Objects;
use crate::parse::PolicySpec;
use crate::template::Template;
use crate::{Labels, ObjectKey, PeerSelector, Policy, PolicyModel, Problem, Standing, Subject};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    selections: BTreeMap<(Arc<str>, Labels), Selection>,
    active: BTreeMap<ObjectKey, Active>,
    sets: Sets,
    /// The pods of this node, as named ports of policies depend on them.
    locals: Vec<(Arc<Template>, BTreeSet<IpAddr>)>,
    /// Addresses that may have changed hands, and whose they were.
    moved: BTreeMap<IpAddr, Option<Arc<Template>>>,
    /// Namespaces that changed, and their labels before; `None`: it was not there.
    namespaces: BTreeMap<Arc<str>, Option<Labels>>,
}

/// The policies of a namespace that select pods with certain labels.
#[derive(Clone, Debug, Default)]
struct Selection {
    ingress: BTreeSet<ObjectKey>,
    egress: BTreeSet<ObjectKey>,
    all: BTreeSet<ObjectKey>,
}

/// A policy with subjects here, resolved.
#[derive(Clone, Debug)]
struct Active {
    spec: Arc<PolicySpec>,
    policy: Arc<Policy>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The sets it needs, and whether its rules look them up (else they were only counted).
    peers: Vec<(Arc<PeerSelector>, bool)>,
    named: Vec<Arc<NamedKey>>,
    /// Addresses that were counted, in the direction that has more.
    addresses: usize,
    /// So many may have come since; [`usize::MAX`]: not followed.
    since: usize,
}

/// Resolved selectors.
#[derive(Clone, Debug, Default)]
struct Sets {
    peers: BTreeMap<Arc<PeerSelector>, Entry<IpAddr>>,
    named: BTreeMap<Arc<NamedKey>, Entry<(IpAddr, u16)>>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    members: Arc<BTreeSet<T>>,
    /// Policies whose rules look it up.
    uses: u32,
    /// Policies that have only counted it.
    holds: u32,
}

/// A pod of this node, and what selects it.
struct Local<'a> {
    template: &'a Arc<Template>,
    addresses: BTreeSet<IpAddr>,
    selection: &'a Selection,
}

impl Cache {
    /// Whether it matters whose this address was until now.
    pub(crate) fn follows(&self, address: IpAddr) -> bool {
        let has_sets = !self.sets.peers.is_empty() || !self.sets.named.is_empty();
        has_sets && !self.moved.contains_key(&address)
    }

    /// An address may change hands; `owner` has it until now.
    pub(crate) fn address_changes(&mut self, address: IpAddr, owner: Option<Arc<Template>>) {
        self.moved.entry(address).or_insert(owner);
    }

    /// A Namespace changes; it has the labels `old` until now.
    pub(crate) fn namespace_changes(&mut self, name: &str, old: Option<&Labels>) {
        let first = self.namespaces.entry(name.into());
        first.or_insert_with(|| old.cloned());
    }

    /// A policy becomes `spec`.
    pub(crate) fn policy_changes(&mut self, key: &ObjectKey, spec: Option<&PolicySpec>) {
        for ((namespace, labels), selection) in &mut self.selections {
            if *namespace == key.namespace {
                selection.forget(key);
                if let Some(spec) = spec {
                    selection.look_at(spec, labels);
                }
            }
        }
    }

    /// The model of the objects. All that was changed in them has been told to this cache.
    pub(crate) fn model(&mut self, objects: &Objects<'_>) -> PolicyModel {
        let settled = self.settle(objects);
        let subjects = objects.subjects();
        let selector_of =
            |template: &Template| (Arc::clone(&template.namespace), template.labels.clone());
        let looks = subjects.values().filter_map(|(_, template)| *template);
        let looks: BTreeSet<_> = looks.map(|template| selector_of(template)).collect();
        self.selections.retain(|key, _| looks.contains(key));
        for key in looks {
            let selection = self.selections.entry(key);
            selection.or_insert_with_key(|(namespace, labels)| {
                Selection::find(objects, namespace, labels)
            });
        }

        let mut model = PolicyModel::default();
        let mut locals = Vec::new();
        let mut selected: BTreeSet<&ObjectKey> = BTreeSet::new();
        for (key, (mut subject, template)) in subjects {
            if let Some(template) = template
                && let Some(selection) = self.selections.get(&selector_of(template))
            {
                selection.judge(&mut subject);
                selected.extend(&selection.all);
                locals.push(Local {
                    template,
                    addresses: subject.addresses.clone(),
                    selection,
                });
            }
            model.subjects.insert(key, subject);
        }

        let shared = |local: &Local<'_>| (Arc::clone(local.template), local.addresses.clone());
        let shared: Vec<_> = locals.iter().map(shared).collect();
        let named_changed = settled.named || self.locals != shared;
        self.locals = shared;
        let at_most = objects.addresses_at_most();
        let mut active = BTreeMap::new();
        for key in selected {
            let Some(spec) = objects.policies.get(key) else {
                continue;
            };
            let mut before = self.active.remove(key);
            let fits = |before: &mut Active| {
                Arc::ptr_eq(&before.spec, spec)
                    && !(named_changed && spec.has_named_ports)
                    && before.stays(at_most, settled)
            };
            let fits = before.as_mut().is_some_and(fits);
            let now = match before {
                Some(before) if fits => before,
                before => {
                    let mut now = self.sets.activate(spec, objects, &locals);
                    if let Some(before) = before {
                        // Who compares models sees at once that it is the same.
                        if before.policy == now.policy {
                            now.policy = Arc::clone(&before.policy);
                        }
                        self.sets.release(&before);
                    }
                    now
                }
            };
            model.policies.insert(key.clone(), Arc::clone(&now.policy));
            model
                .problems
                .extend(spec.problems.iter().chain(&now.problems).cloned());
            model
                .warnings
                .extend(spec.warnings.iter().chain(&now.warnings).cloned());
            active.insert(key.clone(), now);
        }
        for gone in std::mem::replace(&mut self.active, active).into_values() {
            self.sets.release(&gone);
        }
        self.sets.sweep();
        let used = self.sets.peers.iter().filter(|(_, entry)| entry.uses > 0);
        model.peers = used
            .map(|(selector, entry)| (Arc::clone(selector), Arc::clone(&entry.members)))
            .collect();
        model
    }
}

impl Active {
    /// Whether what was resolved still holds, if its named ports do: nothing was near a limit, and
    /// nothing can be now. `at_most`: addresses that a selector can name.
    fn stays(&mut self, at_most: usize, settled: Settled) -> bool {
        let near = limit::near(limit::MAX_ADDRESSES);
        let selectors = self.spec.selectors;
        let moved = settled.moves.map(|moves| moves.saturating_mul(selectors));
        self.since = moved.map_or(usize::MAX, |moved| self.since.saturating_add(moved));
        let is_far = self.addresses.saturating_add(self.since) <= near;
        let is_small = !self.spec.has_named_ports && selectors.saturating_mul(at_most) <= near;
        self.problems.is_empty() && self.warnings.is_empty() && (is_far || is_small)
    }
}

impl Selection {
    fn find(objects: &Objects<'_>, namespace: &Arc<str>, labels: &Labels) -> Self {
        let first = ObjectKey {
            namespace: Arc::clone(namespace),
            name: "".into(),
        };
        let mut selection = Self::default();
        let policies = objects.policies.range(first..);
        for (_, spec) in policies.take_while(|(key, _)| key.namespace == *namespace) {
            selection.look_at(spec, labels);
        }
        selection
    }

    fn forget(&mut self, key: &ObjectKey) {
        for policies in [&mut self.ingress, &mut self.egress, &mut self.all] {
            policies.remove(key);
        }
    }

    fn look_at(&mut self, spec: &PolicySpec, labels: &Labels) {
        if !spec.subjects.matches(labels) {
            return;
        }
        self.all.insert(spec.key.clone());
        if spec.ingress.is_some() {
            self.ingress.insert(spec.key.clone());
        }
        if spec.egress.is_some() {
            self.egress.insert(spec.key.clone());
        }
    }

    fn judge(&self, subject: &mut Subject) {
        subject.standing = Standing::Known {
            ingress: self.ingress.clone(),
            egress: self.egress.clone(),
        };
    }
}
