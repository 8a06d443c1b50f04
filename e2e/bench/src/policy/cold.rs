//! How long a node that starts with nothing takes until its policies are in force.

use std::time::{Duration, Instant};

use super::{
    Backend, Plan, READY,
    npc::Home,
    objects::{FORBIDDEN, at},
    processes::{State, Took},
    shot::Attempts,
    stage::{Dump, Stage},
};
use crate::{
    report::{Budget, Row},
    sample::{median, ratios, spread},
};

/// Rounds; a cold load of thousands of policies takes seconds.
const ROUNDS: usize = 3;

/// What was measured by processes, for what would take too long.
pub(crate) fn processes(plan: &Plan, backend: Backend) -> anyhow::Result<Took> {
    let stage = Stage::new()?;
    let state = State::filled(plan.remotes, plan.by_processes);
    let took = state.bring_in(&stage, backend)?;
    stage.check("rules brought in by processes")?;
    Ok(took)
}

/// One cold load: seconds until the last forbidden connection.
fn load(stage: &Stage, home: &Home) -> anyhow::Result<f64> {
    let patience = Duration::from_millis(1);
    let attempts = Attempts::start(
        &stage.client,
        at(FORBIDDEN),
        Duration::from_millis(2),
        patience,
    )?;
    let start = Instant::now();
    let mut npc = home.start(stage)?;
    npc.ready(READY)?;
    let made = attempts.settled(start, 15, false, READY)?;
    let last = made.iter().rev().find(|attempt| attempt.passed);
    npc.terminate()?;
    Ok(last
        .map_or(Duration::ZERO, |last| last.at - start)
        .as_secs_f64())
}

/// Seconds by hand.
fn by_hand(backend: Backend, dump: &Dump) -> anyhow::Result<f64> {
    let stage = Stage::new()?;
    let start = Instant::now();
    stage.load(backend, dump)?;
    let took = start.elapsed().as_secs_f64();
    stage.check("rules loaded by hand")?;
    Ok(took)
}

/// Budget in seconds of design section 10.
fn budget(policies: usize) -> Option<f64> {
    match policies {
        500 => Some(0.3),
        2_000 => Some(0.5),
        10_000 => Some(3.0),
        _ => None,
    }
}

/// Rows for one number of policies.
pub(crate) fn measure(
    plan: &Plan,
    backend: Backend,
    policies: usize,
    took: Took,
) -> anyhow::Result<Vec<Row>> {
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let rounds = if policies > 2_000 { 2 } else { ROUNDS }.min(plan.rounds);
    for _ in 0..rounds {
        let stage = Stage::new()?;
        let home = Home::filled(&stage, plan, backend, policies)?;
        ours.push(load(&stage, &home)?);
        stage.check(&format!("{policies} policies"))?;
        raw.push(by_hand(backend, &stage.dump(backend)?)?);
    }
    let others = State::filled(plan.remotes, policies).seconds(took);
    let by_processes: Vec<f64> = ours.iter().map(|_| others).collect();
    let name = |other: &str| format!("cold load s, {policies} policies / {other}");
    let row = |other: &str, values: &[f64], budget| {
        Row::new(
            &name(other),
            backend.name(),
            (median(&ours), median(values)),
            spread(&ratios(&ours, values)),
            None,
            budget,
        )
    };
    let mut rows = vec![row("raw kernel", &raw, Budget::None)];
    let whom = if policies <= plan.by_processes {
        "process per change"
    } else {
        // Each would take longer the more rules there are: a lower bound.
        "process per change (computed)"
    };
    rows.push(row(whom, &by_processes, Budget::AtMost(1.0)));
    if let Some(limit) = budget(policies) {
        let limits: Vec<f64> = ours.iter().map(|_| limit).collect();
        rows.push(row("budget", &limits, Budget::AtMost(1.0)));
    }
    Ok(rows)
}
