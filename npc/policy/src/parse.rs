//! NetworkPolicy as the API has it -> normal form, with every field that cannot be understood
//! named.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cache::NamedKey;
use crate::limit::{self, Measure};
use crate::{IpBlock, Namespaces, ObjectKey, PeerSelector, PortRange, Problem, Protocol, Selector};

/// A NetworkPolicy in normal form, not yet resolved to addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicySpec {
    pub(crate) key: ObjectKey,
    /// The pods of its namespace that it selects. Where a requirement could not be read, more.
    pub(crate) subjects: Selector,
    /// `None`: does not isolate for ingress. Without rules: allows nothing.
    pub(crate) ingress: Option<Vec<RuleSpec>>,
    /// The same for egress.
    pub(crate) egress: Option<Vec<RuleSpec>>,
    /// The first of them; there may be as many as fields.
    pub(crate) problems: Vec<Problem>,
    /// Limits that are near.
    pub(crate) warnings: Vec<Problem>,
    /// Most selectors that a direction has.
    pub(crate) selectors: usize,
    /// It has named ports: what they are changes with pods.
    pub(crate) has_named_ports: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSpec {
    pub(crate) peers: PeersSpec,
    pub(crate) ports: PortsSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeersSpec {
    Any,
    Only {
        pods: BTreeSet<Arc<PeerSelector>>,
        blocks: BTreeSet<IpBlock>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortsSpec {
    Any,
    Only(BTreeSet<PortSpec>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortSpec {
    Protocol(Protocol),
    Range(Protocol, PortRange),
    Named(Protocol, Arc<str>),
}

/// Path of a field and what is wrong with it.
type Fault = (String, String);

impl RuleSpec {
    /// What is counted against [`limit::MAX_TERMS`].
    fn terms(&self) -> usize {
        let peers = match &self.peers {
            PeersSpec::Any => 1,
            PeersSpec::Only { pods, blocks } => {
                let blocks = blocks.iter().map(|block| match block.except().len() {
                    0 => 1,
                    excepts => limit::TERMS_OF_SET + excepts,
                });
                limit::TERMS_OF_SET * pods.len() + blocks.sum::<usize>()
            }
        };
        let ports = match &self.ports {
            PortsSpec::Any => 1,
            PortsSpec::Only(entries) => {
                entries.len() + (limit::TERMS_OF_SET - 1) * self.named_ports().count()
            }
        };
        peers + ports
    }

    fn selectors(&self) -> usize {
        match &self.peers {
            PeersSpec::Any => 0,
            PeersSpec::Only { pods, .. } => pods.len(),
        }
    }

    /// Its named ports.
    pub(crate) fn named_ports(&self) -> impl Iterator<Item = (Protocol, &Arc<str>)> {
        let entries = match &self.ports {
            PortsSpec::Any => None,
            PortsSpec::Only(entries) => Some(entries),
        };
        entries
            .into_iter()
            .flatten()
            .filter_map(|entry| match entry {
                PortSpec::Named(protocol, name) => Some((*protocol, name)),
                PortSpec::Protocol(_) | PortSpec::Range(..) => None,
            })
    }

    /// A named port of the pods among its peers. An ipBlock has no named ports: even where it
    /// covers a pod, it speaks of addresses only.
    pub(crate) fn named_key(&self, protocol: Protocol, name: &Arc<str>) -> NamedKey {
        NamedKey {
            protocol,
            name: Arc::clone(name),
            among: match &self.peers {
                PeersSpec::Any => None,
                PeersSpec::Only { pods, .. } => Some(pods.clone()),
            },
        }
    }
}

impl PolicySpec {
    /// A policy of which nothing can be read but its name: it isolates all pods of its namespace
    /// and allows nothing.
    pub(crate) fn unreadable(key: &ObjectKey, why: &str) -> Self {
        Self {
            key: key.clone(),
            subjects: Selector::default(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            problems: vec![Problem {
                policy: key.clone(),
                field: "spec".to_owned(),
                message: format!("cannot be read: {why}"),
            }],
            warnings: Vec::new(),
            selectors: 0,
            has_named_ports: false,
        }
    }

    pub(crate) fn parse(policy: &networking::NetworkPolicy) -> Self {
        let key = ObjectKey::of(policy);
        // A policy without a spec is one with an empty spec: all pods, no ingress.
        let spec = policy.spec.clone().unwrap_or_default();
        let mut faults: Vec<Fault> = Vec::new();

        let (subjects, selector_faults) = spec
            .pod_selector
            .as_ref()
            .map(|raw| Selector::parse(raw, "spec.podSelector"))
            .unwrap_or_default();

        let types = spec.policy_types.unwrap_or_default();
        let has = |wanted: &str| types.iter().any(|given| given == wanted);
        let mut unreadable = !selector_faults.is_empty();
        faults.extend(selector_faults);
        for (i, given) in types.iter().enumerate() {
            if given != "Ingress" && given != "Egress" {
                unreadable = true;
                faults.push((
                    format!("spec.policyTypes[{i}]"),
                    format!("type {given:?} is not supported; use Ingress or Egress"),
                ));
            }
        }
        // Where it is not clear what is meant, both directions are isolated and nothing allowed.
        let egress_rules = spec.egress.unwrap_or_default();
        let ingress_rules = spec.ingress.unwrap_or_default();
        let isolates_ingress = unreadable || types.is_empty() || has("Ingress");
        let isolates_egress = unreadable
            || if types.is_empty() {
                !egress_rules.is_empty()
            } else {
                has("Egress")
            };

        let namespace = &key.namespace;
        let mut warnings = Vec::new();
        let mut beyond = Vec::new();
        let mut direction = |isolates: bool, name: &str, rules: Vec<RawRule<'_>>| {
            if !isolates {
                return None;
            }
            let field = format!("spec.{name}");
            let measure = Measure {
                policy: &key,
                field: &field,
                what: "peers, excepts and ports (selectors, named ports and CIDRs with excepts count \
                       four times)",
                limit: limit::MAX_TERMS,
            };
            let mut own = Vec::new();
            let mut parsed: Vec<RuleSpec> = Vec::new();
            let mut terms = 0;
            for (i, rule) in rules.iter().enumerate() {
                let rule = rule.parse(namespace, &format!("{field}[{i}]"), &mut own);
                terms += rule.terms();
                if terms > limit::MAX_TERMS {
                    beyond.push(measure.exceeded(&format!("[{i}]")));
                    return Some(Vec::new());
                }
                parsed.push(rule);
            }
            warnings.extend(measure.near(terms));
            let void = unreadable || !own.is_empty();
            faults.append(&mut own);
            Some(if void { Vec::new() } else { parsed })
        };
        let ingress = direction(
            isolates_ingress,
            "ingress",
            ingress_rules
                .iter()
                .map(|rule| RawRule {
                    peers: &rule.from,
                    peers_field: "from",
                    ports: &rule.ports,
                })
                .collect(),
        );
        let egress = direction(
            isolates_egress,
            "egress",
            egress_rules
                .iter()
                .map(|rule| RawRule {
                    peers: &rule.to,
                    peers_field: "to",
                    ports: &rule.ports,
                })
                .collect(),
        );
        let problems = faults.into_iter().map(|(field, message)| Problem {
            policy: key.clone(),
            field,
            message,
        });
        let rules: Vec<&Vec<RuleSpec>> = [&ingress, &egress].into_iter().flatten().collect();
        let selectors = rules
            .iter()
            .map(|rules| rules.iter().map(RuleSpec::selectors).sum())
            .max()
            .unwrap_or_default();
        let has_named_ports = rules
            .into_iter()
            .flatten()
            .any(|rule| rule.named_ports().next().is_some());
        Self {
            selectors,
            has_named_ports,
            problems: beyond
                .into_iter()
                .chain(problems)
                .take(limit::MAX_PROBLEMS)
                .collect(),
            warnings,
            key,
            subjects,
            ingress,
            egress,
        }
    }
}

/// An ingress or egress rule of the API; they differ in one field's name.
struct RawRule<'a> {
    peers: &'a Option<Vec<networking::NetworkPolicyPeer>>,
    peers_field: &'static str,
    ports: &'a Option<Vec<networking::NetworkPolicyPort>>,
}

impl RawRule<'_> {
    fn parse(&self, namespace: &Arc<str>, field: &str, faults: &mut Vec<Fault>) -> RuleSpec {
        let peers = match self.peers.as_deref() {
            None | Some([]) => PeersSpec::Any,
            Some(raw) => {
                let mut pods = BTreeSet::new();
                let mut blocks = BTreeSet::new();
                for (i, raw) in raw.iter().enumerate() {
                    let field = format!("{field}.{}[{i}]", self.peers_field);
                    match peer(raw, namespace, &field) {
                        Ok(Peer::Pods(selector)) => {
                            pods.insert(Arc::new(selector));
                        }
                        Ok(Peer::Block(block)) => blocks.extend(block),
                        Err(mut found) => faults.append(&mut found),
                    }
                }
                PeersSpec::Only { pods, blocks }
            }
        };
        let ports = match self.ports.as_deref() {
            None | Some([]) => PortsSpec::Any,
            Some(raw) => {
                let mut entries = BTreeSet::new();
                for (i, raw) in raw.iter().enumerate() {
                    match port(raw, &format!("{field}.ports[{i}]")) {
                        Ok(entry) => {
                            entries.insert(entry);
                        }
                        Err(fault) => faults.push(fault),
                    }
                }
                PortsSpec::Only(entries)
            }
        };
        RuleSpec { peers, ports }
    }
}

enum Peer {
    Pods(PeerSelector),
    /// `None`: the excepts leave nothing.
    Block(Option<IpBlock>),
}

fn peer(
    raw: &networking::NetworkPolicyPeer,
    namespace: &Arc<str>,
    field: &str,
) -> Result<Peer, Vec<Fault>> {
    match (&raw.ip_block, &raw.namespace_selector, &raw.pod_selector) {
        (Some(block), None, None) => ip_block(block, &format!("{field}.ipBlock"))
            .map(Peer::Block)
            .map_err(|f| vec![f]),
        (Some(_), _, _) => Err(vec![(
            field.to_owned(),
            "ipBlock cannot be combined with podSelector or namespaceSelector; \
             make them two entries of the list"
                .to_owned(),
        )]),
        (None, None, None) => Err(vec![(
            field.to_owned(),
            "needs one of podSelector, namespaceSelector or ipBlock".to_owned(),
        )]),
        (None, namespaces, pods) => {
            let mut faults = Vec::new();
            let mut selector = |raw: &Option<_>, name: &str| {
                raw.as_ref().map(|raw| {
                    let (selector, mut found) = Selector::parse(raw, &format!("{field}.{name}"));
                    faults.append(&mut found);
                    selector
                })
            };
            let namespaces = selector(namespaces, "namespaceSelector").map_or_else(
                || Namespaces::Named(Arc::clone(namespace)),
                Namespaces::Matching,
            );
            let pods = selector(pods, "podSelector").unwrap_or_default();
            if faults.is_empty() {
                Ok(Peer::Pods(PeerSelector { namespaces, pods }))
            } else {
                Err(faults)
            }
        }
    }
}

fn ip_block(raw: &networking::IPBlock, field: &str) -> Result<Option<IpBlock>, Fault> {
    let cidr = cidr(&raw.cidr, &format!("{field}.cidr"))?;
    let except = raw
        .except
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, text)| self::cidr(text, &format!("{field}.except[{i}]")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(IpBlock::new(cidr, except))
}

fn cidr(text: &str, field: &str) -> Result<IpNet, Fault> {
    text.parse().map_err(|_| {
        let hint = match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => format!("; a single address is written {text}/32"),
            Ok(IpAddr::V6(_)) => format!("; a single address is written {text}/128"),
            Err(_) => String::new(),
        };
        (
            field.to_owned(),
            format!("{text:?} is not a CIDR such as 192.0.2.0/24{hint}"),
        )
    })
}

fn port(raw: &networking::NetworkPolicyPort, field: &str) -> Result<PortSpec, Fault> {
    let protocol = Protocol::parse(raw.protocol.as_deref())
        .map_err(|why| (format!("{field}.protocol"), why))?;
    let number = |value: i32, name: &str| {
        u16::try_from(value)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| {
                (
                    format!("{field}.{name}"),
                    format!("{value} is not a port; use 1 to 65535"),
                )
            })
    };
    let end = raw.end_port.map(|end| number(end, "endPort")).transpose()?;
    match (&raw.port, end) {
        (None, None) => Ok(PortSpec::Protocol(protocol)),
        (Some(IntOrString::Int(first)), end) => {
            let first = number(*first, "port")?;
            let last = end.unwrap_or(first);
            PortRange::new(first, last)
                .map(|range| PortSpec::Range(protocol, range))
                .ok_or_else(|| {
                    (
                        format!("{field}.endPort"),
                        format!("{last} is less than port {first}"),
                    )
                })
        }
        (Some(IntOrString::String(name)), None) if name.is_empty() => Err((
            format!("{field}.port"),
            "a named port needs a name".to_owned(),
        )),
        (Some(IntOrString::String(name)), None) => {
            Ok(PortSpec::Named(protocol, name.as_str().into()))
        }
        (Some(IntOrString::String(_)), Some(_)) => Err((
            format!("{field}.endPort"),
            "cannot be combined with a named port; give the number".to_owned(),
        )),
        (None, Some(_)) => Err((format!("{field}.endPort"), "needs port".to_owned())),
    }
}
