//! One change of a policy until the kernel enforces it; the processor time of a busy cluster; memory.

use std::time::{Duration, Instant};

use super::{
    Backend, Plan, READY,
    api::Kind,
    npc::{Home, Npc, processor_time_of_children},
    objects::{self, CHANGING, at},
    processes::{self, State},
    shot::{self, Attempts},
    stage::Stage,
};
use crate::{
    report::{Budget, Row},
    sample::{Spread, quantile, ratios, spread},
};

/// One attempt per so much.
pub(crate) const EVERY: Duration = Duration::from_millis(2);
/// How long an attempt waits: less, and more than a reset takes.
pub(crate) const ANSWER: Duration = Duration::from_millis(1);
/// Milliseconds that no latency is said to be below.
const RESOLUTION: f64 = 0.1;
/// A change is in force when so many attempts in a row say so.
const SETTLED: usize = 12;
/// No change takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Changes of one side before it is the other's turn.
const TURN: usize = 5;
/// For one number of policies.
const MOST_TIME: Duration = Duration::from_secs(12);

/// Milliseconds of the changes of one side.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// From the write to the last forbidden connection.
    pub(crate) closed: Vec<f64>,
    /// From the write to the first connection that was forbidden before.
    pub(crate) opened: Vec<f64>,
}

impl Times {
    /// One change to open and one back. `write` does it, or tells somebody to, and returns.
    pub(crate) fn measure(
        &mut self,
        attempts: &Attempts,
        mut write: impl FnMut(bool) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for open in [true, false] {
            let start = Instant::now();
            write(open)?;
            let made = attempts.settled(start, SETTLED, open, PATIENCE)?;
            let since = |at: Instant| (at - start).as_secs_f64() * 1000.0;
            if open {
                let first = made.iter().find(|attempt| attempt.passed);
                self.opened.extend(first.map(|first| since(first.at)));
            } else {
                let last = made.iter().rev().find(|attempt| attempt.passed);
                // None after the write: less than can be told apart.
                self.closed
                    .push(last.map_or(0.0, |last| since(last.at)).max(RESOLUTION));
            }
        }
        Ok(())
    }
}

/// Rows of latencies; the budgets are for p50 and p99 of `closed`, in milliseconds.
pub(crate) fn rows(
    what: &str,
    profile: &str,
    ours: &Times,
    other: &Times,
    budgets: Option<(f64, f64)>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (verb, ours, other, budgets) in [
        ("enforced", &ours.closed, &other.closed, budgets),
        ("open", &ours.opened, &other.opened, None),
    ] {
        for (name, q) in [("p50", 0.5), ("p99", 0.99)] {
            let (a, b) = (quantile(ours, q), quantile(other, q));
            if !b.is_nan() {
                // The median of a row is the ratio of the quantiles; its ends are the paired ratios'.
                let paired = spread(&ratios(ours, other));
                rows.push(Row::new(
                    &format!("change -> {verb} {name} ms, {what} / process per change"),
                    profile,
                    (a, b),
                    Spread {
                        median: a / b,
                        ..paired
                    },
                    None,
                    Budget::None,
                ));
            }
            if let Some((p50, p99)) = budgets {
                let limit = if q < 0.9 { p50 } else { p99 };
                let all: Vec<f64> = ours.iter().map(|ms| ms / limit).collect();
                rows.push(Row::new(
                    &format!("change -> {verb} {name} ms, {what} / budget"),
                    profile,
                    (a, limit),
                    Spread {
                        median: a / limit,
                        ..spread(&all)
                    },
                    None,
                    Budget::AtMost(1.0),
                ));
            }
        }
    }
    rows
}

/// Budget in milliseconds, p50 and p99, of design section 10.
pub(crate) fn budget(policies: usize) -> Option<(f64, f64)> {
    match policies {
        0..=100 => Some((10.0, 12.0)),
        101..=2_000 => Some((13.0, 20.0)),
        _ => None,
    }
}

/// Everything that is measured with so many policies loaded.
pub(crate) fn measure(plan: &Plan, backend: Backend, policies: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::new()?;
    let home = Home::filled(&stage, plan, backend, policies)?;
    let mut npc = home.start(&stage)?;
    npc.ready(READY)?;
    let linear = Stage::new()?;
    State::filled(plan.remotes, policies).load(&linear, backend)?;
    for (stage, what) in [(&stage, "npc"), (&linear, "linear")] {
        stage.check(&format!("{policies} policies, {what}"))?;
    }
    let attempts = |stage: &Stage| Attempts::start(&stage.client, at(CHANGING), EVERY, ANSWER);
    let (mut ours, mut other) = (Times::default(), Times::default());
    let begun = Instant::now();
    while ours.closed.len() < plan.changes
        && (begun.elapsed() < MOST_TIME || ours.closed.len() < TURN)
    {
        {
            let attempts = attempts(&stage)?;
            for _ in 0..TURN.min(plan.changes) {
                ours.measure(&attempts, |open| {
                    home.api.put(Kind::Policies, objects::target_policy(open));
                    Ok(())
                })?;
            }
        }
        let attempts = attempts(&linear)?;
        for _ in 0..TURN.min(plan.changes) {
            other.measure(&attempts, |open| processes::change(&linear, backend, open))?;
        }
    }
    let what = format!("{policies} policies");
    let mut rows = rows(&what, backend.name(), &ours, &other, budget(policies));
    if policies >= 2_000 {
        rows.extend(memory(&npc, backend, policies)?);
    }
    if plan.policies.last() == Some(&policies) {
        rows.push(busy(plan, backend, policies, (&home, &npc), &linear)?);
    }
    Ok(rows)
}

/// Memory, against what the better of the others has at 2,000 policies.
fn memory(npc: &Npc<'_>, backend: Backend, policies: usize) -> anyhow::Result<Vec<Row>> {
    let memory = npc.memory()?;
    let (limit, whom, budget) = if policies == 2_000 {
        (65.0, "weave-npc 2.9.0", Budget::AtMost(1.0))
    } else {
        (65.0, "weave-npc 2.9.0 at 2000", Budget::None)
    };
    let row = |what: &str, mb: f64| {
        Row::new(
            &format!("{what} MB, {policies} policies / {whom}"),
            backend.name(),
            (mb, limit),
            spread(&[mb / limit]),
            None,
            budget,
        )
    };
    Ok(vec![row("RSS", memory.now), row("peak RSS", memory.peak)])
}

/// Pod changes a second.
const CHANGES: u32 = 20;

/// Processor time while pods change.
fn busy(
    plan: &Plan,
    backend: Backend,
    policies: usize,
    (home, npc): (&Home, &Npc<'_>),
    linear: &Stage,
) -> anyhow::Result<Row> {
    let every = Duration::from_secs(1) / CHANGES;
    // Only pods that policies let in: each change moves one from a set to another.
    let grouped: Vec<(usize, usize)> = (0..plan.remotes)
        .filter_map(|n| Some((n, objects::group(n)?)))
        .collect();
    let on_clock = |mut change: Box<dyn FnMut(usize, usize) -> anyhow::Result<()> + '_>| {
        let start = Instant::now();
        let mut next = start;
        for (n, group) in grouped.iter().cycle() {
            if start.elapsed() >= plan.busy {
                break;
            }
            change(*n, *group)?;
            next += every;
            shot::pause(next.saturating_duration_since(Instant::now()));
        }
        anyhow::Ok(start.elapsed().as_secs_f64())
    };
    let before = npc.processor_time()?;
    let took = on_clock(Box::new(|n, _| {
        home.api.put(Kind::Pods, objects::remote(n, true));
        Ok(())
    }))?;
    let ours = (npc.processor_time()? - before) / took * 100.0;
    let before = processor_time_of_children()?;
    let took = on_clock(Box::new(|n, group| processes::move_pod(linear, n, group)))?;
    let other = (processor_time_of_children()? - before) / took * 100.0;
    Ok(Row::new(
        &format!("CPU %, {CHANGES} pod changes/s, {policies} policies / process per change"),
        backend.name(),
        (ours, other),
        spread(&[ours / other]),
        None,
        Budget::None,
    ))
}
