//! E5 and E7: pods that start, with nobody to ask, and under a policy that was there before them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams, LogParams},
};
use serde_json::json;
use weft_probe::{
    cluster::{Plan, eventually, state},
    report::Report,
};

use super::{
    Size,
    before::{replicas, scale},
    count::Limits,
    stage::{ALLOWED, Found, Stage, add_pods, pods_in_phase, settled},
};
use crate::{Running, socket};

/// Pods that start at the same time.
const WAVE: usize = 10;
/// Until all pods of a wave have ended.
const ENDED: Duration = Duration::from_secs(90);

/// E5: no operator: pods get addresses from the blocks that their node has.
pub(crate) async fn without_operator(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let replicas = replicas(&stage.lab).await?;
    let (measured, times) = stage
        .measure(async || {
            scale(&stage.lab, 0).await?;
            eventually(ENDED, "no operator", async || {
                let pods = stage.s.weft_pods("weft-operator").await?;
                ensure!(pods.is_empty(), "{} pods of it", pods.len());
                Ok(())
            })
            .await?;
            let times = add_pods(stage, "orphan", size.orphans).await;
            scale(&stage.lab, replicas).await?;
            times
        })
        .await?;
    settled(stage.s).await?;
    stage.enforced().await?;
    Ok(Found::of(stage, &measured, Limits::default())
        .note(format!(
            "{} pods started on {} without an operator, none failed; repair: from a pod's creation \
             to Ready",
            times.len(),
            stage.n1()
        ))
        .repaired(times))
}

/// What the attempts of some short pods came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Attempts {
    pods: u64,
    sent: u64,
    received: u64,
    /// Pods that got an answer.
    answered: u64,
}

/// E7: pods that send on their first instruction; a policy that denies all egress was there before.
pub(crate) async fn started(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let s = stage.s;
    let control = wave(stage, "control", "none", 4).await?;
    ensure!(
        control.answered == control.pods,
        "the control does not leak: {control:?}"
    );
    let deny = json!({
        "podSelector": {"matchLabels": {"race": "denied"}}, "policyTypes": ["Egress"],
    });
    s.create_policy("no-egress", deny).await?;
    let (measured, (denied, free)) = stage
        .measure(async || {
            let mut denied = Attempts::default();
            let mut free = Attempts::default();
            let mut number = 0;
            while denied.pods < size.pods as u64 {
                let left = size.pods - denied.pods as usize;
                let some = wave(stage, &format!("race{number}"), "denied", left.min(WAVE)).await?;
                denied.add(&some);
                let some = wave(stage, &format!("free{number}"), "free", 2).await?;
                free.add(&some);
                number += 1;
            }
            Ok((denied, free))
        })
        .await?;
    s.delete_policy("no-egress").await?;
    let mut found = Found::of(stage, &measured, Limits::default());
    found.control = format!(
        "{}; {} of {} short pods without a policy are answered",
        found.control, control.answered, control.pods
    );
    found.counts.forbidden += denied.sent;
    found.counts.wrongly_allowed += denied.received;
    found.counts.allowed += free.sent;
    found.counts.wrongly_refused += free.sent - free.received;
    Ok(found
        .note(format!(
            "{} pods under the policy made {} attempts from their first instruction on, {} of {} \
             pods got through; {} pods beside it that nobody forbids: {} of {} first attempts \
             answered",
            denied.pods,
            denied.sent,
            denied.answered,
            denied.pods,
            free.pods,
            free.received,
            free.sent
        ))
        .wrong_if(
            denied.received > 0,
            format!("{} of {} pods got through", denied.answered, denied.pods),
        )
        .wrong_if(
            free.received < free.sent,
            format!(
                "{} of {} allowed first attempts were not answered",
                free.sent - free.received,
                free.sent
            ),
        ))
}

impl Attempts {
    fn add(&mut self, other: &Self) {
        self.pods += other.pods;
        self.sent += other.sent;
        self.received += other.received;
        self.answered += other.answered;
    }
}

/// A server on each of the two nodes, that no policy of the stage guards. What a new pod sends on its
/// first instruction is its own node's to judge; whether a guarded server of another node already
/// knows its address is a matter of the API: it would refuse the control, and hide what a node lets
/// out too early.
fn servers<'a>(stage: &'a Stage<'_>) -> [&'a Running; 2] {
    [&stage.near.pod, &stage.other]
}

/// Starts `count` short pods on both nodes, waits for their end, reads what they found, and deletes
/// them.
async fn wave(
    stage: &Stage<'_>,
    name: &str,
    label: &str,
    count: usize,
) -> anyhow::Result<Attempts> {
    let s = stage.s;
    let nodes = [stage.n1(), stage.n2()];
    let targets = servers(stage).map(|pod| socket(&pod.ip, ALLOWED));
    let plans = (0..count).map(|number| {
        let mut plan = Plan::new(&format!("{name}-{number}"))
            .on(nodes[number % 2])
            .label("role", "friend")
            .label("race", label)
            .label("wave", name);
        // Every combination of own node and server's node.
        let target = &targets[number / 2 % 2];
        let how: &[&str] = match label {
            "denied" => &["--count", "150", "--interval", "2ms", "--timeout", "250ms"],
            _ => &["--count", "1", "--timeout", "900ms"],
        };
        plan.command = ["/usr/bin/weft-probe", "connect", target]
            .iter()
            .chain(how)
            .map(|word| (*word).to_owned())
            .collect();
        plan
    });
    let plans: Vec<Plan> = plans.collect();
    let create = plans
        .iter()
        .map(|plan| s.cluster.create(&s.namespace, plan));
    futures::future::try_join_all(create).await?;
    let selector = format!("wave={name}");
    let pods = eventually(ENDED, "all pods of a wave have ended", async || {
        let ended = pods_in_phase(s, &selector, &["Succeeded", "Failed"]).await?;
        if ended.len() < count {
            let rest = pods_in_phase(s, &selector, &["Pending", "Running"]).await?;
            anyhow::bail!(
                "{} of {count}: {}",
                ended.len(),
                rest.first().map(state).unwrap_or_default()
            );
        }
        Ok(ended)
    })
    .await?;
    let mut attempts = Attempts::default();
    for pod in &pods {
        let report = report_of(stage, pod).await?;
        attempts.add(&Attempts {
            pods: 1,
            sent: report.sent,
            received: report.received,
            answered: u64::from(report.received > 0),
        });
    }
    s.cluster
        .pods(&s.namespace)
        .delete_collection(
            &DeleteParams::default().grace_period(0),
            &ListParams::default().labels(&selector),
        )
        .await?;
    Ok(attempts)
}

/// What a pod that has ended wrote.
async fn report_of(stage: &Stage<'_>, pod: &Pod) -> anyhow::Result<Report> {
    let pods = stage.s.cluster.pods(&stage.s.namespace);
    let name = pod.name_any();
    let log = pods.logs(&name, &LogParams::default()).await?;
    let line = log.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("pod {name} said nothing: {} {log}", state(pod)))?;
    let report: Report = serde_json::from_str(line)?;
    ensure!(report.sent > 0, "pod {name} did not try: {log}");
    Ok(report)
}
