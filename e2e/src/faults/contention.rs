//! E26, E27, E30: others hold the lock, fill the connection table, make the kernel's queues run over.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep};
use weft_probe::cluster::eventually;

use super::{
    Size,
    count::Limits,
    enforcer::Enforcer,
    flush::digest,
    millis,
    prober::{Place, Prober},
    restart::variant,
    row::Spread,
    stage::{FORBIDDEN, Found, Stage, add_pods},
};
use crate::socket;

/// Size of the connection table, one number for all namespaces of a machine.
pub(crate) const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Its entries, of each namespace by itself.
const CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

fn shown(times: Vec<u64>) -> String {
    Spread::of(times).map_or_else(
        || "-".into(),
        |s| {
            format!(
                "{} pods, ms p50/p99/max {}/{}/{}",
                s.count, s.p50, s.p99, s.max
            )
        },
    )
}

/// E26: somebody holds the lock of iptables, and then takes and leaves it fifty times a second.
pub(crate) async fn locked(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let node = stage.n1();
    let enforcer = Enforcer::of(&stage.lab, node).await?;
    let tool = format!("iptables-{}", variant(enforcer).word());
    let held = size.lock;
    let before = add_pods(stage, "calm", 3).await?;
    let (measured, (while_held, among_restores, restores)) = stage
        .measure(async || {
            let seconds = held.as_secs().to_string();
            let mut holder = stage
                .lab
                .inside(
                    node,
                    &["flock", "--no-fork", "/run/xtables.lock", "sleep", &seconds],
                )
                .stdin(Stdio::null())
                .spawn()
                .context("hold the lock")?;
            let begun = Instant::now();
            // A pod that must wait for the lock is ready after its release.
            let while_held = add_pods(stage, "locked", 3).await?;
            if let Some(rest) = held.checked_sub(begun.elapsed()) {
                sleep(rest).await;
            }
            ensure!(holder.wait().await?.success(), "the lock was not held");
            let storm = format!(
                "n=0; end=$(($(date +%s)+8)); while [ $(date +%s) -lt $end ]; do \
                   printf '*filter\\n:E26 - [0:0]\\n-A E26 -j RETURN\\nCOMMIT\\n' | \
                     {tool}-restore -w 5 --noflush && n=$((n+1)); sleep 0.015; \
                 done; {tool} -w 5 -F E26; {tool} -w 5 -X E26; echo $n"
            );
            let (restores, pods) =
                tokio::join!(stage.sh(node, &storm), add_pods(stage, "restores", 3));
            Ok((while_held, pods?, restores?))
        })
        .await?;
    stage.enforced().await?;
    let restores: u64 = restores.trim().parse().unwrap_or(0);
    let slowest = while_held.iter().chain(&among_restores).copied().max();
    let all = [while_held.clone(), among_restores.clone()].concat();
    Ok(Found::of(stage, &measured, Limits::default())
        .repaired(all)
        .note(format!(
            "{}: from creation to Ready: before: {}; lock held for {held:?}: {}; {} restores a second \
             by somebody else: {}",
            enforcer.word(),
            shown(before),
            shown(while_held),
            restores / 8,
            shown(among_restores)
        ))
        .note("repair: from a pod's creation to Ready")
        .wrong_if(restores == 0, "nobody else took the lock")
        .wrong_if(
            slowest.is_some_and(|ms| u128::from(ms) > held.as_millis() + 30_000),
            format!("a pod became ready only after {slowest:?} ms"),
        ))
}

/// A small connection table; as large as before when dropped.
struct SmallTable {
    old: String,
}

impl SmallTable {
    fn new(limit: u64) -> anyhow::Result<Self> {
        let old = fs::read_to_string(CONNTRACK_MAX).context(CONNTRACK_MAX)?;
        fs::write(CONNTRACK_MAX, limit.to_string()).context(CONNTRACK_MAX)?;
        Ok(Self { old })
    }
}

impl Drop for SmallTable {
    fn drop(&mut self) {
        if let Err(error) = fs::write(CONNTRACK_MAX, self.old.trim()) {
            eprintln!(
                "{CONNTRACK_MAX} stays small: {error}; write {} to it",
                self.old.trim()
            );
        }
    }
}

/// E27: the connection table is full, by a flood of forbidden connections from a pod.
pub(crate) async fn full(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let place = Place::of(&stage.lab, &stage.other).await?;
    let (measured, (limit, fill, dropped)) = stage
        .measure(async || {
            let mut used: u64 = fs::read_to_string(CONNTRACK_COUNT)?.trim().parse()?;
            for node in stage
                .s
                .nodes()
                .await?
                .iter()
                .map(String::as_str)
                .chain(["hub"])
            {
                used = used.max(connections(stage, node).await?);
            }
            // Nobody but the flooded node may reach it: it counts for the whole machine.
            let limit = used + 1500;
            let dropped = table_full(stage).await?;
            let small = SmallTable::new(limit)?;
            let flood: Vec<String> = (0..8)
                .flat_map(|lane| {
                    let to = socket(&stage.server.ip, FORBIDDEN + 10 + lane);
                    ["--forbidden".to_owned(), format!("tcp/{to}@200")]
                })
                .collect();
            let flood = Prober::start(&stage.lab, &place, &flood).await?;
            sleep(size.flood).await;
            let fill = connections(stage, stage.n2()).await?;
            // The flood is no attempt of the experiment: how it fared is of no interest.
            flood.end().await?;
            drop(small);
            Ok((
                limit,
                fill,
                table_full(stage).await?.saturating_sub(dropped),
            ))
        })
        .await?;
    eventually(
        Duration::from_secs(150),
        "new connections pass again",
        async || stage.enforced().await,
    )
    .await?;
    let limits = Limits {
        refusals: true,
        ..Limits::default()
    };
    Ok(Found::of(stage, &measured, limits)
        .note(format!(
            "nf_conntrack_max {limit} while a pod of {} began 1,600 forbidden connections a second: \
             {fill} in its table, {dropped} packets dropped there because it was full; new \
             connections may fail then, established ones may not",
            stage.n2()
        ))
        .wrong_if(
            fill * 100 < limit * 95,
            format!("the table was never full: {fill} of {limit}"),
        ))
}

/// Entries in the connection table of a member.
async fn connections(stage: &Stage<'_>, member: &str) -> anyhow::Result<u64> {
    let text = stage.sh(member, &format!("cat {CONNTRACK_COUNT}")).await?;
    text.trim().parse().context("nf_conntrack_count")
}

/// Packets that the second node dropped because the table was full, and entries that it gave up.
async fn table_full(stage: &Stage<'_>) -> anyhow::Result<u64> {
    let text = stage
        .sh(stage.n2(), "cat /proc/net/stat/nf_conntrack")
        .await?;
    Ok(dropped(&text))
}

/// The columns `drop` and `early_drop` of `/proc/net/stat/nf_conntrack`, a line for each processor,
/// in hexadecimal.
fn dropped(text: &str) -> u64 {
    let mut lines = text.lines();
    let head: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    lines
        .flat_map(|line| head.iter().zip(line.split_whitespace()))
        .filter(|(name, _)| matches!(**name, "drop" | "early_drop"))
        .filter_map(|(_, number)| u64::from_str_radix(number, 16).ok())
        .sum()
}

/// E30: devices come and go faster than anybody can follow.
pub(crate) async fn storm(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let node = stage.n1();
    let before = digest(stage).await?;
    let seconds = size.storm.as_secs().max(1);
    let line = format!(
        "one=$(i=0; while [ $i -lt 20 ]; do \
           echo \"link add wfs$i type veth peer name wft$i\"; i=$((i+1)); done; \
           i=0; while [ $i -lt 20 ]; do echo \"link del wfs$i\"; i=$((i+1)); done); \
         n=0; end=$(($(date +%s)+{seconds})); while [ $(date +%s) -lt $end ]; do \
           echo \"$one\" | ip -force -batch - && n=$((n+20)); sleep 0.05; \
         done; echo $n"
    );
    let (measured, (made, calm)) = stage
        .measure(async || {
            let made = stage.sh(node, &line).await?;
            let begun = Instant::now();
            let calm = eventually(
                Duration::from_secs(5),
                "the rules are as before",
                async || {
                    ensure!(digest(stage).await? == before, "they differ");
                    Ok(millis(begun))
                },
            )
            .await;
            Ok((made.trim().parse::<u64>().unwrap_or(0), calm))
        })
        .await?;
    stage.enforced().await?;
    let mut found = Found::of(stage, &measured, Limits::default()).note(format!(
        "{} veth pairs a second made and deleted on {node} for {seconds} s; repair: until npc's \
         rules were as before",
        made / seconds
    ))
    .wrong_if(made == 0, "no device came");
    match calm {
        Ok(ms) => found = found.repaired(vec![ms]),
        Err(error) => found.wrong.push(format!("{error:#}")),
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_all_processors_are_added() {
        let text = "entries  found drop early_drop error\n\
                    00000010  00000001 00000002 0000000a 00000000\n\
                    00000010  00000000 00000001 00000000 00000000\n";
        assert_eq!(dropped(text), 13);
        assert_eq!(dropped(""), 0);
    }
}
