//! E1, E2, E4, E8: npc dies, is away, is replaced, changes its backend.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};
use weft_probe::cluster::eventually;

use super::{
    Size,
    before::{backend, set_backend},
    count::Limits,
    enforcer::{Enforcer, Variant},
    millis,
    stage::{Found, Stage, settled},
};
use crate::WEFT_NAMESPACE;

/// npc of this node is killed by its name, among the processes that have the node's network.
pub(crate) const KILL_NPC: &str = "own=$(readlink /proc/self/ns/net); n=0; \
    for p in /proc/[0-9]*; do \
      if [ \"$(cat $p/comm 2>/dev/null)\" = weft-npc ] && \
         [ \"$(readlink $p/ns/net)\" = \"$own\" ] && kill -9 ${p#/proc/}; then n=$((n+1)); fi; \
    done; test $n -gt 0";

/// Until the operator has passed a change on to every node.
const ROLLED: Duration = Duration::from_secs(120);

/// E1: pods run, npc does not, and then it comes. A node cannot be booted in the lab without losing
/// its pods; so npc is killed while no kubelet is there to start it again.
pub(crate) async fn absent(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let (node, absent) = (stage.n1(), size.absent);
    let (measured, back) = stage
        .measure(async || {
            stage.lab.run(&["stop", "kubelet", node]).await?;
            let killed = stage.sh(node, KILL_NPC).await;
            if killed.is_ok() {
                sleep(absent).await;
            }
            let begun = Instant::now();
            stage.lab.run(&["start", "kubelet", node]).await?;
            killed?;
            eventually(ROLLED, "npc is back", async || {
                stage.sh(node, NPC_READY).await.map(drop)
            })
            .await?;
            Ok(millis(begun))
        })
        .await?;
    settled(stage.s).await?;
    stage.enforced().await?;
    Ok(Found::of(stage, &measured, Limits::default())
        .repaired(vec![back])
        .note(format!(
            "npc of {node} was away for {absent:?}; repair: from the kubelet's start to npc's \
             readiness"
        )))
}

/// Answers when npc of the node is ready, without curl.
const NPC_READY: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/6781; \
    printf \"GET /readyz HTTP/1.0\\r\\n\\r\\n\" >&3; head -1 <&3 | grep -q \" 200 \"'";

/// E2: SIGKILL, again and again, on both nodes at once.
pub(crate) async fn killed(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let s = stage.s;
    let nodes = [stage.n1(), stage.n2()];
    for node in nodes {
        s.agent(node).await?;
    }
    let rounds = size.kills.div_ceil(nodes.len()).max(1);
    let (measured, times) = stage
        .measure(async || {
            let mut times = Vec::new();
            for round in 0..rounds {
                if round > 0 {
                    // The kubelet restarts a container at once the first time only.
                    stage.renew(&nodes).await?;
                }
                let pods = futures::future::try_join_all(nodes.map(|node| s.node_agent(node)));
                let kills = pods.await?.into_iter().map(async |pod| {
                    let begun = Instant::now();
                    s.kill("weft-node", &pod, "npc").await?;
                    anyhow::Ok(millis(begun))
                });
                times.extend(futures::future::try_join_all(kills).await?);
            }
            Ok(times)
        })
        .await?;
    // The next kill, by whoever it is, is again the first one that the kubelet sees.
    stage.renew(&nodes).await?;
    stage.enforced().await?;
    let kills = times.len();
    Ok(Found::of(stage, &measured, Limits::default())
        .repaired(times)
        .note(format!(
            "{kills} kills on two nodes, and {} replacements of the whole node agent between them; \
             repair: from the kill until Kubernetes says that npc is ready",
            (rounds - 1) * nodes.len()
        )))
}

/// E4: every node agent is replaced, and again.
pub(crate) async fn upgraded(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let (measured, times) = stage
        .measure(async || {
            let mut times = Vec::new();
            for _ in 0..size.upgrades {
                let begun = Instant::now();
                for verb in ["restart", "status"] {
                    let mut words =
                        vec!["-n", WEFT_NAMESPACE, "rollout", verb, "daemonset/weft-node"];
                    if verb == "status" {
                        words.push("--timeout=180s");
                    }
                    stage.lab.kubectl(&words).await?;
                }
                times.push(millis(begun));
            }
            Ok(times)
        })
        .await?;
    settled(stage.s).await?;
    stage.enforced().await?;
    let rolls = times.len();
    Ok(Found::of(stage, &measured, Limits::default())
        .repaired(times)
        .note(format!(
            "{rolls} rolling restarts of the DaemonSet weft-node (a changed annotation) stand in for \
             N-1 -> N -> N-1: there is one version yet; repair: one roll over all nodes"
        )))
}

/// E8: to the other backend and back, with leftovers of an older one lying about.
pub(crate) async fn switched(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let nodes = stage.s.nodes().await?;
    let first = Enforcer::of(&stage.lab, stage.n1()).await?;
    let old = backend(&stage.lab).await?;
    let there_and_back = match first {
        Enforcer::Nftables => [("Iptables", false), ("Nftables", true)],
        Enforcer::Iptables(_) => [("Nftables", true), ("Iptables", false)],
    };
    let (measured, (times, stale)) = stage
        .measure(async || {
            let mut times = Vec::new();
            let mut stale = Vec::new();
            for (other, nft) in there_and_back.into_iter().take(size.switches) {
                for node in &nodes {
                    stage.sh(node, LEFTOVERS).await?;
                }
                let begun = Instant::now();
                set_backend(&stage.lab, &serde_json::json!(other)).await?;
                eventually(ROLLED, "the other backend is in force", async || {
                    for node in &nodes {
                        let now = Enforcer::of(&stage.lab, node).await?;
                        ensure!((now == Enforcer::Nftables) == nft, "{node}: {}", now.word());
                    }
                    Ok(())
                })
                .await?;
                times.push(millis(begun));
                settled(stage.s).await?;
                for node in &nodes {
                    let now = Enforcer::of(&stage.lab, node).await?;
                    let found = stage.sh(node, &now.leftovers()).await?;
                    stale.extend(found.lines().map(|line| format!("{node}: {line}")));
                }
            }
            Ok((times, stale))
        })
        .await?;
    set_backend(&stage.lab, &old).await?;
    settled(stage.s).await?;
    stage.enforced().await?;
    Ok(Found::of(stage, &measured, Limits::default())
        .repaired(times)
        .note(format!(
            "{} -> {} on every node, chains and a set of an older version lying about; repair: from \
             the change of the WeftNetwork until the other backend is in force on every node",
            first.word(),
            there_and_back
                .iter()
                .take(size.switches)
                .map(|(backend, _)| *backend)
                .collect::<Vec<_>>()
                .join(" -> ")
        ))
        .wrong_if(
            !stale.is_empty(),
            format!("stale rules: {}", stale.join("; ")),
        ))
}

/// What a version before this one may have left: it is npc's by name, and nothing leads to it.
const LEFTOVERS: &str = "iptables-legacy -w 5 -N WEFT-NPC-OLD 2>/dev/null; \
    ipset create weft-npc-old hash:ip 2>/dev/null; true";

/// The variant of iptables that npc has on a node, if any.
pub(crate) fn variant(enforcer: Enforcer) -> Variant {
    match enforcer {
        Enforcer::Iptables(variant) => variant,
        Enforcer::Nftables => Variant::Nft,
    }
}
