//! The table of packet cases: the semantics of NetworkPolicy, one clause a row, run against the
//! evaluator here, against compiled rulesets by the compiler's tests, and against real packets by
//! npc's. A defect of the table itself panics: it is a test's.
//!
//! The stage: node `n1` with the pods `x/a x/b y/a y/b z/a`, node `n2` with `x/c y/c z/b z/c`,
//! both families, each pod labelled `pod: <name>`, each namespace `ns: <name>`; every pod names
//! its ports 80 and 81 (`serve-80-tcp`, `serve-81-tcp`, `serve-80-udp`, `serve-80-sctp`). Verdicts
//! are those of `n1`.
//!
//! A line of packets reads `x/a -> y/a tcp/80 allow`; behind the payload may stand `v6`,
//! `established`, `related`, `invalid`, `from/80` (the source port), `closed` (what denies it is no
//! policy, but that an end is an address of the node's blocks and of no known pod). Ends: a pod,
//! `node` (n1 itself), `node2` (the host of n2), `outside`, or an address; `224.0.0.251@y/a` is the
//! copy of a group frame that goes to `y/a`.
//!
//! Every line is played in both families: as it stands, and with every address (in policies too)
//! in the other one, where it stands under `2001:db8::/96`. What only one family has (neighbour
//! discovery, broadcast) is played in that one.
#![allow(
    clippy::panic,
    reason = "a table of tests: a bad row must stop the test"
)]

mod lifecycle;
mod mirror;
mod peers;
mod ports;
mod selection;
mod stage;
mod tally;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};

pub use tally::Tally;

use crate::{Endpoint, EndpointId, Index, ObjectKey, Packet};

/// One clause.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its number in the reference semantics; 0 for our own decisions.
    pub number: u8,
    /// What must hold.
    pub clause: &'static str,
    /// What happens, in order.
    pub steps: &'static [Step],
}

/// One thing that happens in a case.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A NetworkPolicy (`namespace/name`) gets this spec (YAML).
    Policy(&'static str, &'static str),
    /// A Pod (`namespace/name`) is as on the stage but for these settings (YAML: `labels`, `uid`,
    /// `annotations`, `address`, `node`, `phase`, `created`, `terminating`, `hostNetwork`,
    /// `ports`, `sidecarPorts`, `initPorts`).
    Pod(&'static str, &'static str),
    /// A Namespace gets these labels (YAML) and `kubernetes.io/metadata.name`.
    Namespace(&'static str, &'static str),
    /// A NetworkPolicy is deleted.
    DeletePolicy(&'static str),
    /// A Pod is deleted from the API.
    DeletePod(&'static str),
    /// A Namespace is deleted.
    DeleteNamespace(&'static str),
    /// A Namespace is being deleted: it has a deletion timestamp, and its pods are still there.
    TerminateNamespace(&'static str),
    /// CNI attaches a pod to n1: name, UID, IPv4 address.
    Attach(&'static str, &'static str, &'static str),
    /// CNI detaches the pod that was attached under this UID.
    Detach(&'static str, &'static str),
    /// npc is killed: it hears of nothing.
    Kill,
    /// npc starts, or starts anew, and lists everything.
    Start,
    /// The API server goes away: npc hears of CNI alone.
    LoseApi,
    /// The API server is back: everything is listed again.
    Relist,
    /// Packets, one a line, and what becomes of them.
    Packets(&'static str),
}

/// A packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The line of the table.
    pub line: &'static str,
    /// It is played in the other family than it is written in.
    pub mirrored: bool,
    /// The packet.
    pub packet: Packet,
    /// Its source port, if its payload has ports.
    pub source_port: u16,
    /// Whether it passes n1.
    pub allowed: bool,
    /// What denies it is the closed blocks of the node, of which policy knows nothing.
    pub closed: bool,
    /// npc has heard of all that happened.
    pub up_to_date: bool,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.packet.source.is_ipv4() {
            "IPv4"
        } else {
            "IPv6"
        };
        write!(f, "{} ({family})", self.line)
    }
}

/// The objects of a case at one moment, as the API and CNI have them.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Pods.
    pub pods: BTreeMap<ObjectKey, core::Pod>,
    /// Namespaces.
    pub namespaces: BTreeMap<String, core::Namespace>,
    /// NetworkPolicies.
    pub policies: BTreeMap<ObjectKey, networking::NetworkPolicy>,
    /// Attachments on n1.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
}

/// All cases.
pub fn all() -> Vec<Case> {
    [
        selection::CASES,
        peers::CASES,
        ports::CASES,
        traffic::CASES,
        lifecycle::CASES,
    ]
    .concat()
}

/// Numbers of the reference that no row can express, why, and the tests that hold them.
pub const ELSEWHERE: [(u8, &str, &[&str]); 1] = [(
    70,
    "rules in a kernel that somebody else changes are no objects of the API",
    &[
        "drift_of_every_kind_is_repaired",
        "drift_of_every_kind_is_repaired_and_others_tables_stay",
        "policies_get_into_force_problems_become_events_and_drift_is_repaired",
    ],
)];

impl Case {
    /// Plays the case on an [`Index`], event by event, and hands over every packet with the state
    /// of that moment: the index, and the objects it was fed with.
    pub fn play(&self, mut check: impl FnMut(&Index, &Cluster, &Expectation)) {
        // Where no policy names an address, both families can be judged by the same rules.
        let families: &[&[bool]] = if self.names_blocks() {
            &[&[false], &[true]]
        } else {
            &[&[false, true]]
        };
        for mirrored in families {
            self.play_with(mirrored, &mut check);
        }
    }

    fn play_with(&self, mirrored: &[bool], check: &mut impl FnMut(&Index, &Cluster, &Expectation)) {
        let mut cluster = stage::cluster();
        let mut npc = stage::Npc::new(&cluster, mirrored == [true]);
        for step in self.steps {
            let Step::Packets(lines) = step else {
                npc.happen(step, &mut cluster);
                continue;
            };
            for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
                for mirrored in mirrored {
                    if let Some(mut expectation) = stage::expectation(line, &cluster, *mirrored) {
                        expectation.up_to_date = npc.up_to_date();
                        check(npc.index(), &cluster, &expectation);
                    }
                }
            }
        }
    }

    fn names_blocks(&self) -> bool {
        let names = |step: &Step| matches!(step, Step::Policy(_, spec) if spec.contains("cidr"));
        self.steps.iter().any(names)
    }

    /// Lines that only the family has in which they are written.
    pub fn of_one_family(&self) -> Vec<&'static str> {
        let mut cluster = stage::cluster();
        let mut npc = stage::Npc::new(&cluster, false);
        let mut lines = Vec::new();
        for step in self.steps {
            npc.happen(step, &mut cluster);
            if let Step::Packets(text) = step {
                let all = text.lines().map(str::trim).filter(|line| !line.is_empty());
                lines.extend(all.filter(|line| stage::expectation(line, &cluster, true).is_none()));
            }
        }
        lines
    }
}

impl Cluster {
    /// The stage at the start.
    pub fn new() -> Self {
        stage::cluster()
    }

    /// An index of n1 that has just started and listed everything.
    pub fn index(&self) -> Index {
        let mut index = Index::new(NODE);
        index.reset_namespaces(self.namespaces.values());
        index.reset_pods(self.pods.values());
        index.reset_network_policies(self.policies.values());
        let endpoints = self.endpoints.iter().map(|(id, e)| (id.clone(), e.clone()));
        index.reset_endpoints(endpoints);
        index
    }
}

/// Name of the node whose verdicts are asked.
pub const NODE: &str = "n1";
/// Blocks of n1.
pub const BLOCKS: [&str; 2] = ["10.32.0.0/26", "2001:db8::10.32.0.0/122"];
/// Addresses of n1 on its bridge.
pub const GATEWAYS: [&str; 2] = ["10.32.0.1", "2001:db8::10.32.0.1"];
/// Addresses of all pods and bridges.
pub const POOLS: [&str; 2] = ["10.32.0.0/12", "2001:db8::10.32.0.0/108"];
