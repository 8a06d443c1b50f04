//! The loop that keeps the kernel as the state wants it: one sync at a time, changes that come
//! together in one, everything from the beginning after a failure, and a look at the kernel from
//! time to time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use weft_netfilter::{
    Ruleset,
    backend::{Backend, Done, Error},
};
use weft_policy_compile::compile;
use weft_runtime::{
    backoff::{Backoff, random},
    health::Health,
};

use crate::{
    events::Announcer,
    kernel,
    metrics::Metrics,
    state::{Snapshot, State},
};

/// Changes of the API come in bursts; CNI does not wait for them.
const DEBOUNCE: Duration = Duration::from_millis(1);
/// How often the kernel is compared with what was applied.
const VERIFY: Duration = Duration::from_secs(10);
/// A loop that has not come round for so long is stuck (one sync may take two tool deadlines).
const STUCK: Duration = Duration::from_secs(90);

/// The rules of the last sync, for `dump`.
#[derive(Clone, Default)]
pub(crate) struct Wanted(Arc<Mutex<Option<Arc<Ruleset>>>>);

impl Wanted {
    fn set(&self, ruleset: Arc<Ruleset>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(ruleset);
    }

    /// As the backend of this name would write them on an empty kernel.
    pub(crate) fn text(&self, backend: &str) -> String {
        let wanted = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        match wanted {
            None => "# nothing was compiled yet\n".to_owned(),
            Some(ruleset) => kernel::text(backend, &ruleset),
        }
    }
}

/// The loop.
pub(crate) struct Sync<B> {
    pub(crate) state: Arc<State>,
    pub(crate) backend: B,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) announcer: Announcer,
    pub(crate) wanted: Wanted,
}

impl<B: Backend> Sync<B> {
    /// Runs until `token` is cancelled. The rules stay.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let heartbeat = self.health.heartbeat("sync", STUCK);
        let mut verify = interval(VERIFY);
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let state = Arc::clone(&self.state);
        let mut changed = state.watch_changed();
        let mut retry: Option<Duration> = None;
        loop {
            heartbeat.beat();
            let mut look = false;
            tokio::select! {
                () = token.cancelled() => return,
                result = changed.changed(), if retry.is_none() => {
                    if result.is_err() {
                        return;
                    }
                    // What comes together is done together.
                    if !state.urgent() {
                        tokio::select! {
                            () = sleep(DEBOUNCE) => {}
                            () = urgent(&state) => {}
                        }
                    }
                    changed.borrow_and_update();
                }
                () = sleep(retry.unwrap_or(VERIFY)), if retry.is_some() => {}
                _ = verify.tick() => look = true,
            }
            let missing = state.missing();
            if !missing.is_empty() {
                self.health.not_ready("lists", missing.join("; "));
                continue;
            }
            self.health.ready("lists");
            let result = if look && retry.is_none() {
                self.verify().await
            } else {
                self.sync().await
            };
            retry = match result {
                Ok(()) => {
                    backoff.reset();
                    self.health.ready("rules");
                    None
                }
                Err(error) => {
                    self.metrics.failed(error.class());
                    tracing::error!(%error, "cannot bring the rules into the kernel; trying again");
                    self.health.not_ready("rules", error.to_string());
                    Some(backoff.next(random()))
                }
            };
        }
    }

    /// Applies the state.
    async fn sync(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let Some(snapshot) = self.state.snapshot() else {
            return Ok(());
        };
        let ruleset = Arc::new(compile(&snapshot.model, &snapshot.view));
        let compiled = started.elapsed();
        self.wanted.set(Arc::clone(&ruleset));
        match self.backend.sync(&ruleset).await {
            Ok(done) => {
                self.state.applied(snapshot.version);
                self.report(&snapshot, &ruleset, &done, compiled, started.elapsed());
                Ok(())
            }
            Err(error) => {
                self.state.failed(snapshot.since, error.to_string());
                Err(error)
            }
        }
    }

    fn report(
        &self,
        snapshot: &Snapshot,
        ruleset: &Ruleset,
        done: &Done,
        compiled: Duration,
        took: Duration,
    ) {
        let latency = snapshot.since.filter(|_| done.changed());
        self.metrics
            .synced(took, latency.map(|since| since.elapsed()));
        self.metrics.size(snapshot.model.policies.len(), ruleset);
        self.announcer.problems(&snapshot.model);
        if done.changed() {
            tracing::debug!(
                version = snapshot.version,
                ?compiled,
                ?took,
                rules = done.rules,
                read_back = done.read_back,
                "synced"
            );
            tracing::trace!("{}", done.plan);
        }
    }

    /// Compares the kernel with the rules of the last sync; what it repairs is drift.
    async fn verify(&mut self) -> Result<(), Error> {
        let last = {
            let wanted = self.wanted.0.lock();
            wanted.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let Some(last) = last else {
            return self.sync().await;
        };
        let started = Instant::now();
        let done = match self.backend.verify(&last).await {
            Ok(done) => done,
            Err(error) => {
                self.state.failed(None, error.to_string());
                return Err(error);
            }
        };
        self.metrics.synced(started.elapsed(), None);
        if done.changed() {
            self.metrics.drifted();
            tracing::warn!(
                "somebody changed npc's rules; repaired with\n{}",
                done.plan.trim_end()
            );
            self.announcer.drift(&done.plan);
        }
        Ok(())
    }
}

async fn urgent(state: &State) {
    while !state.urgent() {
        state.wake.notified().await;
    }
}

#[cfg(test)]
mod tests;
