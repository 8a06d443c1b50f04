//! Questions to the objects: who owns an address, whom a selector names.
//!
//! Cost: the pods of a workload are looked at once, by their template. Where many selectors are
//! resolved at once, a selector with an equality touches only the templates with this label.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cache::NamedKey;
use crate::endpoints::{Endpoints, LocalPod};
use crate::parse::PolicySpec;
use crate::store::{PodNumber, Store};
use crate::template::Template;
use crate::{Labels, Namespaces, ObjectKey, Operator, PeerSelector, Standing, Subject, SubjectKey};

/// From so many selectors on it is worth to sort all templates by label.
const MANY: usize = 32;

type Group<'a> = (&'a Arc<Template>, &'a BTreeSet<PodNumber>);

/// Templates by namespace, key and value of a label.
type ByLabel<'a> = HashMap<(&'a str, &'a str, &'a str), Vec<Group<'a>>>;

/// The objects of an [`Index`](crate::Index) at one moment.
pub(crate) struct Objects<'a> {
    pods: &'a Store,
    pub(crate) namespaces: &'a BTreeMap<Arc<str>, Labels>,
    pub(crate) policies: &'a BTreeMap<ObjectKey, Arc<PolicySpec>>,
    pub(crate) endpoints: &'a Endpoints,
    resolved: Cell<usize>,
    with_label: OnceCell<ByLabel<'a>>,
}

impl<'a> Objects<'a> {
    pub(crate) fn new(
        pods: &'a Store,
        namespaces: &'a BTreeMap<Arc<str>, Labels>,
        policies: &'a BTreeMap<ObjectKey, Arc<PolicySpec>>,
        endpoints: &'a Endpoints,
    ) -> Self {
        Self {
            pods,
            namespaces,
            policies,
            endpoints,
            resolved: Cell::new(0),
            with_label: OnceCell::new(),
        }
    }

    /// The template of the pod that an address belongs to, if it can be a peer. What CNI gave to a
    /// pod of this node is that pod's; else see [`Store::owner`].
    pub(crate) fn owner(&self, address: IpAddr) -> Option<Arc<Template>> {
        match self.endpoints.at(address) {
            Some(local) => local.peer().map(|local| Arc::clone(&local.template)),
            None => self.pods.template(self.pods.owner(address)?).cloned(),
        }
    }

    /// The most addresses that a selector can name.
    pub(crate) fn addresses_at_most(&self) -> usize {
        let local = self.endpoints.values();
        let local: usize = local.map(|local| local.endpoint.addresses.len()).sum();
        self.pods.addresses() + local
    }

    /// Whether the selector names pods of the template.
    pub(crate) fn names(&self, selector: &PeerSelector, template: &Template) -> bool {
        !template.host_network
            && self
                .namespaces
                .get(&template.namespace)
                .is_some_and(|labels| match &selector.namespaces {
                    Namespaces::Named(name) => *name == template.namespace,
                    Namespaces::Matching(selector) => selector.matches(labels),
                })
            && selector.pods.matches(&template.labels)
    }

    /// The addresses that a selector names.
    pub(crate) fn addresses(&self, selector: &PeerSelector) -> BTreeSet<IpAddr> {
        let mut found = Vec::new();
        self.peers(selector, |_, addresses| found.extend(addresses));
        found.into_iter().collect()
    }

    /// The ports of a name, at the addresses that have them.
    pub(crate) fn named(&self, key: &NamedKey) -> BTreeSet<(IpAddr, u16)> {
        let mut found = Vec::new();
        let mut add = |template: &Template, addresses: &mut dyn Iterator<Item = IpAddr>| {
            let ports: Vec<u16> = key.ports(template).collect();
            if !ports.is_empty() {
                for address in addresses {
                    found.extend(ports.iter().map(|port| (address, *port)));
                }
            }
        };
        match &key.among {
            Some(among) => {
                for selector in among {
                    self.peers(selector, &mut add);
                }
            }
            None => {
                for namespace in self.namespaces.keys() {
                    for group in self.pods.templates_in(namespace) {
                        add(group.0, &mut self.own(group));
                    }
                }
                for (local, addresses) in self.local() {
                    if self.namespaces.contains_key(&local.template.namespace) {
                        add(&local.template, &mut addresses.iter().copied());
                    }
                }
            }
        }
        found.into_iter().collect()
    }

    /// Hands over every template that a selector names, with the addresses of its pods.
    fn peers(
        &self,
        selector: &PeerSelector,
        mut each: impl FnMut(&Template, &mut dyn Iterator<Item = IpAddr>),
    ) {
        self.resolved.set(self.resolved.get() + 1);
        match &selector.namespaces {
            Namespaces::Named(name) => self.peers_in(name, selector, &mut each),
            Namespaces::Matching(namespaces) => {
                for (name, labels) in self.namespaces {
                    if namespaces.matches(labels) {
                        self.peers_in(name, selector, &mut each);
                    }
                }
            }
        }
        for (local, addresses) in self.local() {
            if self.names(selector, &local.template) {
                each(&local.template, &mut addresses.iter().copied());
            }
        }
    }

    fn peers_in(
        &self,
        namespace: &str,
        selector: &PeerSelector,
        each: &mut impl FnMut(&Template, &mut dyn Iterator<Item = IpAddr>),
    ) {
        let mut candidate = |group: Group<'a>| {
            if self.names(selector, group.0) {
                each(group.0, &mut self.own(group));
            }
        };
        match self.fewest(namespace, selector) {
            Some(fewest) => fewest.into_iter().for_each(&mut candidate),
            None => self.pods.templates_in(namespace).for_each(&mut candidate),
        }
    }

    /// The templates that meet the requirement that fewest meet, where that can be looked up.
    fn fewest(&self, namespace: &str, selector: &PeerSelector) -> Option<Vec<Group<'a>>> {
        if self.resolved.get() < MANY {
            return None;
        }
        let with_label = self.with_label.get_or_init(|| self.by_label());
        let requirements = selector.pods.requirements().iter();
        requirements
            .filter_map(|requirement| match &requirement.operator {
                Operator::In(values) => Some(
                    values
                        .iter()
                        .filter_map(|value| with_label.get(&(namespace, &*requirement.key, value)))
                        .flatten()
                        .copied()
                        .collect::<Vec<_>>(),
                ),
                Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
            })
            .min_by_key(Vec::len)
    }

    fn by_label(&self) -> ByLabel<'a> {
        let mut with_label = ByLabel::new();
        for namespace in self.namespaces.keys() {
            for group in self.pods.templates_in(namespace) {
                for (key, value) in group.0.labels.iter() {
                    let entry = with_label.entry((&**namespace, &**key, &**value));
                    entry.or_default().push(group);
                }
            }
        }
        with_label
    }

    /// Addresses of the pods of a template that are no endpoint's.
    fn own(&self, (template, members): Group<'a>) -> impl Iterator<Item = IpAddr> {
        let members = (!template.host_network).then_some(members);
        members
            .into_iter()
            .flatten()
            .flat_map(|number| self.pods.own(*number))
            .filter(|address| self.endpoints.at(*address).is_none())
    }

    fn local(&self) -> impl Iterator<Item = (&'a LocalPod, &'a BTreeSet<IpAddr>)> {
        let peers = self.endpoints.values();
        peers.filter_map(|local| Some((local.peer()?, &local.endpoint.addresses)))
    }

    /// The pods of this node, not yet judged, and what each looks like.
    pub(crate) fn subjects(&self) -> BTreeMap<SubjectKey, (Subject, Option<&'a Arc<Template>>)> {
        let mut subjects = BTreeMap::new();
        for local in self.endpoints.values() {
            let endpoint = &local.endpoint;
            let key = SubjectKey {
                pod: endpoint.pod.clone(),
                uid: endpoint.uid.clone(),
            };
            let (subject, template) = subjects.entry(key).or_insert_with(|| {
                let subject = Subject {
                    addresses: BTreeSet::new(),
                    ports: BTreeSet::new(),
                    standing: Standing::Unknown,
                };
                (subject, None)
            });
            subject.addresses.extend(&endpoint.addresses);
            subject.ports.insert(endpoint.host_ifname.clone());
            if let Some(local) = &local.pod {
                *template = Some(&local.template);
            }
        }
        subjects
    }
}
