//! A policy's rules, resolved; and the sets that they need, as long as they need them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Active, Entry, Local, NamedKey, Sets};
use crate::limit::{self, Measure};
use crate::objects::Objects;
use crate::parse::{PeersSpec, PolicySpec, PortSpec, PortsSpec, RuleSpec};
use crate::{
    Direction, Named, PeerSelector, Peers, Policy, PortMatch, Ports, Problem, Protocol, Rule,
};

type Members = Arc<BTreeSet<(IpAddr, u16)>>;

/// One direction of a policy in the making.
struct Resolving<'a> {
    spec: &'a PolicySpec,
    direction: Direction,
    peers: BTreeSet<Arc<PeerSelector>>,
    named: BTreeSet<Arc<NamedKey>>,
    /// Named ports of the policy's own pods.
    own: BTreeMap<(Protocol, Arc<str>), Members>,
    addresses: usize,
}

impl Sets {
    /// Resolves a policy. What its peers and named ports are is found or worked out.
    pub(super) fn activate(
        &mut self,
        spec: &Arc<PolicySpec>,
        objects: &Objects<'_>,
        locals: &[Local<'_>],
    ) -> Active {
        let mut active = Active {
            spec: Arc::clone(spec),
            policy: Arc::default(),
            problems: Vec::new(),
            warnings: Vec::new(),
            peers: Vec::new(),
            named: Vec::new(),
            addresses: 0,
            since: 0,
        };
        let mut resolve = |direction, rules: &Option<Vec<RuleSpec>>| {
            let rules = rules.as_deref()?;
            Some(self.direction(&mut active, direction, rules, objects, locals))
        };
        let ingress = resolve(Direction::Ingress, &spec.ingress);
        let egress = resolve(Direction::Egress, &spec.egress);
        active.policy = Arc::new(Policy { ingress, egress });
        active
    }

    fn direction(
        &mut self,
        active: &mut Active,
        direction: Direction,
        rules: &[RuleSpec],
        objects: &Objects<'_>,
        locals: &[Local<'_>],
    ) -> Vec<Rule> {
        let spec = Arc::clone(&active.spec);
        let mut resolving = Resolving {
            spec: &spec,
            direction,
            peers: BTreeSet::new(),
            named: BTreeSet::new(),
            own: BTreeMap::new(),
            addresses: 0,
        };
        let too_many = rules
            .iter()
            .position(|rule| resolving.exceeds(self, rule, objects, locals));
        match too_many {
            Some(rule) => active.problems.push(resolving.exceeded(rule)),
            None => active.warnings.extend(resolving.near()),
        }
        active.addresses = active.addresses.max(resolving.addresses);
        let is_open = too_many.is_none();
        let resolved = match is_open {
            true => rules
                .iter()
                .map(|rule| resolving.rule(self, rule))
                .collect(),
            false => Vec::new(),
        };
        for selector in resolving.peers {
            if let Some(entry) = self.peers.get_mut(&selector) {
                *entry.count(is_open) += 1;
            }
            active.peers.push((selector, is_open));
        }
        for key in resolving.named {
            if let Some(entry) = self.named.get_mut(&key) {
                entry.uses += 1;
            }
            active.named.push(key);
        }
        resolved
    }

    /// A policy needs its sets no more.
    pub(super) fn release(&mut self, active: &Active) {
        for (selector, is_open) in &active.peers {
            if let Some(entry) = self.peers.get_mut(selector) {
                *entry.count(*is_open) -= 1;
            }
        }
        for key in &active.named {
            if let Some(entry) = self.named.get_mut(key) {
                entry.uses -= 1;
            }
        }
    }

    /// Sets that nobody needs go.
    pub(super) fn sweep(&mut self) {
        self.peers.retain(|_, entry| entry.is_needed());
        self.named.retain(|_, entry| entry.is_needed());
    }
}

impl<T> Entry<T> {
    fn new(members: BTreeSet<T>) -> Self {
        Self {
            members: Arc::new(members),
            uses: 0,
            holds: 0,
        }
    }

    fn count(&mut self, is_open: bool) -> &mut u32 {
        if is_open {
            &mut self.uses
        } else {
            &mut self.holds
        }
    }

    fn is_needed(&self) -> bool {
        self.uses > 0 || self.holds > 0
    }
}

impl Resolving<'_> {
    /// Adds what a rule names; answers whether that is too much, without working out the rest.
    fn exceeds(
        &mut self,
        sets: &mut Sets,
        rule: &RuleSpec,
        objects: &Objects<'_>,
        locals: &[Local<'_>],
    ) -> bool {
        if let PeersSpec::Only { pods, .. } = &rule.peers {
            for selector in pods {
                if self.addresses > limit::MAX_ADDRESSES {
                    return true;
                }
                if self.peers.insert(Arc::clone(selector)) {
                    let entry = sets.peers.entry(Arc::clone(selector));
                    let entry = entry.or_insert_with(|| Entry::new(objects.addresses(selector)));
                    self.addresses += entry.members.len();
                }
            }
        }
        for (protocol, name) in rule.named_ports() {
            if self.addresses > limit::MAX_ADDRESSES {
                return true;
            }
            match self.direction {
                Direction::Egress => {
                    let key = Arc::new(rule.named_key(protocol, name));
                    if !self.named.contains(&key) {
                        let entry = sets.named.entry(Arc::clone(&key));
                        let entry = entry.or_insert_with(|| Entry::new(objects.named(&key)));
                        self.addresses += entry.members.len();
                        self.named.insert(key);
                    }
                }
                Direction::Ingress => {
                    let spec = self.spec;
                    let own = self.own.entry((protocol, Arc::clone(name)));
                    own.or_insert_with(|| {
                        let members = own_ports(spec, protocol, name, locals);
                        self.addresses += members.len();
                        Arc::new(members)
                    });
                }
            }
        }
        self.addresses > limit::MAX_ADDRESSES
    }

    fn rule(&self, sets: &Sets, rule: &RuleSpec) -> Rule {
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
                            members: self.members(sets, rule, *protocol, name),
                        }),
                    })
                    .collect(),
            ),
        };
        Rule { peers, ports }
    }

    fn members(
        &self,
        sets: &Sets,
        rule: &RuleSpec,
        protocol: Protocol,
        name: &Arc<str>,
    ) -> Members {
        let found = match self.direction {
            Direction::Ingress => self.own.get(&(protocol, Arc::clone(name))),
            Direction::Egress => {
                let entry = sets.named.get(&rule.named_key(protocol, name));
                entry.map(|entry| &entry.members)
            }
        };
        found.cloned().unwrap_or_default()
    }

    fn measure(&self) -> Measure<'_> {
        Measure {
            policy: &self.spec.key,
            field: match self.direction {
                Direction::Ingress => "spec.ingress",
                Direction::Egress => "spec.egress",
            },
            what: "addresses of pods (each selector and each named port counted by itself)",
            limit: limit::MAX_ADDRESSES,
        }
    }

    fn exceeded(&self, rule: usize) -> Problem {
        self.measure().exceeded(&format!("[{rule}]"))
    }

    fn near(&self) -> Option<Problem> {
        self.measure().near(self.addresses)
    }
}

/// A named port of the policy's own pods.
fn own_ports(
    spec: &PolicySpec,
    protocol: Protocol,
    name: &str,
    locals: &[Local<'_>],
) -> BTreeSet<(IpAddr, u16)> {
    let mut members = BTreeSet::new();
    for local in locals {
        if local.template.host_network || !local.selection.all.contains(&spec.key) {
            continue;
        }
        let ports = local.template.ports.iter();
        for port in ports.filter(|port| port.protocol == protocol && *port.name == *name) {
            members.extend(local.addresses.iter().map(|address| (*address, port.port)));
        }
    }
    members
}
