//! E24, E25: somebody else takes npc's rules away, or what they stand on.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;
use weft_probe::{cluster::eventually, measured::Measured};

use super::{
    Size,
    count::{Limits, REPAIR_MS, window_after},
    enforcer::{Deed, Done, Enforcer},
    row::Spread,
    stage::{Found, Stage, settled},
};

/// Until kube-proxy and kubelet have written their rules anew.
const WRITTEN: Duration = Duration::from_secs(60);
/// At most so many sets lose a member.
const SETS: usize = 6;

/// E24: flushes of every kind, in turn, at moments that nobody planned.
pub(crate) async fn flushed(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let node = stage.n1();
    let enforcer = Enforcer::of(&stage.lab, node).await?;
    let kinds = enforcer.flushes();
    let deeds: Vec<Deed> = kinds.iter().cycle().take(size.flushes).cloned().collect();
    let (measured, done) = stage
        .measure(async || suffer_all(stage, enforcer, &deeds).await)
        .await?;
    let mut found = Found::of(stage, &measured, Limits::of_a_flush());
    found = told(found, &measured, &deeds, &done);
    if size.everything {
        found = everything(stage, enforcer, found).await?;
    }
    stage.enforced().await?;
    Ok(found.note(format!(
        "{} flushes of {} kinds, {}; window: from the deed to the last forbidden attempt that was \
         answered; repair: from the deed until npc's rules are as before",
        deeds.len(),
        kinds.len(),
        enforcer.word()
    )))
}

/// The flush of everybody's rules. kube-proxy, the kubelet and the router repair theirs in their own
/// time, so only what npc answers for is judged: what is open.
async fn everything(stage: &Stage<'_>, enforcer: Enforcer, found: Found) -> anyhow::Result<Found> {
    let node = stage.n1();
    let deeds = [enforcer.flush_of_everything()];
    let probed = stage
        .measure(async || suffer_all(stage, enforcer, &deeds).await)
        .await;
    let rewritten = rewrite(stage, node).await;
    let (measured, done) = probed?;
    rewritten?;
    let all = Found::of(stage, &measured, Limits::of_a_broken_fabric());
    let all = told(all, &measured, &deeds, &done);
    let mut found = found;
    found.wrong.extend(all.wrong);
    found.notes.extend(all.notes);
    Ok(found.note(format!(
        "nft flush ruleset (everybody's rules go), measured by itself: {} forbidden attempts \
         answered in at most {} ms, {} allowed ones refused, {} packets lost, longest gap {} ms",
        all.counts.wrongly_allowed,
        all.counts.longest_window_ms,
        all.counts.wrongly_refused,
        all.counts.lost,
        all.counts.longest_gap_ms
    )))
}

/// Lets kube-proxy and the kubelet of a node write their rules anew.
async fn rewrite(stage: &Stage<'_>, node: &str) -> anyhow::Result<()> {
    for part in ["proxy", "kubelet"] {
        stage.lab.run(&["stop", part, node]).await?;
        stage.lab.run(&["start", part, node]).await?;
    }
    eventually(WRITTEN, "kube-proxy writes its rules", async || {
        stage
            .sh(
                node,
                "nft list table ip kube-proxy >/dev/null 2>&1 || \
                 { iptables-legacy-save; iptables-nft-save; } 2>/dev/null | \
                 grep -q -- '-A FORWARD .*-j KUBE-SERVICES'",
            )
            .await
            .map(drop)
    })
    .await?;
    settled(stage.s).await
}

/// E25: single things go: members of sets, switches, entries, devices.
pub(crate) async fn deleted(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let node = stage.n1();
    let enforcer = Enforcer::of(&stage.lab, node).await?;
    let sets = enforcer.sets(&stage.lab, node).await?;
    let deeds = enforcer.deletions(sets.min(SETS));
    let (measured, done) = stage
        .measure(async || suffer_all(stage, enforcer, &deeds).await)
        .await?;
    // A member that is gone may be one that lets in: new connections are refused until the repair.
    let limits = Limits {
        refusals: true,
        ..Limits::of_a_flush()
    };
    let mut found = told(
        Found::of(stage, &measured, limits),
        &measured,
        &deeds,
        &done,
    );
    if size.fabric {
        let deeds = enforcer.fabric();
        let (measured, done) = stage
            .measure(async || suffer_all(stage, enforcer, &deeds).await)
            .await?;
        settled(stage.s).await?;
        let fabric = Found::of(stage, &measured, Limits::of_a_broken_fabric());
        let fabric = told(fabric, &measured, &deeds, &done);
        found.wrong.extend(fabric.wrong);
        found.notes.extend(fabric.notes);
        found = found.note(format!(
            "switches and devices, measured by themselves: {} forbidden attempts answered in at most \
             {} ms, {} allowed ones refused, {} packets lost, longest gap {} ms",
            fabric.counts.wrongly_allowed,
            fabric.counts.longest_window_ms,
            fabric.counts.wrongly_refused,
            fabric.counts.lost,
            fabric.counts.longest_gap_ms
        ));
    }
    stage.enforced().await?;
    Ok(found
        .note(format!("{sets} sets with members, {}", enforcer.word()))
        .wrong_if(
            sets == 0,
            "npc has no set with members: nothing was deleted",
        ))
}

/// One after the other, at uneven times. Every deed is done, whatever became of those before.
async fn suffer_all(
    stage: &Stage<'_>,
    enforcer: Enforcer,
    deeds: &[Deed],
) -> anyhow::Result<Vec<anyhow::Result<Done>>> {
    let mut done = Vec::new();
    for (number, deed) in deeds.iter().enumerate() {
        done.push(enforcer.suffer(&stage.lab, stage.n1(), deed).await);
        // Spread over the period of npc's own looks, without a source of chance.
        let pause = 100 + number as u64 * 379 % 700;
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(done)
}

/// Adds what became of each deed: windows, repair times, and those that were not repaired.
fn told(
    mut found: Found,
    measured: &[Measured],
    deeds: &[Deed],
    done: &[anyhow::Result<Done>],
) -> Found {
    let mut repairs = Vec::new();
    let mut windows = Vec::new();
    let mut by_kind: std::collections::BTreeMap<&str, (Vec<u64>, Vec<u64>)> = Default::default();
    for (number, (deed, result)) in deeds.iter().zip(done).enumerate() {
        match result {
            Ok(result) => {
                let next = done[number + 1..]
                    .iter()
                    .flatten()
                    .map(|later| later.at_unix_ms)
                    .next()
                    .unwrap_or(u64::MAX);
                let window = window_after(measured, result.at_unix_ms, next);
                windows.push(window);
                repairs.extend(result.repair_ms);
                let kind = by_kind.entry(&deed.what).or_default();
                kind.0.push(window);
                kind.1.extend(result.repair_ms);
            }
            Err(error) => found.wrong.push(format!("{error:#}")),
        }
    }
    let slow = repairs.iter().filter(|ms| **ms > REPAIR_MS).count();
    found = found.wrong_if(
        slow > 0,
        format!(
            "{slow} of {} repairs took longer than {REPAIR_MS} ms",
            repairs.len()
        ),
    );
    let text = |spread: Option<Spread>| {
        spread.map_or_else(
            || "-".to_owned(),
            |s| format!("{}/{}/{}", s.p50, s.p99, s.max),
        )
    };
    for (kind, (windows, repairs)) in by_kind {
        found.notes.push(format!(
            "{kind}, {} x: window ms p50/p99/max {}, repair ms {}",
            windows.len(),
            text(Spread::of(windows)),
            text(Spread::of(repairs))
        ));
    }
    found
        .note(format!(
            "all windows: ms p50/p99/max {}",
            text(Spread::of(windows))
        ))
        .repaired(repairs)
}

/// The digest of npc's rules on the first node.
pub(crate) async fn digest(stage: &Stage<'_>) -> anyhow::Result<String> {
    let node = stage.n1();
    let enforcer = Enforcer::of(&stage.lab, node).await?;
    enforcer
        .digest(&stage.lab, node)
        .await
        .context("a digest of npc's rules")
}
