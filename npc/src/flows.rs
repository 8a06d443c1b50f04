//! Flows that were allowed and are not any more: found among those that connection tracking knows,
//! and marked, so that the rules drop them in both directions ([`weft_policy_compile::NodeView::cut`]).
//!
//! ```text
//! rules in force (first sync, change, repair) -> pass: every flow -> evaluator -> mark, or take it away
//! ```
//!
//! The evaluator judges the first packet of the flow again, as FORWARD or INPUT saw it: what would
//! be denied now is cut, what would be allowed again is no longer cut, and goes on in the same
//! connection. Nothing is ever deleted from connection tracking: what a server pushes into a deleted
//! flow opens a new one the other way round. New flows need none of this and nobody waits for it.
//!
//! What is missed by a pass (a first packet that met the old rules and is entered behind its back)
//! is found by a second one a moment later. Between passes there is a pause, in proportion to what
//! the last one took: connections may be many.

mod judge;

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use weft_netfilter::exec::{self, Marked, NfError};
use weft_runtime::{
    backoff::{Backoff, random},
    health::Health,
};

use self::judge::Judge;
use crate::{metrics::Metrics, sync::Compiled};

pub(crate) use judge::own_addresses;

/// From the end of a pass to the beginning of the next: at least, and at most, so that a change
/// waits well below a second however many flows there are.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// Between them a multiple of what the pass took: passes take at most a fifth of a processor.
const SHARE: u32 = 4;
/// When a pass is repeated for what came in behind it.
const AGAIN: Duration = Duration::from_millis(150);
/// When one is made though nothing changed: marks are everybody's, and somebody may have cleared ours.
const REGULAR: Duration = Duration::from_secs(60);

/// Where the sync loop says that rules are in force.
pub(crate) struct Flows(watch::Sender<Option<Arc<Compiled>>>);

impl Flows {
    /// And the end for [`Cutter`].
    pub(crate) fn new() -> (Self, watch::Receiver<Option<Arc<Compiled>>>) {
        let (sender, rules) = watch::channel(None);
        (Self(sender), rules)
    }

    /// These rules are in force, and something may have passed that they forbid.
    pub(crate) fn in_force(&self, rules: &Arc<Compiled>) {
        self.0.send_replace(Some(Arc::clone(rules)));
    }
}

/// Makes the passes: [`pass`], in tests something else.
pub(crate) struct Cutter<P> {
    pub(crate) pass: P,
    pub(crate) rules: watch::Receiver<Option<Arc<Compiled>>>,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

/// What a pass found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    marked: Marked,
    /// Flows that are cut now.
    cut: u64,
}

impl<P> Cutter<P>
where
    P: Fn(&Compiled) -> Result<Found, NfError> + Clone + Send + 'static,
{
    /// Runs until `token` is cancelled, or nobody says any more which rules are in force.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let work = async {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
            // What an npc before us has cut.
            let mut cut = true;
            let mut due: Option<Instant> = None;
            loop {
                let changed = tokio::select! {
                    changed = self.rules.changed() => match changed {
                        Ok(()) => true,
                        Err(_) => return,
                    },
                    () = until(due) => false,
                };
                let Some(rules) = self.rules.borrow_and_update().clone() else {
                    continue;
                };
                if !cut && !judge::has_closed(&rules.model) {
                    due = None;
                    continue;
                }
                let started = Instant::now();
                let pass = self.pass.clone();
                let result = tokio::task::spawn_blocking(move || pass(&rules)).await;
                let took = started.elapsed();
                let next = match result.unwrap_or_else(|error| Err(stopped(&error))) {
                    Ok(found) => {
                        backoff.reset();
                        cut = found.cut > 0;
                        self.done(found, took);
                        if changed { AGAIN } else { REGULAR }
                    }
                    Err(error) => {
                        self.failed(&error);
                        backoff.next(random())
                    }
                };
                let pause = (took * SHARE).clamp(PAUSE[0], PAUSE[1]);
                let now = Instant::now();
                due = Some(now + next.max(pause));
                sleep_until(now + pause).await;
            }
        };
        tokio::select! {
            () = token.cancelled() => {}
            () = work => {}
        }
    }

    fn done(&self, found: Found, took: Duration) {
        let Marked { seen, set, cleared } = found.marked;
        self.health.ready("flows");
        self.metrics.flows(set, cleared, took);
        if set + cleared > 0 {
            tracing::info!(
                seen,
                cut = set,
                restored = cleared,
                took = ?took,
                "policies changed for established flows"
            );
        }
    }

    fn failed(&self, error: &NfError) {
        let why = format!(
            "established flows that policies forbid now are not cut, new ones are judged as ever: \
             {error} (has the kernel nf_conntrack_netlink, and marks of connections?)"
        );
        self.metrics.failed("conntrack");
        tracing::error!("{why}; trying again");
        self.health.not_ready("flows", why);
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn stopped(error: &tokio::task::JoinError) -> NfError {
    NfError::Io(io::Error::other(error.to_string()))
}

/// Looks at every flow. Blocks.
pub(crate) fn pass(rules: &Compiled) -> Result<Found, NfError> {
    let own = own_addresses()?;
    let judge = Judge::new(&rules.model, &own);
    let flows = exec::Flows::open()?;
    let mut cut = 0;
    let marked = flows.mark(rules.view.cut, |flow| {
        let forbidden = judge.forbids(&flow.original, &flow.reply);
        cut += u64::from(forbidden);
        // Nothing comes any more in a connection that is over.
        (!flow.is_over || !forbidden).then_some(forbidden)
    })?;
    Ok(Found { marked, cut })
}

#[cfg(test)]
mod tests;
