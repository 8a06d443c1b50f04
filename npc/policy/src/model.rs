//! The policy of one node as a value: ordered, comparable, printable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::{IpBlock, ObjectKey, PeerSelector, PortRange, Problem, Protocol, Uid};

/// Everything that decides what local pods may send and receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct PolicyModel {
    /// The pods of this node.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::pairs"))]
    pub subjects: BTreeMap<SubjectKey, Subject>,
    /// The policies that select at least one of them.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::pairs"))]
    pub policies: BTreeMap<ObjectKey, Arc<Policy>>,
    /// The addresses of every peer selector that those policies use; no entry is missing, an empty
    /// one means that nobody matches.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::pairs"))]
    pub peers: BTreeMap<Arc<PeerSelector>, Arc<BTreeSet<IpAddr>>>,
    /// What is wrong with those policies.
    pub problems: BTreeSet<Problem>,
    /// Limits that they are near; nothing is closed yet.
    pub warnings: BTreeSet<Problem>,
}

/// A pod of this node: a recreated pod of the same name is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct SubjectKey {
    /// Namespace and name.
    pub pod: ObjectKey,
    /// The UID the runtime knows it by.
    pub uid: Uid,
}

/// What the node knows of a pod of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Subject {
    /// Its addresses, as CNI gave them.
    pub addresses: BTreeSet<IpAddr>,
    /// Host ends of its interfaces.
    pub ports: BTreeSet<String>,
    /// How policy stands to it.
    pub standing: Standing,
}

/// How policy stands to a pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Standing {
    /// The Pod object with this UID has not been seen yet: nobody can say which policies select
    /// it, so it is closed both ways (but for its own node).
    Unknown,
    /// Its Pod object is known.
    Known {
        /// The policies that isolate it for ingress; none: it is open.
        ingress: BTreeSet<ObjectKey>,
        /// The policies that isolate it for egress; none: it is open.
        egress: BTreeSet<ObjectKey>,
    },
}

/// Which way, as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Towards the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// One NetworkPolicy, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// What may enter its subjects; `None`: it does not isolate them for ingress.
    pub ingress: Option<Vec<Rule>>,
    /// What may leave its subjects; `None`: it does not isolate them for egress.
    pub egress: Option<Vec<Rule>>,
}

/// What one rule allows: a peer of the list **and** a port of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Rule {
    /// The other end.
    pub peers: Peers,
    /// The destination port.
    pub ports: Ports,
}

/// The other ends of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Peers {
    /// Everybody (`from`/`to` empty or missing).
    Any,
    /// These; both sets empty means nobody.
    Only {
        /// Pods, by selector ([`PolicyModel::peers`] holds their addresses).
        pods: BTreeSet<Arc<PeerSelector>>,
        /// Addresses, whoever owns them.
        blocks: BTreeSet<IpBlock>,
    },
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Ports {
    /// Every port and every protocol, ICMP included (`ports` empty or missing).
    Any,
    /// These.
    Only(BTreeSet<PortMatch>),
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum PortMatch {
    /// Every port of a protocol.
    Protocol(Protocol),
    /// A port or a range.
    Range(Protocol, PortRange),
    /// A named port.
    Named(Named),
}

/// A named port, resolved on the pods that are the destination: the subjects for ingress, the
/// pods among the peers for egress. A name that no such pod has matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Named {
    /// The protocol the container port must have.
    pub protocol: Protocol,
    /// The name.
    #[cfg_attr(feature = "stored", serde(with = "crate::stored::text"))]
    pub name: Arc<str>,
    /// Address and port number of each pod that has it.
    pub members: Arc<BTreeSet<(IpAddr, u16)>>,
}

impl PolicyModel {
    /// The local pod with an address.
    pub fn subject_at(&self, address: IpAddr) -> Option<(&SubjectKey, &Subject)> {
        self.subjects
            .iter()
            .find(|(_, subject)| subject.addresses.contains(&address))
    }

    /// The local pod behind a port of the bridge.
    pub fn subject_behind(&self, port: &str) -> Option<(&SubjectKey, &Subject)> {
        self.subjects
            .iter()
            .find(|(_, subject)| subject.ports.contains(port))
    }
}

impl Standing {
    /// The policies that isolate the pod in a direction; `None` if its Pod object is not known.
    pub fn isolated_by(&self, direction: Direction) -> Option<&BTreeSet<ObjectKey>> {
        match (self, direction) {
            (Self::Unknown, _) => None,
            (Self::Known { ingress, .. }, Direction::Ingress) => Some(ingress),
            (Self::Known { egress, .. }, Direction::Egress) => Some(egress),
        }
    }

    /// Whether anything is kept from the pod (or from others by it) in a direction.
    pub fn is_closed(&self, direction: Direction) -> bool {
        self.isolated_by(direction)
            .is_none_or(|policies| !policies.is_empty())
    }
}

impl Policy {
    /// The rules of a direction; `None` if the policy does not isolate in it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pod, self.uid)
    }
}
