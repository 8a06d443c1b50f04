//! The task that owns the router's iptables rules. They do not depend on pods and reading them back
//! takes a handful of processes, so an ADD never waits for them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use weft_netfilter::{
    Ruleset,
    exec::{Interest, Monitor},
};

use crate::{
    kernel::{RuleTable, rule_owner},
    metrics::Metrics,
};

/// Rules are read back so often, whatever happens; iptables-legacy gives no events.
const VERIFY: Duration = Duration::from_secs(5);
/// And at most so often when the kernel says that somebody changed some.
const VERIFY_SOON: Duration = Duration::from_millis(700);
const CALM: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(2);

/// What the kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last rules that were tried.
    pub(crate) tried: Option<Arc<Ruleset>>,
    /// Why they are not in the kernel.
    pub(crate) problem: Option<String>,
}

/// The other end of the task.
pub(crate) struct Rules {
    desired: watch::Sender<Option<Arc<Ruleset>>>,
    state: watch::Receiver<State>,
}

/// What the task works with.
pub(crate) struct Worker {
    table: RuleTable,
    desired: watch::Receiver<Option<Arc<Ruleset>>>,
    state: watch::Sender<State>,
    metrics: Metrics,
}

/// Both ends.
pub(crate) fn pair(table: RuleTable, metrics: Metrics) -> (Rules, Worker) {
    let (desired, wanted) = watch::channel(None);
    let (state, seen) = watch::channel(State::default());
    let rules = Rules {
        desired,
        state: seen,
    };
    let worker = Worker {
        table,
        desired: wanted,
        state,
        metrics,
    };
    (rules, worker)
}

impl Rules {
    /// Wants `rules` from now on, waits until they were tried if they are new, and answers what
    /// hinders them.
    pub(crate) async fn want(&mut self, rules: &Ruleset) -> Option<String> {
        let known = self.desired.borrow().clone();
        let wanted = match known {
            Some(known) if *known == *rules => known,
            _ => {
                let new = Arc::new(rules.clone());
                self.desired.send_replace(Some(Arc::clone(&new)));
                new
            }
        };
        let tried = self
            .state
            .wait_for(|s| s.tried.as_ref() == Some(&wanted))
            .await;
        match tried {
            Ok(state) => state.problem.clone(),
            Err(_) => Some("the router is stopping".to_owned()),
        }
    }

    /// Waits for news that [`Rules::want`] did not tell yet. `false`: the task ended.
    pub(crate) async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }
}

impl Worker {
    /// Runs until `token` is cancelled. Rules stay.
    pub(crate) async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        let mut events = Monitor::subscribe(Interest::default().in_iptables(rule_owner()))?;
        let mut verified = Instant::now();
        let mut due = verified + VERIFY;
        loop {
            let verify = tokio::select! {
                () = token.cancelled() => return Ok(()),
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    false
                }
                alive = events.changed() => {
                    if !alive {
                        events = events.again()?;
                    }
                    due = due.min((verified + VERIFY_SOON).max(Instant::now() + CALM));
                    continue;
                }
                () = sleep_until(due) => true,
            };
            let Some(rules) = self.desired.borrow_and_update().clone() else {
                due = Instant::now() + VERIFY;
                continue;
            };
            let result = self.table.apply(&rules, verify).await;
            verified = Instant::now();
            due = verified + if result.is_ok() { VERIFY } else { RETRY };
            let problem = match result {
                Ok(change) => {
                    if let Some(change) = change {
                        tracing::info!(change, drift = verify, "Applied");
                        self.metrics.changes(1);
                    }
                    None
                }
                Err(why) => {
                    tracing::warn!(why, "Rules are not in line, trying again");
                    Some(why)
                }
            };
            let new = State {
                tried: Some(rules),
                problem,
            };
            self.state.send_if_modified(|old| {
                let changed = *old != new;
                *old = new;
                changed
            });
        }
    }
}
