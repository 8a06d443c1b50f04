//! The definition: what a packet's verdict is, to be read beside the text of the NetworkPolicy
//! API. Slow and plain on purpose; rulesets are compared with it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use crate::{
    Direction, ObjectKey, Packet, Path, Payload, Peers, PolicyModel, PortMatch, Ports, Rule,
    Standing, State, Subject,
};

/// What becomes of a packet on this node: it passes if neither end denies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the source's policy says.
    pub egress: Judgement,
    /// What the destination's policy says.
    pub ingress: Judgement,
}

/// What one end says, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// That end is no pod of this node (or not asked on this path): its own node judges.
    NotHere,
    /// From the node to its own pods: always allowed (probes, `kubectl exec` and friends).
    FromOwnNode,
    /// Part of, or related to, a flow that was allowed.
    Established,
    /// IPv6 does not work without it.
    NeighbourDiscovery,
    /// A pod always reaches itself, also through a Service.
    Itself,
    /// No policy selects the pod in this direction.
    NotIsolated,
    /// A rule allows it.
    Allowed {
        /// The policy.
        policy: ObjectKey,
        /// Index of the rule in `spec.ingress` or `spec.egress`.
        rule: usize,
    },
    /// The pod is isolated and no rule allows it.
    Denied {
        /// The policies that isolate the pod.
        isolated_by: BTreeSet<ObjectKey>,
    },
    /// The pod is isolated and the packet belongs to no flow.
    Invalid {
        /// The policies that isolate the pod.
        isolated_by: BTreeSet<ObjectKey>,
    },
    /// The pod is known to CNI but not yet to the API: closed.
    PodUnknown,
}

impl Judgement {
    /// Whether this end lets the packet pass.
    pub fn is_allowed(&self) -> bool {
        !matches!(
            self,
            Self::Denied { .. } | Self::Invalid { .. } | Self::PodUnknown
        )
    }
}

impl Verdict {
    /// Whether the packet passes.
    pub fn is_allowed(&self) -> bool {
        self.egress.is_allowed() && self.ingress.is_allowed()
    }

    fn both(judgement: &Judgement) -> Self {
        Self {
            egress: judgement.clone(),
            ingress: judgement.clone(),
        }
    }
}

/// Judges a packet:
///
/// 1. What the node itself sends is allowed.
/// 2. Neighbour discovery is allowed.
/// 3. What belongs to an allowed flow, or is an error about one, is allowed.
/// 4. The source must be allowed to send it (egress), if it is a pod of this node.
/// 5. The destination must be allowed to receive it (ingress), if it is a pod of this node. Where
///    no pod of this node has the destination address, the pod behind the port it leaves by is
///    asked (group addresses).
///
/// Egress that is allowed says nothing about ingress, nor the other way round.
pub fn evaluate(model: &PolicyModel, packet: &Packet) -> Verdict {
    if packet.path == Path::Output {
        return Verdict::both(&Judgement::FromOwnNode);
    }
    if packet.is_neighbour_discovery() {
        return Verdict::both(&Judgement::NeighbourDiscovery);
    }
    if matches!(packet.state, State::Established | State::Related) {
        return Verdict::both(&Judgement::Established);
    }
    let source = model.subject_at(packet.source);
    let destination = match &packet.path {
        Path::Forward { out_port } => model.subject_at(packet.destination).or_else(|| {
            out_port
                .as_deref()
                .and_then(|port| model.subject_behind(port))
        }),
        Path::Input | Path::Output => None,
    };
    let judge = |subject: Option<(_, &Subject)>, direction| {
        subject.map_or(Judgement::NotHere, |(_, subject)| {
            judge(model, subject, direction, packet)
        })
    };
    Verdict {
        egress: judge(source, Direction::Egress),
        ingress: judge(destination, Direction::Ingress),
    }
}

fn judge(
    model: &PolicyModel,
    subject: &Subject,
    direction: Direction,
    packet: &Packet,
) -> Judgement {
    let isolated_by = match &subject.standing {
        Standing::Unknown => return Judgement::PodUnknown,
        Standing::Known { ingress, egress } => match direction {
            Direction::Ingress => ingress,
            Direction::Egress => egress,
        },
    };
    if isolated_by.is_empty() {
        return Judgement::NotIsolated;
    }
    if subject.addresses.contains(&peer_address(direction, packet)) {
        return Judgement::Itself;
    }
    if packet.state == State::Invalid {
        return Judgement::Invalid {
            isolated_by: isolated_by.clone(),
        };
    }
    for policy in isolated_by {
        let rules = model
            .policies
            .get(policy)
            .and_then(|p| p.rules(direction))
            .unwrap_or_default();
        let matches = |rule: &Rule| rule_matches(model, rule, direction, packet);
        if let Some(rule) = rules.iter().position(matches) {
            return Judgement::Allowed {
                policy: policy.clone(),
                rule,
            };
        }
    }
    Judgement::Denied {
        isolated_by: isolated_by.clone(),
    }
}

fn rule_matches(model: &PolicyModel, rule: &Rule, direction: Direction, packet: &Packet) -> bool {
    peer_matches(model, &rule.peers, peer_address(direction, packet))
        && ports_match(&rule.ports, packet)
}

/// The address of the other end.
fn peer_address(direction: Direction, packet: &Packet) -> IpAddr {
    match direction {
        Direction::Ingress => packet.source,
        Direction::Egress => packet.destination,
    }
}

fn peer_matches(model: &PolicyModel, peers: &Peers, address: IpAddr) -> bool {
    match peers {
        Peers::Any => true,
        Peers::Only { pods, blocks } => {
            pods.iter()
                .any(|s| model.peers.get(s).is_some_and(|set| set.contains(&address)))
                || blocks.iter().any(|block| block.contains(address))
        }
    }
}

fn ports_match(ports: &Ports, packet: &Packet) -> bool {
    let Ports::Only(entries) = ports else {
        return true;
    };
    // A rule with ports is about ports: it does not admit ICMP or other protocols.
    let Payload::Port { protocol, port } = packet.payload else {
        return false;
    };
    entries.iter().any(|entry| match entry {
        PortMatch::Protocol(wanted) => *wanted == protocol,
        PortMatch::Range(wanted, range) => *wanted == protocol && range.contains(port),
        PortMatch::Named(named) => {
            named.protocol == protocol && named.members.contains(&(packet.destination, port))
        }
    })
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |keys: &BTreeSet<ObjectKey>| {
            keys.iter()
                .map(ObjectKey::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::NotHere => f.write_str("not a pod of this node"),
            Self::FromOwnNode => f.write_str("allowed: from the pod's own node"),
            Self::Established => f.write_str("allowed: part of an allowed flow"),
            Self::NeighbourDiscovery => f.write_str("allowed: neighbour discovery"),
            Self::Itself => f.write_str("allowed: the pod itself"),
            Self::NotIsolated => f.write_str("allowed: no policy selects the pod"),
            Self::Allowed { policy, rule } => write!(f, "allowed by rule {rule} of {policy}"),
            Self::Denied { isolated_by } => {
                write!(f, "denied: no rule matched in {}", list(isolated_by))
            }
            Self::Invalid { isolated_by } => {
                write!(
                    f,
                    "denied: belongs to no flow; isolated by {}",
                    list(isolated_by)
                )
            }
            Self::PodUnknown => f.write_str("denied: the Pod object has not been seen yet"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "egress: {}; ingress: {}", self.egress, self.ingress)
    }
}
