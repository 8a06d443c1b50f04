//! From objects to addresses: which policies select which local pods, and who their peers are.
//!
//! Cost: the pods are put into lookup tables once; a selector with an equality then touches only
//! the pods that have this label, and equal selectors are resolved once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::parse::{PeersSpec, PolicySpec, PortSpec, PortsSpec, RuleSpec};
use crate::{
    Direction, Index, Labels, Named, Namespaces, ObjectKey, Operator, PeerSelector, Peers, Pod,
    Policy, PolicyModel, PortMatch, Ports, Protocol, Rule, Selector, Standing, Subject, SubjectKey,
    Uid,
};

/// The local pods that a policy selects.
pub(crate) struct Selected<'a> {
    spec: &'a PolicySpec,
    subjects: Vec<SubjectKey>,
}

/// Finds the policies of each local pod and writes them into its standing.
pub(crate) fn select<'a>(
    index: &'a Index,
    subjects: &mut BTreeMap<SubjectKey, Subject>,
) -> BTreeMap<&'a ObjectKey, Selected<'a>> {
    let mut by_namespace: HashMap<&str, Vec<&PolicySpec>> = HashMap::new();
    for spec in index.policies.values() {
        by_namespace
            .entry(&spec.key.namespace)
            .or_default()
            .push(spec);
    }
    let pods: BTreeMap<SubjectKey, &Pod> = index
        .endpoints
        .values()
        .filter_map(|local| local.pod.as_ref())
        .map(|pod| {
            (
                SubjectKey {
                    pod: pod.key.clone(),
                    uid: pod.uid.clone(),
                },
                pod,
            )
        })
        .collect();
    let mut selected: BTreeMap<&ObjectKey, Selected<'_>> = BTreeMap::new();
    for (key, subject) in subjects {
        let Standing::Known { ingress, egress } = &mut subject.standing else {
            continue;
        };
        let Some(pod) = pods.get(key) else { continue };
        let policies = by_namespace.get(&*key.pod.namespace).into_iter().flatten();
        for spec in policies.filter(|spec| spec.subjects.matches(&pod.labels)) {
            if spec.ingress.is_some() {
                ingress.insert(spec.key.clone());
            }
            if spec.egress.is_some() {
                egress.insert(spec.key.clone());
            }
            selected
                .entry(&spec.key)
                .or_insert_with(|| Selected {
                    spec,
                    subjects: Vec::new(),
                })
                .subjects
                .push(key.clone());
        }
    }
    selected
}

/// Resolves the selected policies.
pub(crate) fn resolve(
    index: &Index,
    subjects: BTreeMap<SubjectKey, Subject>,
    selected: &BTreeMap<&ObjectKey, Selected<'_>>,
) -> PolicyModel {
    let mut pods = Pods::new(index);
    let mut model = PolicyModel::default();
    let mut used = BTreeSet::new();
    for (
        key,
        Selected {
            spec,
            subjects: own,
        },
    ) in selected
    {
        let ingress = spec.ingress.as_ref().map(|rules| {
            rules
                .iter()
                .map(|rule| pods.rule(rule, Direction::Ingress, own))
                .collect()
        });
        let egress = spec.egress.as_ref().map(|rules| {
            rules
                .iter()
                .map(|rule| pods.rule(rule, Direction::Egress, own))
                .collect()
        });
        for rule in spec.ingress.iter().chain(&spec.egress).flatten() {
            if let PeersSpec::Only { pods, .. } = &rule.peers {
                used.extend(pods);
            }
        }
        model
            .policies
            .insert((*key).clone(), Policy { ingress, egress });
        model.problems.extend(spec.problems.iter().cloned());
    }
    for selector in used {
        let addresses = pods.addresses(selector);
        model.peers.insert(selector.clone(), addresses);
    }
    model.subjects = subjects;
    model
}

/// A pod that can be a peer, with the addresses that are its own.
struct Peer<'a> {
    pod: &'a Pod,
    addresses: Vec<IpAddr>,
}

/// The pods that can be peers, in lookup tables.
struct Pods<'a> {
    peers: Vec<Peer<'a>>,
    namespaces: &'a BTreeMap<Arc<str>, Labels>,
    in_namespace: HashMap<&'a str, Vec<usize>>,
    with_label: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    with_port: HashMap<(Protocol, &'a str), Vec<(usize, u16)>>,
    of_subject: HashMap<(&'a ObjectKey, &'a Uid), usize>,
    resolved: HashMap<PeerSelector, Vec<usize>>,
}

impl<'a> Pods<'a> {
    fn new(index: &'a Index) -> Self {
        let mut pods = Self {
            peers: peers(index),
            namespaces: &index.namespaces,
            in_namespace: HashMap::new(),
            with_label: HashMap::new(),
            with_port: HashMap::new(),
            of_subject: HashMap::new(),
            resolved: HashMap::new(),
        };
        for (i, Peer { pod, .. }) in pods.peers.iter().enumerate() {
            pods.of_subject.insert((&pod.key, &pod.uid), i);
            for port in &pod.ports {
                let holders = pods
                    .with_port
                    .entry((port.protocol, &*port.name))
                    .or_default();
                holders.push((i, port.port));
            }
            let namespace = &*pod.key.namespace;
            // A pod is a peer only while its Namespace is known and while it runs. (As a local
            // subject it keeps its named ports: that is what `of_subject` is for.)
            if pod.finished || !index.namespaces.contains_key(namespace) {
                continue;
            }
            pods.in_namespace.entry(namespace).or_default().push(i);
            for (key, value) in &pod.labels {
                pods.with_label
                    .entry((namespace, key, value))
                    .or_default()
                    .push(i);
            }
        }
        pods
    }

    fn rule(&mut self, rule: &RuleSpec, direction: Direction, subjects: &[SubjectKey]) -> Rule {
        let peers = match &rule.peers {
            PeersSpec::Any => Peers::Any,
            PeersSpec::Only { pods, blocks } => Peers::Only {
                pods: pods.clone(),
                blocks: blocks.clone(),
            },
        };
        let ports = match &rule.ports {
            PortsSpec::Any => Ports::Any,
            PortsSpec::Only(entries) => Ports::Only(
                entries
                    .iter()
                    .map(|entry| match entry {
                        PortSpec::Protocol(protocol) => PortMatch::Protocol(*protocol),
                        PortSpec::Range(protocol, range) => PortMatch::Range(*protocol, *range),
                        PortSpec::Named(protocol, name) => PortMatch::Named(Named {
                            protocol: *protocol,
                            name: Arc::clone(name),
                            members: match direction {
                                Direction::Ingress => self.ports_of(*protocol, name, subjects),
                                Direction::Egress => self.ports_in(*protocol, name, &rule.peers),
                            },
                        }),
                    })
                    .collect(),
            ),
        };
        Rule { peers, ports }
    }

    /// The named port of each of the policy's own pods.
    fn ports_of(
        &self,
        protocol: Protocol,
        name: &str,
        subjects: &[SubjectKey],
    ) -> BTreeSet<(IpAddr, u16)> {
        let mut members = BTreeSet::new();
        for subject in subjects {
            let Some(i) = self.of_subject.get(&(&subject.pod, &subject.uid)) else {
                continue;
            };
            let Peer { pod, addresses } = &self.peers[*i];
            let ports = pod
                .ports
                .iter()
                .filter(|p| p.protocol == protocol && *p.name == *name);
            for port in ports {
                members.extend(addresses.iter().map(|address| (*address, port.port)));
            }
        }
        members
    }

    /// The named port of each pod among the peers. An ipBlock has no named ports: even where it
    /// covers a pod, it speaks of addresses only.
    fn ports_in(
        &mut self,
        protocol: Protocol,
        name: &str,
        peers: &PeersSpec,
    ) -> BTreeSet<(IpAddr, u16)> {
        let among: Option<BTreeSet<usize>> = match peers {
            PeersSpec::Any => None,
            PeersSpec::Only { pods, .. } => Some(
                pods.iter()
                    .flat_map(|selector| self.members(selector).to_vec())
                    .collect(),
            ),
        };
        let mut members = BTreeSet::new();
        for (i, port) in self.with_port.get(&(protocol, name)).into_iter().flatten() {
            let Peer { pod, addresses } = &self.peers[*i];
            let is_peer = match &among {
                Some(among) => among.contains(i),
                None => !pod.finished && self.namespaces.contains_key(&*pod.key.namespace),
            };
            if is_peer {
                members.extend(addresses.iter().map(|address| (*address, *port)));
            }
        }
        members
    }

    fn addresses(&mut self, selector: &PeerSelector) -> BTreeSet<IpAddr> {
        let members = self.members(selector).to_vec();
        members
            .iter()
            .flat_map(|i| &self.peers[*i].addresses)
            .copied()
            .collect()
    }

    fn members(&mut self, selector: &PeerSelector) -> &[usize] {
        if !self.resolved.contains_key(selector) {
            let found = self.find(selector);
            self.resolved.insert(selector.clone(), found);
        }
        self.resolved.get(selector).map_or(&[], Vec::as_slice)
    }

    fn find(&self, selector: &PeerSelector) -> Vec<usize> {
        match &selector.namespaces {
            Namespaces::Named(name) => self.find_in(name, &selector.pods),
            Namespaces::Matching(namespaces) => self
                .namespaces
                .iter()
                .filter(|(_, labels)| namespaces.matches(labels))
                .flat_map(|(name, _)| self.find_in(name, &selector.pods))
                .collect(),
        }
    }

    fn find_in(&self, namespace: &str, selector: &Selector) -> Vec<usize> {
        let all = || {
            self.in_namespace
                .get(namespace)
                .into_iter()
                .flatten()
                .copied()
        };
        // Start from the requirement that fewest pods can meet.
        let fewest = selector
            .requirements()
            .iter()
            .filter_map(|requirement| match &requirement.operator {
                Operator::In(values) => Some(
                    values
                        .iter()
                        .filter_map(|value| {
                            self.with_label
                                .get(&(namespace, requirement.key.as_str(), value))
                        })
                        .flatten()
                        .copied()
                        .collect::<Vec<_>>(),
                ),
                Operator::NotIn(_) | Operator::Exists | Operator::DoesNotExist => None,
            })
            .min_by_key(Vec::len);
        let candidates = fewest.unwrap_or_else(|| all().collect());
        candidates
            .into_iter()
            .filter(|i| selector.matches(&self.peers[*i].pod.labels))
            .collect()
    }
}

/// Every pod with the addresses that are its own. Where two claim one address, it belongs to the
/// one that CNI gave it to on this node; else to the one that is not terminating; else to the
/// younger.
fn peers(index: &Index) -> Vec<Peer<'_>> {
    let mut given: HashMap<(&ObjectKey, &Uid), Vec<IpAddr>> = HashMap::new();
    let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
    for local in index.endpoints.values() {
        let endpoint = &local.endpoint;
        let own = given.entry((&endpoint.pod, &endpoint.uid)).or_default();
        own.extend(&endpoint.addresses);
        taken.extend(&endpoint.addresses);
    }
    let pods = || index.pods.values().filter(|pod| !pod.host_network);
    let mut owner: HashMap<IpAddr, &Pod> = HashMap::new();
    for pod in pods().filter(|pod| !pod.finished && !index.is_local(pod)) {
        for address in pod
            .addresses
            .iter()
            .filter(|address| !taken.contains(address))
        {
            let best = owner.entry(*address).or_insert(pod);
            let rank = |pod: &'_ Pod| (!pod.terminating, pod.created);
            // Ordered by key last, so that the winner does not depend on the order of arrival.
            if (rank(pod), &pod.key) > (rank(best), &best.key) {
                *best = pod;
            }
        }
    }
    let peers: Vec<Peer<'_>> = pods()
        .chain(index.lingering_pods())
        .filter_map(|pod| {
            let given = given.get(&(&pod.key, &pod.uid)).cloned();
            let addresses = given.unwrap_or_else(|| {
                let owns = |address: &&IpAddr| {
                    owner
                        .get(address)
                        .is_some_and(|owner| std::ptr::eq(*owner, pod))
                };
                pod.addresses.iter().filter(owns).copied().collect()
            });
            (!addresses.is_empty()).then_some(Peer { pod, addresses })
        })
        .collect();
    peers
}
