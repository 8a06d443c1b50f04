//! The loop that keeps the kernel as the state wants it: one sync at a time, changes that come
//! together in one, everything from the beginning after a failure, and a look at the kernel when
//! somebody else may have changed it ([`crate::drift`]).

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;
use weft_netfilter::{
    Ruleset,
    backend::{Done, Error, Traced},
    trace::{Packet, Pass},
};
use weft_policy::PolicyModel;
use weft_policy_compile::{NodeView, compile};
use weft_runtime::{
    backoff::{Backoff, random},
    health::Health,
};

use crate::{
    drift::{Lookout, News, Wake},
    early::Early,
    events::Announcer,
    flows::Flows,
    kernel::{self, Changing, InUse},
    metrics::Metrics,
    pace::Pace,
    state::{Snapshot, State},
};

/// Changes of the API come in bursts; CNI does not wait for them.
const DEBOUNCE: Duration = Duration::from_millis(1);
/// A loop that has not come round for so long is stuck (one sync may take two tool deadlines).
const STUCK: Duration = Duration::from_secs(90);

/// What was compiled last, and from what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    pub(crate) model: PolicyModel,
    pub(crate) view: NodeView,
    pub(crate) ruleset: Ruleset,
}

/// What the last sync wanted in the kernel.
#[derive(Clone, Default)]
pub(crate) struct Wanted(Arc<Mutex<Option<Arc<Compiled>>>>);

impl Wanted {
    /// `None` until the first sync.
    pub(crate) fn get(&self) -> Option<Arc<Compiled>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, compiled: Arc<Compiled>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiled);
    }

    /// As the backend of this name would write them on an empty kernel.
    pub(crate) fn text(&self, backend: &str) -> String {
        match self.get() {
            None => "# nothing was compiled yet\n".to_owned(),
            Some(compiled) => kernel::text(backend, &compiled.ruleset),
        }
    }
}

/// A packet and its way through the node.
pub(crate) type Journey = (Packet, Vec<Pass>);
/// A question to the loop, which alone may read the kernel: no half-written state is seen.
pub(crate) type Question = (Journey, oneshot::Sender<Result<Answer, Error>>);
/// What the loop wanted in the kernel when it was asked, and what the rules there do.
pub(crate) type Answer = (Arc<Compiled>, Traced);

/// Takes packets through what the kernel holds.
#[derive(Clone)]
pub(crate) struct Tracer(mpsc::Sender<Question>);

impl Tracer {
    /// And the end for the loop.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Question>) {
        let (sender, questions) = mpsc::channel(4);
        (Self(sender), questions)
    }

    /// What the rules do; an error for a person.
    pub(crate) async fn trace(&self, journey: Journey) -> Result<Answer, String> {
        let (answer, traced) = oneshot::channel();
        let stopped = "npc is stopping";
        let sent = self.0.send((journey, answer)).await;
        sent.map_err(|_| stopped.to_owned())?;
        let traced = traced.await.map_err(|_| stopped.to_owned())?;
        traced.map_err(|error| error.to_string())
    }
}

/// The loop.
pub(crate) struct Sync<B> {
    pub(crate) state: Arc<State>,
    pub(crate) backend: B,
    /// Its name, for others.
    pub(crate) in_use: InUse,
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    pub(crate) announcer: Announcer,
    pub(crate) wanted: Wanted,
    pub(crate) lookout: Lookout,
    pub(crate) flows: Flows,
    /// NFLOG group of denials; `None`: they are not logged.
    pub(crate) log_group: Option<u16>,
    /// The kernel holds what was compiled last, as far as we know.
    pub(crate) in_kernel: bool,
    /// A look that would have repaired what somebody did has failed: what the next one changes is
    /// drift.
    pub(crate) unrepaired: bool,
    pub(crate) questions: mpsc::Receiver<Question>,
    /// What is enforced until the API has answered.
    pub(crate) early: Early,
}

/// What the loop does next.
enum Next {
    /// Nobody changes anything any more.
    Stop,
    /// Apply the state.
    Sync,
    Wake(Wake),
    Answer(Question),
}

/// For what the loop waits.
struct Waiting {
    changed: watch::Receiver<u64>,
    pace: Pace,
    /// Until when changes are collected; `None`: there are none.
    sync_at: Option<Instant>,
    /// When what failed is tried again; `None`: it did not.
    retry_at: Option<Instant>,
}

impl Waiting {
    fn new(state: &State) -> Self {
        let mut changed = state.watch_changed();
        // Also what changed before we began to watch.
        changed.mark_changed();
        Self {
            changed,
            pace: Pace::default(),
            sync_at: None,
            retry_at: None,
        }
    }
}

impl<B: Changing> Sync<B> {
    /// Runs until `token` is cancelled. The rules stay.
    pub(crate) async fn run(mut self, token: CancellationToken) {
        let heartbeat = self.health.heartbeat("sync", STUCK);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let state = Arc::clone(&self.state);
        let mut waiting = Waiting::new(&state);
        loop {
            heartbeat.beat();
            let next = tokio::select! {
                () = token.cancelled() => return,
                next = self.next(&mut waiting) => next,
            };
            let look = match next {
                Next::Stop => return,
                Next::Sync => false,
                Next::Wake(Wake::Look) => true,
                Next::Wake(Wake::Probe) => {
                    self.probe().await;
                    continue;
                }
                Next::Wake(Wake::Guard) => {
                    if let Some(repair) = self.lookout.guard().await {
                        self.repaired(&repair);
                        // What came while nothing was judged is judged now.
                        if let Some(wanted) = self.wanted.get() {
                            self.flows.in_force(&wanted);
                        }
                    }
                    continue;
                }
                Next::Answer(question) => {
                    self.answer(question).await;
                    continue;
                }
            };
            let missing = state.missing();
            if missing.is_empty() {
                self.health.ready("lists");
            } else {
                self.health.not_ready("lists", missing.join("; "));
            }
            let started = Instant::now();
            let result = if !missing.is_empty() {
                self.before_first_lists(look).await
            } else if look {
                self.verify().await
            } else {
                self.sync().await
            };
            waiting.pace.spent(Instant::now(), started.elapsed());
            match result {
                Ok(()) => {
                    backoff.reset();
                    if missing.is_empty() {
                        self.health.ready("rules");
                    }
                }
                Err(error) => {
                    self.metrics.failed(error.class());
                    tracing::error!(%error, "cannot bring the rules into the kernel; trying again");
                    self.health.not_ready("rules", error.to_string());
                    waiting.retry_at = Some(Instant::now() + backoff.next(random()));
                }
            }
        }
    }

    /// Waits until there is something to do. While changes are collected, or a retry is due later,
    /// whatever else is due is not late.
    async fn next(&mut self, waiting: &mut Waiting) -> Next {
        loop {
            let at = waiting.retry_at.or(waiting.sync_at);
            let failed = waiting.retry_at.is_some();
            tokio::select! {
                result = waiting.changed.changed(), if at.is_none() => {
                    if result.is_err() {
                        return Next::Stop;
                    }
                    let now = Instant::now();
                    waiting.sync_at = Some(now + DEBOUNCE.max(waiting.pace.wait(now)));
                }
                () = due(&self.state, at, failed) => {
                    // What came together is done together.
                    waiting.changed.borrow_and_update();
                    (waiting.sync_at, waiting.retry_at) = (None, None);
                    return Next::Sync;
                }
                Some(question) = self.questions.recv() => return Next::Answer(question),
                wake = self.lookout.wait(), if !failed => return Next::Wake(wake),
            }
        }
    }

    async fn answer(&mut self, ((packet, passes), answer): Question) {
        // Nobody asks before there is something to compare with.
        if let Some(wanted) = self.wanted.get() {
            let ruleset = &wanted.ruleset;
            let traced = self.backend.trace(ruleset, &packet, &passes).await;
            // Whoever asked may have gone.
            let _ = answer.send(traced.map(|traced| (wanted, traced)));
        }
    }

    /// Looks a little: is there reason to look closer?
    async fn probe(&mut self) {
        if self.wanted.get().is_some() || self.early.held() {
            self.lookout.probe(&self.backend.set_sizes()).await;
        } else {
            self.lookout.skip_probe();
        }
    }

    /// Applies the state.
    pub(crate) async fn sync(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let Some(Snapshot {
            version,
            model,
            view,
            since,
        }) = self.state.snapshot()
        else {
            return Ok(());
        };
        let view = NodeView {
            log_group: self.log_group,
            ..view
        };
        if let Some(last) = self.wanted.get().filter(|_| self.unrepaired) {
            let repaired = self.repair(&last).await;
            if last.model == model && last.view == view {
                repaired?;
            }
            // A new state may be possible where the old one is not.
        }
        let last = self.wanted.get().filter(|_| self.in_kernel);
        if last.is_some_and(|last| last.model == model && last.view == view) {
            // Most changes of a cluster's pods change nothing here.
            self.state.applied(version);
            self.metrics.synced(started.elapsed(), None);
            return Ok(());
        }
        let ruleset = compile(&model, &view);
        let compiled = Arc::new(Compiled {
            model,
            view,
            ruleset,
        });
        let took = started.elapsed();
        self.wanted.set(Arc::clone(&compiled));
        self.in_kernel = false;
        match self.backend.sync(&compiled.ruleset).await {
            Ok(done) => {
                self.in_kernel = true;
                self.unrepaired = false;
                self.state.applied(version);
                self.flows.in_force(&compiled);
                self.lookout.wrote(&done);
                tracing::debug!(version, compiled = ?took, took = ?started.elapsed(), "synced");
                let since = since.filter(|_| done.changed());
                self.metrics
                    .synced(started.elapsed(), since.map(|since| since.elapsed()));
                self.report(&compiled, &done);
                self.early.over(&compiled);
                Ok(())
            }
            Err(error) => {
                self.state.failed(since, error.to_string());
                Err(error)
            }
        }
    }

    fn report(&self, compiled: &Compiled, done: &Done) {
        let Compiled { model, ruleset, .. } = compiled;
        self.metrics.size(model, ruleset);
        self.announcer.problems(model);
        if done.changed() {
            tracing::trace!(
                rules = done.rules,
                read_back = done.read_back,
                "wrote\n{}",
                done.plan
            );
        }
    }

    /// Compares the kernel with the rules of the last sync; what it repairs is drift.
    pub(crate) async fn verify(&mut self) -> Result<(), Error> {
        let Some(last) = self.wanted.get() else {
            return self.sync().await;
        };
        // Before the first lists there is nothing that the other place could get.
        if self.state.missing().is_empty() && self.backend.reconsider().await {
            return self.move_rules().await;
        }
        self.repair(&last).await
    }

    /// Looks whether the kernel still holds these rules, which it held, and sees to it that it does.
    async fn repair(&mut self, last: &Arc<Compiled>) -> Result<(), Error> {
        let started = Instant::now();
        let before = self.lookout.before_look().await;
        let done = match self.backend.verify(&last.ruleset).await {
            Ok(done) => done,
            Err(error) => {
                self.in_kernel = false;
                self.unrepaired = true;
                self.state.failed(None, error.to_string());
                return Err(error);
            }
        };
        self.unrepaired = false;
        self.metrics.synced(started.elapsed(), None);
        self.lookout.looked(started, before, done.changed());
        if done.changed() {
            self.flows.in_force(last);
            self.repaired(&done.plan);
        }
        self.metrics.fight(self.lookout.is_fight());
        Ok(())
    }

    /// Another backend has taken over: it gets the rules, then its predecessor loses them.
    async fn move_rules(&mut self) -> Result<(), Error> {
        let name = self.backend.name();
        self.in_use.set(name);
        if let Err(error) = self.lookout.follow(name) {
            // Looks from time to time find what it would have announced.
            tracing::warn!(%error, "cannot watch the kernel's rules by netlink");
        }
        self.in_kernel = false;
        self.sync().await
    }

    /// What somebody else had changed was put right by this.
    fn repaired(&mut self, plan: &str) {
        self.metrics.drifted();
        let plan = plan.trim_end();
        match self.lookout.repaired() {
            News::Repaired => {
                tracing::warn!("somebody changed npc's rules; repaired with\n{plan}");
                self.announcer.drift(plan);
            }
            News::Fight(repairs) => {
                tracing::error!(
                    repairs,
                    "somebody changes npc's rules again and again; repaired with\n{plan}"
                );
                self.announcer.fight(repairs, plan);
            }
            News::Old => tracing::debug!("repaired again with\n{plan}"),
        }
        self.metrics.fight(self.lookout.is_fight());
    }
}

/// Waits until `at`, never without it; changes are not collected any longer when CNI waits for one.
async fn due(state: &State, at: Option<Instant>, failed: bool) {
    let Some(at) = at else {
        return pending().await;
    };
    tokio::select! {
        () = sleep_until(at.into()) => {}
        () = urgent(state), if !failed => {}
    }
}

async fn urgent(state: &State) {
    while !state.urgent() {
        state.wake.notified().await;
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
pub(crate) mod tests;
