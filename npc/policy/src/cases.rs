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
//! `established`, `related`, `invalid`. Ends: a pod, `node` (n1 itself), `node2` (the host of n2),
//! `outside`, or an address; `224.0.0.251@y/a` is the copy of a group frame that goes to `y/a`.
#![allow(
    clippy::panic,
    reason = "a table of tests: a bad row must stop the test"
)]

mod peers;
mod ports;
mod selection;
mod stage;
mod traffic;

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};

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
    /// `address`, `node`, `phase`, `created`, `terminating`, `hostNetwork`, `ports`,
    /// `sidecarPorts`, `initPorts`).
    Pod(&'static str, &'static str),
    /// A Namespace gets these labels (YAML) and `kubernetes.io/metadata.name`.
    Namespace(&'static str, &'static str),
    /// A NetworkPolicy is deleted.
    DeletePolicy(&'static str),
    /// A Pod is deleted from the API.
    DeletePod(&'static str),
    /// A Namespace is deleted.
    DeleteNamespace(&'static str),
    /// CNI attaches a pod to n1: name, UID, IPv4 address.
    Attach(&'static str, &'static str, &'static str),
    /// CNI detaches the pod that was attached under this UID.
    Detach(&'static str, &'static str),
    /// Packets, one a line, and what becomes of them.
    Packets(&'static str),
}

/// A packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The line of the table.
    pub line: &'static str,
    /// The packet.
    pub packet: Packet,
    /// Whether it passes n1.
    pub allowed: bool,
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
    [selection::CASES, peers::CASES, ports::CASES, traffic::CASES].concat()
}

impl Case {
    /// Plays the case on an [`Index`], event by event, and hands over every packet with the state
    /// of that moment: the index, and the objects it was fed with.
    pub fn play(&self, mut check: impl FnMut(&Index, &Cluster, &Expectation)) {
        let mut cluster = stage::cluster();
        let mut index = cluster.index();
        for step in self.steps {
            if let Step::Packets(lines) = step {
                for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    check(&index, &cluster, &stage::expectation(line, &cluster));
                }
            } else {
                stage::happen(step, &mut cluster, &mut index);
            }
        }
    }
}

impl Cluster {
    /// The stage at the start.
    pub fn new() -> Self {
        stage::cluster()
    }

    /// An index of n1 that has just started and listed everything.
    pub fn index(&self) -> Index {
        let mut index = Index::new(stage::NODE);
        index.reset_namespaces(self.namespaces.values());
        index.reset_pods(self.pods.values());
        index.reset_network_policies(self.policies.values());
        let endpoints = self.endpoints.iter().map(|(id, e)| (id.clone(), e.clone()));
        index.reset_endpoints(endpoints);
        index
    }
}

/// Blocks of n1.
pub const BLOCKS: [&str; 2] = ["10.32.0.0/26", "fd10:32::/122"];
/// Addresses of n1 on its bridge.
pub const GATEWAYS: [&str; 2] = ["10.32.0.1", "fd10:32::1"];
