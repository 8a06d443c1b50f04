//! What an experiment is done to: pods under policies, with probers in them.
//!
//! ```text
//! n1: server    ingress: 8080 and 8082 from pods with role=friend; 8081 from nobody
//!     near      role=friend
//!     bound     role=friend; egress: 8080 and 8082 only
//! n2: far       role=friend
//!     other     no policy
//! forbidden: near -> server:8081, far -> server:8081 (ingress), bound -> other:8081 (egress)
//! allowed:   the same with 8080;   held flows: 8082 (TCP, both ends send), 8080 (UDP)
//! ```

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use tokio::time::sleep;
use weft_probe::{
    cluster::{eventually, state},
    measured::Measured,
};

use super::{
    count::{Limits, count, judge, where_wrong},
    millis,
    prober::{Place, Prober},
    row::{Counts, Spread},
};
use crate::{
    Flow, Lab, Plan, Proto, Running, Scenario, WEFT_NAMESPACE,
    policy::{app, egress},
    socket,
};

/// TCP and UDP, allowed.
pub(crate) const ALLOWED: u16 = 8080;
/// TCP and UDP, forbidden.
pub(crate) const FORBIDDEN: u16 = 8081;
/// TCP of held flows, allowed.
pub(crate) const HELD: u16 = 8082;
/// Attempts a second of each of the three probers: 501 TCP connections together, and UDP beside
/// them; as many forbidden as allowed ones.
const TCP_RATE: u32 = 167;
const UDP_RATE: u32 = 20;
/// Before the fault, and after it.
const LEAD: Duration = Duration::from_secs(1);
const TAIL: Duration = Duration::from_millis(1500);
/// How long the control without an enforcer runs.
const CONTROL: Duration = Duration::from_secs(2);
/// Until the node agents are ready, after whatever was done to them.
const READY: Duration = Duration::from_secs(120);

/// What an experiment found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// The control without an enforcer.
    pub(crate) control: String,
    /// What was counted.
    pub(crate) counts: Counts,
    /// Repair times, milliseconds.
    pub(crate) repair: Option<Spread>,
    /// For a reader.
    pub(crate) notes: Vec<String>,
    /// What is beyond the limits.
    pub(crate) wrong: Vec<String>,
    /// Why the fault could not be done here.
    pub(crate) not_run: Option<String>,
}

impl Found {
    /// What the probers of a stage measured.
    pub(crate) fn of(stage: &Stage<'_>, measured: &[Measured], limits: Limits) -> Self {
        let counts = count(measured);
        let wrong = judge(&counts, measured, limits);
        let mut notes = where_wrong(measured);
        notes.truncate(12);
        if counts.longest_pause_ms > 100 {
            notes.push(format!(
                "the prober itself was held up for up to {} ms",
                counts.longest_pause_ms
            ));
        }
        Self {
            control: stage.control.clone(),
            counts,
            repair: None,
            notes,
            wrong,
            not_run: None,
        }
    }

    /// With a note.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With repair times.
    pub(crate) fn repaired(mut self, times: Vec<u64>) -> Self {
        self.repair = Spread::of(times);
        self
    }

    /// With something that is wrong if `is`.
    pub(crate) fn wrong_if(mut self, is: bool, what: impl Into<String>) -> Self {
        if is {
            self.wrong.push(what.into());
        }
        self
    }
}

/// A pod that probes.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The pod.
    pub(crate) pod: Running,
    /// Where its network is.
    pub(crate) place: Place,
    /// The server that it probes.
    pub(crate) to: Running,
}

impl Client {
    /// A pod that probes `to`.
    pub(crate) async fn of(lab: &Lab, pod: Running, to: &Running) -> anyhow::Result<Self> {
        Ok(Self {
            place: Place::of(lab, &pod).await?,
            pod,
            to: to.clone(),
        })
    }
}

/// Pods under policies.
pub(crate) struct Stage<'a> {
    pub(crate) s: &'a Scenario,
    pub(crate) lab: Lab,
    pub(crate) server: Running,
    pub(crate) other: Running,
    pub(crate) near: Client,
    pub(crate) far: Client,
    pub(crate) bound: Client,
    control: String,
}

/// A pod that serves all ports of a stage.
pub(crate) fn server(name: &str, node: &str) -> Plan {
    let mut plan = Plan::new(name).on(node).label("role", "friend");
    plan.command = [
        "/usr/bin/weft-probe",
        "serve",
        "--tcp",
        "8080,8081",
        "--udp",
        "8080,8081",
        "--push",
        "8082",
    ]
    .map(String::from)
    .into();
    plan
}

/// Ports that the policies of a stage allow.
pub(crate) fn allowed_ports() -> serde_json::Value {
    json!([
        {"protocol": "TCP", "port": ALLOWED},
        {"protocol": "UDP", "port": ALLOWED},
        {"protocol": "TCP", "port": HELD},
    ])
}

/// Ingress of a stage's server.
pub(crate) fn guard() -> serde_json::Value {
    json!({
        "podSelector": app("server"),
        "policyTypes": ["Ingress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
            "ports": allowed_ports(),
        }],
    })
}

impl<'a> Stage<'a> {
    /// Starts the pods, shows that what will be forbidden passes without a policy, and puts the
    /// policies in force.
    pub(crate) async fn set(s: &'a Scenario) -> anyhow::Result<Self> {
        let [n1, n2] = s.two_nodes().await?;
        let lab = Lab::new(&s.settings).await?;
        let [server, other, near, far, bound] = s
            .start([
                server("server", &n1),
                server("other", &n2),
                server("near", &n1),
                server("far", &n2),
                server("bound", &n1),
            ])
            .await?;
        let (near, far, bound) = tokio::try_join!(
            Client::of(&lab, near, &server),
            Client::of(&lab, far, &server),
            Client::of(&lab, bound, &other)
        )?;
        let mut stage = Self {
            s,
            lab,
            server,
            other,
            near,
            far,
            bound,
            control: String::new(),
        };
        stage.control = stage.without_policies().await?;
        s.create_policy("guard", guard()).await?;
        s.create_policy("leash", egress("bound", json!([]), allowed_ports()))
            .await?;
        stage.enforced().await?;
        Ok(stage)
    }

    pub(crate) fn clients(&self) -> [&Client; 3] {
        [&self.near, &self.far, &self.bound]
    }

    /// The first node: faults of one node are done there.
    pub(crate) fn n1(&self) -> &str {
        &self.server.node
    }

    /// The second node.
    pub(crate) fn n2(&self) -> &str {
        &self.other.node
    }

    /// Without a policy at least 99 of 100 attempts that will be forbidden must pass, or the
    /// experiment shows nothing.
    async fn without_policies(&self) -> anyhow::Result<String> {
        let measured = self.probe_while(async || {
            sleep(CONTROL).await;
            Ok(())
        });
        let (measured, ()) = measured.await?;
        let counts = count(&measured);
        let (passed, sent) = (counts.wrongly_allowed, counts.forbidden);
        ensure!(
            sent > 0 && passed * 100 >= sent * 99,
            "the control does not leak: without a policy {passed} of {sent} attempts passed: {}",
            where_wrong(&measured).join("; ")
        );
        Ok(format!(
            "without a policy {passed} of {sent} of these attempts pass"
        ))
    }

    /// The policies hold.
    pub(crate) async fn enforced(&self) -> anyhow::Result<()> {
        let mut flows = Vec::new();
        for client in self.clients() {
            for proto in [Proto::Tcp, Proto::Udp] {
                flows.push(Flow::port(&client.pod, &client.to, ALLOWED, proto, true));
                flows.push(Flow::port(&client.pod, &client.to, FORBIDDEN, proto, false));
            }
        }
        self.s.expect(&flows).await
    }

    /// Arguments of a prober: forbidden and allowed attempts and held flows, in each family that
    /// both pods have.
    pub(crate) fn arguments(client: &Client) -> Vec<String> {
        let pairs = client.pod.pairs(&client.to);
        let families = u32::try_from(pairs.len()).unwrap_or(1).max(1);
        let rate = |all: u32| all.div_ceil(families);
        let mut arguments = Vec::new();
        for (_, address) in pairs {
            for (proto, rate) in [("tcp", rate(TCP_RATE)), ("udp", rate(UDP_RATE))] {
                for (word, port) in [("--forbidden", FORBIDDEN), ("--allowed", ALLOWED)] {
                    let target = format!("{proto}/{}@{rate}", socket(address, port));
                    arguments.extend([word.to_owned(), target]);
                }
            }
            for (proto, port) in [("tcp", HELD), ("udp", ALLOWED)] {
                let target = format!("{proto}/{}", socket(address, port));
                arguments.extend(["--flow".to_owned(), target]);
            }
        }
        arguments
    }

    /// Measures while `fault` happens, from a second before it until a little after.
    pub(crate) async fn measure<T>(
        &self,
        fault: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Vec<Measured>, T)> {
        self.probe_while(async || {
            sleep(LEAD).await;
            let done = fault().await?;
            sleep(TAIL).await;
            Ok(done)
        })
        .await
    }

    async fn probe_while<T>(
        &self,
        what: impl AsyncFnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Vec<Measured>, T)> {
        let arguments = self
            .clients()
            .map(|client| (client, Self::arguments(client)));
        let start = arguments
            .iter()
            .map(|(client, arguments)| Prober::start(&self.lab, &client.place, arguments));
        let probers = futures::future::try_join_all(start).await?;
        let done = what().await;
        // They are ended whatever became of it, and its failure is the one to tell.
        let measured = futures::future::try_join_all(probers.into_iter().map(Prober::end)).await;
        let done = done?;
        Ok((measured?, done))
    }

    /// Runs a shell line on a node; its stdout. It needs neither API server nor kubelet.
    pub(crate) async fn sh(&self, node: &str, line: &str) -> anyhow::Result<String> {
        self.lab.enter(node, &["sh", "-c", line]).await
    }

    /// Replaces the node agents of these nodes by new pods, whose containers the kubelet restarts at
    /// once again.
    pub(crate) async fn renew(&self, nodes: &[&str]) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.s.cluster.client.clone(), WEFT_NAMESPACE);
        let mut old = BTreeMap::new();
        for node in nodes {
            let name = self.s.node_agent(node).await?;
            pods.delete(&name, &DeleteParams::default()).await?;
            old.insert(*node, name);
        }
        eventually(READY, "new node agents", async || {
            for (node, old) in &old {
                let new = self.s.node_agent(node).await?;
                ensure!(new != *old, "{old} is still there");
            }
            agents_ready(self.s).await
        })
        .await
    }
}

/// Whether every pod of weft is ready, one node agent per Ready node.
pub(crate) async fn agents_ready(s: &Scenario) -> anyhow::Result<()> {
    let nodes = s.nodes().await?;
    let agents = s.weft_pods("weft-node").await?;
    ensure!(
        agents.len() == nodes.len(),
        "{} node agents on {} nodes",
        agents.len(),
        nodes.len()
    );
    for pod in agents.iter().chain(&s.weft_pods("weft-operator").await?) {
        let ready = pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let going = pod.metadata.deletion_timestamp.is_some();
        ensure!(ready && !going, "{}: {}", pod.name_any(), state(pod));
    }
    Ok(())
}

/// Waits for [`agents_ready`].
pub(crate) async fn settled(s: &Scenario) -> anyhow::Result<()> {
    eventually(READY, "all parts of weft are ready", async || {
        agents_ready(s).await
    })
    .await
}

/// Starts pods one by one on a node, each until it is ready; how long each took, milliseconds.
pub(crate) async fn add_pods(
    stage: &Stage<'_>,
    prefix: &str,
    count: usize,
) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::new();
    for number in 0..count {
        let begun = tokio::time::Instant::now();
        let name = format!("{prefix}-{number}");
        let [pod] = stage
            .s
            .start([Plan::new(&name).on(stage.n1())])
            .await
            .with_context(|| format!("pod {number} of {count}"))?;
        times.push(millis(begun));
        let pods = stage.s.cluster.pods(&stage.s.namespace);
        pods.delete(&pod.name, &DeleteParams::default().grace_period(0))
            .await?;
    }
    Ok(times)
}

/// How many pods a namespace has in these phases.
pub(crate) async fn pods_in_phase(
    s: &Scenario,
    selector: &str,
    phase: &[&str],
) -> anyhow::Result<Vec<Pod>> {
    let all = s
        .cluster
        .pods(&s.namespace)
        .list(&ListParams::default().labels(selector))
        .await?;
    Ok(all
        .items
        .into_iter()
        .filter(|pod| {
            let found = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            found.is_some_and(|found| phase.contains(&found))
        })
        .collect())
}
