//! Fault experiments on npc: somebody kills it, takes its rules away, holds its lock, fills its
//! tables, while a prober makes 500 forbidden and 500 allowed connection attempts a second and holds
//! flows. `make e2e-faults` runs all of them and prints a table; a short form of one is part of the
//! cluster tests (`tests/experiments.rs`).
//!
//! ```text
//! run(&Size, ids, |row| ...)     each experiment by itself: fresh namespace, deadline, mended after
//!   Stage::set                   pods; control without policies leaks; policies hold   (stage.rs)
//!   stage.measure(fault)         probers in the pods' networks while the fault happens (prober.rs)
//!   Found::of(.., Limits)        counts, and what is beyond the limits                 (count.rs)
//! ```
//!
//! They need the lab of this checkout: faults are done in its nodes, and a prober must go on when
//! the API server or a kubelet does not.

mod before;
mod contention;
mod corners;
mod count;
mod cut;
mod enforcer;
mod flush;
mod hostile;
mod prober;
mod race;
mod restart;
pub mod row;
mod stage;
mod starve;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use self::{
    before::Before,
    row::{Counts, Row, Verdict},
    stage::{Found, Stage},
};
use crate::{Lab, Scenario, Settings, scenario::within};

/// How much of each experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// E1: how long npc is away.
    pub absent: Duration,
    /// E2: kills.
    pub kills: usize,
    /// E4: rolls over all nodes.
    pub upgrades: usize,
    /// E5: pods that start without an operator.
    pub orphans: usize,
    /// E7: pods that start under a policy.
    pub pods: usize,
    /// E8: changes of the backend; an even number comes back to the first one.
    pub switches: usize,
    /// E24: flushes.
    pub flushes: usize,
    /// E24: whether everybody's rules are flushed too.
    pub everything: bool,
    /// E25: whether parts of the fabric are deleted too.
    pub fabric: bool,
    /// E26: how long the lock is held.
    pub lock: Duration,
    /// E27: how long the flood lasts.
    pub flood: Duration,
    /// E28: flows that are cut.
    pub cuts: usize,
    /// E29: policies of 100 rules that are added until the memory ends.
    pub policies: usize,
    /// E30: how long devices come and go.
    pub storm: Duration,
    /// E29, E43, E44: changes of a policy in one series.
    pub latencies: usize,
    /// E45: every so manieth corner.
    pub every_corner: usize,
}

impl Size {
    /// For `make e2e-faults`: about a quarter of an hour in all.
    #[must_use]
    pub fn long() -> Self {
        Self {
            absent: Duration::from_secs(20),
            kills: 20,
            upgrades: 2,
            orphans: 10,
            pods: 100,
            switches: 2,
            flushes: 100,
            everything: true,
            fabric: true,
            lock: Duration::from_secs(20),
            flood: Duration::from_secs(8),
            cuts: 4,
            policies: 200,
            storm: Duration::from_secs(10),
            latencies: 20,
            every_corner: 1,
        }
    }

    /// A few of everything.
    #[must_use]
    pub fn short() -> Self {
        Self {
            absent: Duration::from_secs(5),
            kills: 2,
            upgrades: 1,
            orphans: 3,
            pods: 10,
            flushes: 7,
            everything: false,
            fabric: false,
            lock: Duration::from_secs(5),
            flood: Duration::from_secs(5),
            cuts: 2,
            storm: Duration::from_secs(4),
            latencies: 5,
            every_corner: 4,
            ..Self::long()
        }
    }
}

/// Experiments of `reference/reliability.md` that concern npc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experiment {
    /// `E2`.
    pub id: &'static str,
    /// What is done.
    pub what: &'static str,
    /// Longest time for it, in seconds.
    seconds: u64,
}

/// All of them, in the order in which they run: what restarts things comes last.
pub const EXPERIMENTS: [Experiment; 16] = [
    experiment(
        "E28",
        "a policy becomes stricter while flows are established",
        150,
    ),
    experiment("E24", "somebody flushes rules", 420),
    experiment("E25", "somebody deletes members, switches, devices", 240),
    experiment("E26", "somebody holds and takes the lock of iptables", 240),
    experiment("E7", "pods that send on their first instruction", 420),
    experiment("E45", "corner objects: meant, said and found", 180),
    experiment("E43", "hostile policies", 240),
    experiment("E44", "hostile pods", 180),
    experiment("E30", "devices come and go", 150),
    experiment("E27", "the connection table is full", 300),
    experiment("E2", "npc is killed (SIGKILL)", 420),
    experiment("E29", "npc has no memory, then no processor", 300),
    experiment(
        "E5",
        "no operator: pods start from the blocks of their node",
        240,
    ),
    experiment("E1", "npc is absent while pods run", 240),
    experiment("E4", "every node agent is replaced", 360),
    experiment("E8", "the backend changes, and back", 420),
];

const fn experiment(id: &'static str, what: &'static str, seconds: u64) -> Experiment {
    Experiment { id, what, seconds }
}

/// Experiments that another suite does, or that do not concern npc.
const ELSEWHERE: [(&str, &str, &str); 2] = [
    (
        "E3",
        "npc is killed at every system call of an apply",
        "done in network namespaces, where every call can be counted: the tests of npc",
    ),
    ("E6", "the DNS server restarts", "it does not concern npc"),
];

impl Experiment {
    async fn run(self, stage: &Stage<'_>, size: &Size) -> anyhow::Result<Found> {
        match self.id {
            "E1" => restart::absent(stage, size).await,
            "E2" => restart::killed(stage, size).await,
            "E4" => restart::upgraded(stage, size).await,
            "E5" => race::without_operator(stage, size).await,
            "E7" => race::started(stage, size).await,
            "E8" => restart::switched(stage, size).await,
            "E24" => flush::flushed(stage, size).await,
            "E25" => flush::deleted(stage, size).await,
            "E26" => contention::locked(stage, size).await,
            "E27" => contention::full(stage, size).await,
            "E28" => cut::cut(stage, size).await,
            "E29" => starve::starved(stage, size).await,
            "E30" => contention::storm(stage, size).await,
            "E43" => hostile::policies(stage, size).await,
            "E44" => hostile::pods(stage, size).await,
            "E45" => corners::corners_agree(stage, size).await,
            other => anyhow::bail!("no experiment {other}"),
        }
    }
}

/// The experiments of these names; all of them if none is named.
///
/// # Errors
/// A name that is none, with those that are.
pub fn chosen(only: &[String]) -> anyhow::Result<Vec<Experiment>> {
    let known = || {
        let ids: Vec<&str> = EXPERIMENTS.iter().map(|e| e.id).collect();
        ids.join(", ")
    };
    for id in only {
        if let Some((_, _, why)) = ELSEWHERE.iter().find(|(elsewhere, _, _)| elsewhere == id) {
            anyhow::bail!("{id} is not run here: {why}");
        }
        ensure!(
            EXPERIMENTS.iter().any(|e| e.id == id),
            "there is no experiment {id:?}; use some of {}",
            known()
        );
    }
    Ok(EXPERIMENTS
        .into_iter()
        .filter(|e| only.is_empty() || only.iter().any(|id| id == e.id))
        .collect())
}

/// Runs experiments one after the other and gives each row when it is known. One that fails does not
/// stop the others. When `stop` is over, the one that runs ends and what it did is taken back.
///
/// # Errors
/// There is no lab of this checkout with weft in it, or it is not healthy to begin with.
pub async fn run(
    size: &Size,
    experiments: &[Experiment],
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(&Row),
) -> anyhow::Result<Vec<Row>> {
    let settings = Settings::new();
    let lab = Lab::new(&settings).await?;
    let before = Before::read(&lab).await?;
    let mut rows = Vec::new();
    let mut stop = std::pin::pin!(stop);
    for experiment in experiments {
        let (row, stopped) = one(*experiment, size, &lab, &before, stop.as_mut()).await;
        report(&row);
        rows.push(row);
        if stopped {
            break;
        }
    }
    Ok(rows)
}

/// Rows of what is not run here, for a whole table.
#[must_use]
pub fn elsewhere() -> Vec<Row> {
    let row = |(id, what, why): (&str, &str, &str)| Row {
        id: id.into(),
        what: what.into(),
        control: String::new(),
        counts: Counts::default(),
        repair: None,
        notes: Vec::new(),
        verdict: Verdict::NotRun(why.into()),
        took_seconds: 0,
    };
    ELSEWHERE.into_iter().map(row).collect()
}

/// The row of one experiment, and whether somebody stopped it.
async fn one(
    experiment: Experiment,
    size: &Size,
    lab: &Lab,
    before: &Before,
    stop: impl Future<Output = ()>,
) -> (Row, bool) {
    let begun = Instant::now();
    let name = format!("experiment_{}", experiment.id.to_lowercase());
    let limit = Duration::from_secs(experiment.seconds);
    let result = within(limit, &name, async |s: &Scenario| {
        let work = async {
            stage::settled(s).await.context("before the experiment")?;
            let stage = Stage::set(s).await?;
            experiment.run(&stage, size).await.map(Some)
        };
        tokio::select! {
            found = work => found,
            () = stop => Ok(None),
        }
    })
    .await;
    let stopped = matches!(result, Ok(None));
    let mended = before.mend(lab, &name).await;
    let mut row = Row {
        id: experiment.id.into(),
        what: experiment.what.into(),
        control: String::new(),
        counts: Counts::default(),
        repair: None,
        notes: Vec::new(),
        verdict: Verdict::Passed,
        took_seconds: begun.elapsed().as_secs(),
    };
    let mut wrong = Vec::new();
    match result {
        Ok(None) => wrong.push("somebody stopped it".into()),
        Ok(Some(found)) => {
            row.control = found.control;
            row.counts = found.counts;
            row.repair = found.repair;
            row.notes = found.notes;
            wrong = found.wrong;
            if let Some(why) = found.not_run {
                row.verdict = Verdict::NotRun(why);
            }
        }
        Err(error) => wrong.push(format!("{error:#}")),
    }
    if let Err(error) = mended {
        wrong.push(format!("the lab is not as it was before: {error:#}"));
    }
    if !wrong.is_empty() {
        row.verdict = Verdict::Failed(wrong);
    }
    (row, stopped)
}

/// Milliseconds since then.
fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_are_chosen_by_name() {
        let ids = |only: &[&str]| -> Vec<&str> {
            let only: Vec<String> = only.iter().map(|id| (*id).to_owned()).collect();
            chosen(&only).expect("known").iter().map(|e| e.id).collect()
        };
        assert_eq!(ids(&["E24", "E2"]), ["E24", "E2"]);
        assert_eq!(ids(&[]).len(), EXPERIMENTS.len());
        let error = chosen(&["E99".into()]).expect_err("none").to_string();
        assert!(
            error.contains("no experiment \"E99\"; use some of E28, E24"),
            "{error}"
        );
        let error = chosen(&["E3".into()]).expect_err("elsewhere").to_string();
        assert!(error.starts_with("E3 is not run here"), "{error}");
    }

    #[test]
    fn every_name_is_an_experiment_of_its_own() {
        let mut ids: Vec<&str> = EXPERIMENTS.iter().map(|e| e.id).collect();
        ids.extend(ELSEWHERE.iter().map(|(id, _, _)| *id));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
