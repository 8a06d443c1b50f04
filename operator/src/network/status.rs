//! What the WeftNetwork's status says.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;
use weft_crds::{
    Condition, ConditionStatus, VersionCount, WeftNetwork, WeftNetworkStatus, WeftNode, condition,
    set_condition,
};

use crate::{
    blocks::status::list,
    rows::{DaemonSetRow, NodeRow},
};

/// The schema's bound of the list of versions.
const VERSIONS: usize = 16;

/// The status `network` should have. Transition times come from its present one.
pub(crate) fn status(
    network: &WeftNetwork,
    agent: Option<&DaemonSetRow>,
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[Arc<WeftNode>],
    now: &str,
) -> WeftNetworkStatus {
    let agent = agent.copied().unwrap_or_default();
    let generation = network.metadata.generation.unwrap_or_default();
    let present: Vec<&Arc<WeftNode>> = weft_nodes
        .iter()
        .filter(|w| {
            let mut nodes = nodes.iter();
            nodes.any(|n| n.id.name == w.name_any() && n.id.uid == w.spec.node_uid)
        })
        .collect();
    let findings = [
        available(network, &agent),
        progressing(&agent),
        degraded(&agent, nodes, &present),
    ];
    let summary = summary(&agent, &findings);
    let mut conditions = network.status.clone().unwrap_or_default().conditions;
    for (type_, holds, reason, message) in findings {
        let new = Condition {
            type_: type_.into(),
            status: ConditionStatus::from(holds),
            reason: reason.into(),
            message,
            observed_generation: Some(generation),
            last_transition_time: None,
        };
        set_condition(&mut conditions, new, now);
    }
    WeftNetworkStatus {
        conditions,
        summary,
        nodes: format!("{}/{}", agent.ready, agent.desired),
        nodes_ready: agent.ready,
        nodes_total: agent.desired,
        versions: versions(&present),
        observed_generation: generation,
    }
}

type Finding = (&'static str, bool, &'static str, String);

/// Pods can be connected on all nodes but those that a roll-out may take at a time.
fn available(network: &WeftNetwork, agent: &DaemonSetRow) -> Finding {
    let DaemonSetRow { ready, desired, .. } = *agent;
    let rolling = !agent.observed || agent.updated < desired;
    let spare = if rolling {
        network.spec.rollout.max_unavailable
    } else {
        0
    };
    let holds = ready > 0 && ready.saturating_add(spare) >= desired;
    let message = format!("{ready} of {desired} node agents are ready");
    let reason = if holds { "NodesReady" } else { "NodesNotReady" };
    ("Available", holds, reason, message)
}

fn progressing(agent: &DaemonSetRow) -> Finding {
    let DaemonSetRow {
        ready,
        desired,
        updated,
        ..
    } = *agent;
    let (holds, reason, message) = if !agent.observed {
        (
            true,
            "Applied",
            "the DaemonSet weft-node was applied".into(),
        )
    } else if updated < desired {
        (
            true,
            "RollingOut",
            format!("{updated} of {desired} node agents are of the current revision"),
        )
    } else if ready < desired {
        (
            true,
            "Starting",
            format!("waiting for {} node agents to be ready", desired - ready),
        )
    } else {
        (
            false,
            "RolledOut",
            format!("all {desired} node agents run the current revision"),
        )
    };
    ("Progressing", holds, reason, message)
}

fn degraded(
    agent: &DaemonSetRow,
    nodes: &[Arc<NodeRow>],
    weft_nodes: &[&Arc<WeftNode>],
) -> Finding {
    let homeless = nodes
        .iter()
        .filter(|n| n.addresses.is_empty() && !n.deleting);
    let homeless: Vec<&str> = homeless.map(|n| n.id.name.as_str()).collect();
    if !homeless.is_empty() {
        let message = format!(
            "no InternalIP on: {}; see the events of the Nodes",
            list(homeless.into_iter())
        );
        return ("Degraded", true, "NodesWithoutAddress", message);
    }
    let unwell: Vec<(String, String)> = weft_nodes
        .iter()
        .filter_map(|w| {
            let conditions = &w.status.as_ref()?.conditions;
            let ready = condition(conditions, "Ready")?;
            (ready.status == ConditionStatus::False).then(|| (w.name_any(), ready.message.clone()))
        })
        .collect();
    // While agents start, not being ready is no news.
    let starting = !agent.observed || agent.updated < agent.desired;
    if let Some((node, why)) = unwell.first()
        && !starting
    {
        let who = list(unwell.iter().map(|(n, _)| n.as_str()));
        let message = format!("not ready: {who}; {node}: {why}");
        return ("Degraded", true, "NodesNotReady", message);
    }
    ("Degraded", false, "AsExpected", String::new())
}

/// One line: the worst finding, or that all is well.
fn summary(agent: &DaemonSetRow, findings: &[Finding; 3]) -> String {
    let [available, progressing, degraded] = findings;
    if degraded.1 {
        degraded.3.clone()
    } else if progressing.1 {
        progressing.3.clone()
    } else if !available.1 {
        available.3.clone()
    } else {
        format!("all {} nodes are connected", agent.desired)
    }
}

fn versions(weft_nodes: &[&Arc<WeftNode>]) -> Vec<VersionCount> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for node in weft_nodes {
        let version = node.status.as_ref().map(|s| s.versions.router.clone());
        if let Some(version) = version.filter(|v| !v.is_empty()) {
            *counts.entry(version).or_default() += 1;
        }
    }
    let all = counts.into_iter();
    all.map(|(version, nodes)| VersionCount { version, nodes })
        .take(VERSIONS)
        .collect()
}
