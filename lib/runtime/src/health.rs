//! Is the process alive, is it ready, and if not, why.
//!
//! Readiness is a set of named checks that start as "not yet" and are set by the parts of the
//! process. Liveness is one heartbeat per loop: a loop that has not beaten within its deadline is
//! stuck, and the kubelet restarts the container.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Shared health of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Check -> why it is not ready.
    checks: BTreeMap<String, Option<String>>,
    loops: BTreeMap<String, Beat>,
}

#[derive(Debug)]
struct Beat {
    last: Instant,
    deadline: Duration,
}

impl Health {
    /// Health with `checks`, all of them not ready yet. Checks that are not named here are added
    /// when first set.
    #[must_use]
    pub fn new(checks: &[&str]) -> Self {
        let health = Self::default();
        for check in checks {
            health.not_ready(check, "not yet");
        }
        health
    }

    /// The check `name` passes.
    pub fn ready(&self, name: &str) {
        self.set(name, None);
    }

    /// The check `name` fails, because of `why` (for a person).
    pub fn not_ready(&self, name: &str, why: impl Into<String>) {
        self.set(name, Some(why.into()));
    }

    fn set(&self, name: &str, why: Option<String>) {
        let old = self.lock().checks.insert(name.to_owned(), why.clone());
        if old.as_ref() != Some(&why) {
            match why {
                None => tracing::info!(check = name, "ready"),
                Some(why) => tracing::info!(check = name, why, "not ready"),
            }
        }
    }

    /// Registers the loop `name`, which promises to [`Heartbeat::beat`] at least every `deadline`.
    /// The promise ends when the heartbeat is dropped.
    #[must_use]
    pub fn heartbeat(&self, name: &str, deadline: Duration) -> Heartbeat {
        let beat = Beat {
            last: Instant::now(),
            deadline,
        };
        self.lock().loops.insert(name.to_owned(), beat);
        Heartbeat {
            health: self.clone(),
            name: name.to_owned(),
        }
    }

    /// Why the process is not ready, one line a failing check; empty when it is.
    #[must_use]
    pub fn unready(&self) -> Vec<String> {
        let state = self.lock();
        let failing = state.checks.iter().filter_map(|(name, why)| {
            let why = why.as_ref()?;
            Some(format!("{name}: {why}"))
        });
        failing.collect()
    }

    /// Loops that are stuck, one line each; empty when the process is alive.
    #[must_use]
    pub fn stuck(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.lock();
        let late = state.loops.iter().filter_map(|(name, beat)| {
            let age = now.saturating_duration_since(beat.last);
            (age > beat.deadline).then(|| {
                format!(
                    "{name}: no heartbeat for {} s (deadline {} s)",
                    age.as_secs(),
                    beat.deadline.as_secs()
                )
            })
        });
        late.collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pulse of one loop.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    name: String,
}

impl Heartbeat {
    /// The loop came round.
    pub fn beat(&self) {
        if let Some(beat) = self.health.lock().loops.get_mut(&self.name) {
            beat.last = Instant::now();
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.lock().loops.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_check_is_not_ready_until_it_is_set() {
        let health = Health::new(&["api", "fabric"]);
        health.ready("api");
        assert_eq!(health.unready(), ["fabric: not yet"]);
        health.ready("fabric");
        assert_eq!(health.unready(), [""; 0]);
        health.not_ready("api", "watch of nodes failed");
        assert_eq!(health.unready(), ["api: watch of nodes failed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_without_heartbeat_is_stuck_until_it_beats_or_ends() {
        let health = Health::default();
        let pulse = health.heartbeat("sync", Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(
            health.stuck(),
            ["sync: no heartbeat for 31 s (deadline 30 s)"]
        );
        pulse.beat();
        assert_eq!(health.stuck(), [""; 0]);
        tokio::time::advance(Duration::from_secs(31)).await;
        drop(pulse);
        assert_eq!(health.stuck(), [""; 0]);
    }
}
