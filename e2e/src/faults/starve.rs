//! E29: npc has too little memory, then too little of a processor.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use weft_probe::cluster::eventually;

use super::{
    Size,
    count::Limits,
    cut::{latencies, swing},
    stage::{Found, Stage, settled},
};

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Beyond what npc holds for itself: for the kernel's part of it, and for its program, which the
/// kernel reads anew when it must. Many more policies need more.
const ROOM: [u64; 4] = [6 << 20, 8 << 20, 10 << 20, 12 << 20];
/// Until the kernel has ended npc and the kubelet has started it again.
const RESTARTED: Duration = Duration::from_secs(60);
/// Between two changes, when npc has hardly any time.
const SLOW: Duration = Duration::from_secs(4);
/// Processor time of npc: 5 of 100 ms.
const QUOTA: &str = "5000";

/// Pid of npc on a node.
const NPC_PID: &str = "own=$(readlink /proc/self/ns/net); \
    for p in /proc/[0-9]*; do \
      if [ \"$(cat $p/comm 2>/dev/null)\" = weft-npc ] && \
         [ \"$(readlink $p/ns/net)\" = \"$own\" ]; then echo ${p#/proc/}; fi; \
    done; true";

/// The cgroup of a process under one controller, by `/proc/PID/cgroup` (v1: one line each; v2: one
/// line without a controller).
fn cgroup(text: &str, controller: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in text.lines() {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|name| name == controller) {
            return Some(Path::new(CGROUPS).join(controller).join(path));
        }
        if controllers.is_empty() {
            unified = Some(Path::new(CGROUPS).join(path));
        }
    }
    unified
}

/// What is written to limit npc, and what takes the limit back.
struct Limit {
    file: PathBuf,
    back: &'static str,
}

impl Limit {
    /// Of memory.
    fn of_memory(directory: &Path) -> Option<Self> {
        [("memory.limit_in_bytes", "-1"), ("memory.max", "max")]
            .into_iter()
            .map(|(limit, back)| Self {
                file: directory.join(limit),
                back,
            })
            .find(|limit| limit.file.exists())
    }

    /// Of processor time, with what to write.
    fn of_processor(directory: &Path) -> Option<(Self, String)> {
        [
            ("cpu.cfs_quota_us", QUOTA.to_owned(), "-1"),
            ("cpu.max", format!("{QUOTA} 100000"), "max 100000"),
        ]
        .into_iter()
        .map(|(limit, value, back)| {
            let file = directory.join(limit);
            (Self { file, back }, value)
        })
        .find(|(limit, _)| limit.file.exists())
    }

    fn set(&self, value: &str) -> anyhow::Result<()> {
        fs::write(&self.file, value)
            .with_context(|| format!("write {value} to {}", self.file.display()))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // The cgroup goes with the container; then there is nothing to take back.
        let _ = fs::write(&self.file, self.back);
    }
}

/// Memory that a process holds for itself, bytes, by `/proc/PID/status`.
fn own_memory(status: &str) -> anyhow::Result<u64> {
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    kilobytes
        .map(|kilobytes| kilobytes << 10)
        .context("no RssAnon of npc")
}

async fn pid(stage: &Stage<'_>) -> anyhow::Result<u32> {
    let found = stage.sh(stage.n1(), NPC_PID).await?;
    found
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .with_context(|| format!("no weft-npc on {}", stage.n1()))
}

/// E29: both.
pub(crate) async fn starved(stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
    let swing = swing(stage).await?;
    let first = pid(stage).await?;
    let text = fs::read_to_string(format!("/proc/{first}/cgroup"))?;
    let memory = cgroup(&text, "memory").and_then(|directory| Limit::of_memory(&directory));
    let Some(limit) = memory else {
        return Ok(Found {
            not_run: Some(format!(
                "the cgroup of npc has no limit of memory here: {}",
                text.lines().collect::<Vec<_>>().join(" ")
            )),
            ..Found::default()
        });
    };
    let mut notes = Vec::new();
    let (measured, slow) = stage
        .measure(async || {
            let used = own_memory(&fs::read_to_string(format!("/proc/{first}/status"))?)?;
            // The kernel refuses a limit that it cannot reach at once.
            let allowed = ROOM
                .into_iter()
                .map(|room| used + room)
                .find(|bytes| limit.set(&bytes.to_string()).is_ok())
                .context("the kernel refuses every limit for the memory of npc")?;
            let second = out_of_memory(stage, first, size.policies).await;
            delete_policies(stage, size.policies).await?;
            let second = second?;
            notes.push(format!(
                "memory limited to {} KiB (its own: {}), {} policies of 100 rules added: ended by the \
                 kernel and started again",
                allowed >> 10,
                used >> 10,
                size.policies
            ));
            settled(stage.s).await?;
            let text = fs::read_to_string(format!("/proc/{second}/cgroup"))?;
            let processor =
                cgroup(&text, "cpu").and_then(|directory| Limit::of_processor(&directory));
            let Some((limit, value)) = processor else {
                notes.push("not run: npc's cgroup has no quota of processor time here".into());
                return Ok(Vec::new());
            };
            limit.set(&value)?;
            let slow = latencies(stage, &swing, size.latencies.min(5), SLOW).await;
            drop(limit);
            let slow = slow?;
            ensure!(
                pid(stage).await? == second,
                "npc was restarted while it had 5 % of a processor"
            );
            notes.push(format!(
                "with 5 % of a processor a change of policy took {slow:?} ms"
            ));
            Ok(slow)
        })
        .await?;
    stage.enforced().await?;
    let mut found = Found::of(stage, &measured, Limits::default())
        .repaired(slow)
        .note("repair: a change of policy with 5 % of a processor");
    found.notes.extend(notes);
    Ok(found)
}

/// Adds policies until npc is another process; its pid.
async fn out_of_memory(stage: &Stage<'_>, first: u32, policies: usize) -> anyhow::Result<u32> {
    for number in 0..policies {
        let ports: Vec<_> = (0..100)
            .map(|rule| {
                json!({
                    "from": [{"ipBlock": {"cidr": format!("198.18.{}.{}/32", number % 256, rule)}}],
                    "ports": [{"port": 20000 + rule}],
                })
            })
            .collect();
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": ports,
        });
        stage
            .s
            .create_policy(&format!("more-{number}"), spec)
            .await?;
    }
    eventually(
        RESTARTED,
        "npc ran out of memory and was started again",
        async || {
            let now = pid(stage).await?;
            ensure!(
                now != first,
                "it is still the same process: {policies} policies fit"
            );
            Ok(now)
        },
    )
    .await
}

async fn delete_policies(stage: &Stage<'_>, policies: usize) -> anyhow::Result<()> {
    for number in 0..policies {
        // Those that were never made are not there.
        let _ = stage.s.delete_policy(&format!("more-{number}")).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_what_no_file_holds() {
        let status = "Name:\tweft-npc\nVmRSS:\t   21000 kB\nRssAnon:\t    9000 kB\n";
        assert_eq!(own_memory(status).expect("a number"), 9000 << 10);
        assert!(own_memory("Name:\tx\n").is_err());
    }

    #[test]
    fn cgroup_is_found_in_each_hierarchy() {
        let hybrid =
            "9:memory:/weft-lab-1/n1/pod/npc\n4:cpu,cpuacct:/weft-lab-1/n1/pod/npc\n0::/\n";
        assert_eq!(
            cgroup(hybrid, "memory"),
            Some("/sys/fs/cgroup/memory/weft-lab-1/n1/pod/npc".into())
        );
        assert_eq!(
            cgroup(hybrid, "cpu"),
            Some("/sys/fs/cgroup/cpu/weft-lab-1/n1/pod/npc".into())
        );
        assert_eq!(
            cgroup("0::/weft-lab-1/n1/pod/npc\n", "memory"),
            Some("/sys/fs/cgroup/weft-lab-1/n1/pod/npc".into())
        );
    }
}
