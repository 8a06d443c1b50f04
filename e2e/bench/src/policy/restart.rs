//! npc is killed and started again under traffic: nothing opens, nothing is refused, nothing is lost.
//!
//! The control is a restart that empties its chain and fills it again rule by rule: what it refuses
//! shows that refusals are seen.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    Backend, Plan, READY,
    change::{ANSWER, EVERY},
    npc::Home,
    objects::{ALLOWED, FORBIDDEN, FREE, at},
    processes::{self, State},
    shot::{self, Attempts, Flow},
    stage::Stage,
};
use crate::{
    report::{Budget, Row},
    sample::spread,
};

const RESTARTS: usize = 5;
/// An allowed connection that takes longer was refused.
const REFUSED: Duration = Duration::from_millis(100);
/// Before and after.
const QUIET: Duration = Duration::from_millis(200);

/// What probes saw.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    attempts: usize,
    /// Of those that should not pass.
    passed: usize,
    /// Of those that should.
    refused: usize,
    /// Packets of the flow.
    lost: u32,
}

/// Probes while `work` runs.
fn watched(stage: &Stage, mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Seen> {
    let start = Instant::now();
    let probe = |to, patience| Attempts::start(&stage.client, to, EVERY, patience);
    let forbidden = probe(at(FORBIDDEN), ANSWER)?;
    let allowed = probe(at(ALLOWED), REFUSED)?;
    let free = probe(SocketAddr::from((FREE, FORBIDDEN)), REFUSED)?;
    let flow = Flow::start(stage, Duration::from_millis(1))?;
    shot::pause(QUIET);
    let result = work();
    shot::pause(QUIET);
    let (packets, lost) = flow.stop()?;
    result?;
    let passed = |attempts: &Attempts, passed: bool| {
        let made = attempts.since(start);
        let found = made.iter().filter(|a| a.passed == passed).count();
        (made.len(), found)
    };
    let (tried, leaked) = passed(&forbidden, true);
    let (sent, refused) = passed(&allowed, false);
    let (to_free, refused_free) = passed(&free, false);
    ensure!(
        tried.min(sent).min(to_free) > 20 && packets > 100,
        "the probes were hardly running: {tried}, {sent}, {to_free} connections, {packets} packets"
    );
    Ok(Seen {
        attempts: tried + sent + to_free,
        passed: leaked,
        refused: refused + refused_free,
        lost,
    })
}

/// Rows for one number of policies.
pub(crate) fn measure(plan: &Plan, backend: Backend, policies: usize) -> anyhow::Result<Vec<Row>> {
    let stage = Stage::new()?;
    let home = Home::filled(&stage, plan, backend, policies)?;
    let mut running = home.start(&stage)?;
    running.ready(READY)?;
    stage.check(&format!("{policies} policies"))?;
    let mut running = Some(running);
    let ours = watched(&stage, || {
        for _ in 0..RESTARTS {
            // Dropped: killed as by the kernel, with no chance to say good-bye.
            drop(running.take());
            let mut npc = home.start(&stage)?;
            npc.ready(READY)?;
            running = Some(npc);
        }
        Ok(())
    })?;
    let linear = Stage::new()?;
    let state = State::filled(plan.remotes, plan.by_processes);
    state.load(&linear, backend)?;
    linear.check("linear")?;
    let other = watched(&linear, || processes::restart(&linear, backend, &state))?;
    ensure!(
        other.refused > 0,
        "the control failed: a chain that is emptied refuses nothing"
    );
    println!(
        "  {}: {} attempts during {RESTARTS} restarts",
        backend.name(),
        ours.attempts
    );
    let row = |what: &str, ours: f64, other: f64| {
        Row::new(
            &format!("{what}, {RESTARTS} x kill -9, {policies} policies / flush, process per rule"),
            backend.name(),
            (ours, other),
            // Not a ratio: nothing of it is right.
            spread(&[ours]),
            None,
            Budget::AtMost(0.0),
        )
    };
    Ok(vec![
        row("wrongly allowed", ours.passed as f64, other.passed as f64),
        row("wrongly refused", ours.refused as f64, other.refused as f64),
        row(
            "packets of a flow lost",
            f64::from(ours.lost),
            f64::from(other.lost),
        ),
    ])
}
