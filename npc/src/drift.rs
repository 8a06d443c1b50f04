//! When to look at the kernel for what somebody else did to our rules.
//!
//! - nf_tables announces changes ([`Monitor`]; also those of iptables-nft): looked at at once.
//! - iptables-legacy and ipset announce nothing: a cheap [`Probe`] twice a second.
//! - Whether frames of the pods' bridge meet rules at all is looked at every [`GUARD`]
//!   ([`crate::bridge`]).
//! - Whatever happens, every [`VERIFY`] everything is compared, also what neither shows (a set
//!   member replaced by another one).
//!
//! Somebody who undoes every repair (a fight) makes the pauses between looks grow, to
//! [`LONGEST_PAUSE`] and no further: a rule of ours that is missing lets packets through, so being
//! polite for longer would be open for longer. What grows without this limit are the pauses between
//! reports.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use tokio::time::sleep_until;
use weft_netfilter::{
    backend::Done,
    exec::{Interest, Monitor, NftFamily, Probe, Runner, Variant},
};

use crate::{bridge::Guard, config::owner};

/// How often the kernel is compared with what was applied, whatever happens.
const VERIFY: Duration = Duration::from_secs(10);
/// What comes together is looked at together.
const CALM: Duration = Duration::from_millis(50);
/// Between the end of a look and the next one, when somebody changed something.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(600);
/// Between looks at the bridge, one question to the kernel each.
const GUARD: Duration = Duration::from_millis(400);
/// Between probes.
const PROBE: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(800)];
/// A probe takes at most this part of the time: one in.
const PROBE_SHARE: u32 = 50;
/// Repairs within [`FIGHT_TIME`] that make a fight.
const FIGHT: usize = 5;
const FIGHT_TIME: Duration = Duration::from_secs(60);
/// Between reports of a fight: doubled each time.
const REPORT: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(1800)];

/// Why [`Lookout::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Compare the kernel with what was applied.
    Look,
    /// Call [`Lookout::probe`] to find out whether that is necessary.
    Probe,
    /// Call [`Lookout::guard`].
    Guard,
}

/// What a repair is worth to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Somebody changed our rules.
    Repaired,
    /// Somebody changes them again and again: so many repairs in the last minute.
    Fight(usize),
    /// It was told lately.
    Old,
}

/// Knows when to look.
pub(crate) struct Lookout {
    monitor: Option<Monitor>,
    probe: Option<Probe>,
    guard: Option<Guard>,
    guard_at: Instant,
    /// The guard failed when it last looked.
    guard_failed: bool,
    schedule: Schedule,
    print: Print,
    counts: Counts,
}

impl Lookout {
    /// For the backend of this name, on a node of the cluster with this id.
    ///
    /// # Errors
    /// A netlink socket could not be opened.
    pub(crate) fn new(backend: &str, cluster_id: &str) -> std::io::Result<Self> {
        let mut lookout = Self::blind();
        lookout.guard = Some(Guard::new(cluster_id)?);
        lookout.follow(backend)?;
        Ok(lookout)
    }

    /// From now on the backend of this name holds the rules.
    ///
    /// # Errors
    /// A netlink socket could not be opened.
    pub(crate) fn follow(&mut self, backend: &str) -> std::io::Result<()> {
        let sets = |variant| Probe::new(owner(), Runner::default(), variant);
        if backend == Variant::Legacy.name() {
            self.monitor = None;
            self.probe = Some(sets(Variant::Legacy));
        } else {
            self.monitor = Some(Monitor::subscribe(interest())?);
            self.probe = (backend == Variant::Nft.name()).then(|| sets(Variant::Nft));
        }
        self.print = Print::default();
        self.counts = Counts::default();
        Ok(())
    }

    /// Only looks from time to time.
    pub(crate) fn blind() -> Self {
        Self {
            monitor: None,
            probe: None,
            guard: None,
            guard_at: Instant::now(),
            guard_failed: false,
            schedule: Schedule::new(Instant::now()),
            print: Print::default(),
            counts: Counts::default(),
        }
    }

    /// Waits until there is something to do; may be dropped and called again.
    pub(crate) async fn wait(&mut self) -> Wake {
        loop {
            let look = self.schedule.look_at();
            let probe = self.probe.as_ref().map(|_| self.schedule.probe_at());
            let due = probe.map_or(look, |probe| look.min(probe));
            let guard = self.guard.as_ref().map(|_| self.guard_at);
            let due = guard.map_or(due, |guard| due.min(guard));
            tokio::select! {
                alive = changed(&mut self.monitor) => {
                    if !alive {
                        // The next look finds what was not announced.
                        self.monitor = Monitor::subscribe(interest()).ok();
                    }
                    self.schedule.alarm(Instant::now());
                }
                () = sleep_until(due.into()) => {
                    if guard == Some(due) {
                        return Wake::Guard;
                    }
                    if look > due {
                        return Wake::Probe;
                    }
                    self.schedule.looking(Instant::now());
                    return Wake::Look;
                }
            }
        }
    }

    /// Looks a little: if something is not as it was applied, a look comes soon. `sizes`: of sets, as
    /// [`weft_netfilter::backend::Backend::set_sizes`] has them.
    pub(crate) async fn probe(&mut self, sizes: &BTreeMap<String, usize>) {
        let started = Instant::now();
        let differs = self.differs(sizes).await;
        let now = Instant::now();
        self.schedule.probed(now, now - started);
        if differs {
            self.schedule.alarm(now);
        }
    }

    /// Looks after the bridge; what was done, if anything.
    pub(crate) async fn guard(&mut self) -> Option<String> {
        let looked = match &self.guard {
            Some(guard) => guard.look().await,
            None => Ok(None),
        };
        self.guard_at = Instant::now() + GUARD;
        let failed = looked.is_err();
        let repaired = looked.unwrap_or_else(|error| {
            if !self.guard_failed {
                tracing::error!(
                    %error,
                    "cannot see to it that frames between pods meet rules; policies may be open"
                );
            }
            None
        });
        self.guard_failed = failed;
        repaired
    }

    /// There is nothing to look for yet.
    pub(crate) fn skip_probe(&mut self) {
        self.schedule.probed(Instant::now(), Duration::ZERO);
    }

    async fn differs(&mut self, sizes: &BTreeMap<String, usize>) -> bool {
        let Some(probe) = &mut self.probe else {
            return false;
        };
        match probe.sets().await {
            Ok(seen) if self.counts.differs(&seen, sizes) => return true,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot count the elements of sets"),
        }
        match probe.rules().await {
            Ok(seen) => self.print.differs(seen),
            Err(error) => {
                tracing::debug!(%error, "cannot look at the rules");
                false
            }
        }
    }

    /// To be called before a look: what it finds to be right is what the probe shows now.
    pub(crate) async fn before_look(&mut self) -> Before {
        let Some(probe) = &mut self.probe else {
            return Before::default();
        };
        Before {
            rules: probe.rules().await.ok(),
            sets: probe.sets().await.unwrap_or_default(),
        }
    }

    /// A look that began at `started` is over.
    pub(crate) fn looked(&mut self, started: Instant, before: Before, repaired: bool) {
        let now = Instant::now();
        self.print = Print::found(before.rules.filter(|_| !repaired));
        self.counts = Counts::found(before.sets, repaired);
        let sure = self.is_sure();
        self.schedule.looked(now, now - started, sure);
    }

    /// We did this ourselves: what the probe knew is old.
    pub(crate) fn wrote(&mut self, done: &Done) {
        if done.changed() {
            self.counts = Counts::default();
        }
        if done.rules {
            self.print = Print::default();
            let sure = self.is_sure();
            self.schedule.wrote(sure);
        }
    }

    /// A repair was made: is it news?
    pub(crate) fn repaired(&mut self) -> News {
        self.schedule.repaired(Instant::now())
    }

    /// Is somebody fighting with us?
    pub(crate) fn is_fight(&mut self) -> bool {
        self.schedule.is_fight(Instant::now())
    }

    /// Without events the probe must know what it compares with.
    fn is_sure(&self) -> bool {
        self.monitor.is_some() || self.probe.is_none() || self.print.right.is_some()
    }
}

/// What the probe shows of the rules as long as nothing changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Print {
    /// A look found everything right, and the probe showed this before it.
    right: Option<u64>,
    /// We wrote rules, and the probe showed this soon after; what somebody changed between the two
    /// is left to the next look.
    likely: Option<u64>,
}

impl Print {
    fn found(right: Option<u64>) -> Self {
        Self {
            right,
            likely: None,
        }
    }

    /// The probe shows this: did somebody change something?
    fn differs(&mut self, seen: u64) -> bool {
        let last = self.right.or(self.likely);
        if last.is_none() {
            self.likely = Some(seen);
        }
        last.is_some_and(|last| last != seen)
    }
}

/// What the probe may show of the sets although it is not what was applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts {
    /// A look found everything right, and the probe showed these numbers of elements before it.
    right: BTreeMap<String, u32>,
}

impl Counts {
    /// What was right before a change is not right after it.
    fn found(seen: BTreeMap<String, u32>, repaired: bool) -> Self {
        let right = if repaired { BTreeMap::new() } else { seen };
        Self { right }
    }

    /// The probe shows these: did somebody change something?
    fn differs(&self, seen: &BTreeMap<String, u32>, sizes: &BTreeMap<String, usize>) -> bool {
        let is_right = |(name, size): (&String, &usize)| {
            let seen = seen.get(name).map(|count| usize::try_from(*count));
            seen == Some(Ok(*size))
        };
        *seen != self.right && !sizes.iter().all(is_right)
    }
}

/// What the probe showed before a look.
#[derive(Debug, Default)]
pub(crate) struct Before {
    rules: Option<u64>,
    sets: BTreeMap<String, u32>,
}

/// Both backends: which one is at work may change while we run.
fn interest() -> Interest {
    Interest::default()
        .in_iptables(owner())
        .in_table(NftFamily::Inet, "weft")
        .in_table(NftFamily::Bridge, "weft-npc")
}

async fn changed(monitor: &mut Option<Monitor>) -> bool {
    match monitor {
        Some(monitor) => monitor.changed().await,
        None => std::future::pending().await,
    }
}

/// Time is an argument.
#[derive(Debug)]
struct Schedule {
    /// End of the last look.
    looked: Instant,
    /// How long it took.
    took: Duration,
    /// Since when there is reason to look.
    alarm: Option<Instant>,
    /// Whether a later change would be noticed.
    sure: bool,
    probed: Instant,
    probe_took: Duration,
    repairs: VecDeque<Instant>,
    report_at: Option<Instant>,
    report_pause: Duration,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self {
            looked: now,
            took: Duration::ZERO,
            alarm: None,
            sure: true,
            probed: now,
            probe_took: Duration::ZERO,
            repairs: VecDeque::new(),
            report_at: None,
            report_pause: REPORT[0],
        }
    }

    fn alarm(&mut self, now: Instant) {
        self.alarm.get_or_insert(now);
    }

    fn look_at(&self) -> Instant {
        let regular = self.looked + VERIFY;
        let mut at = regular;
        if let Some(alarm) = self.alarm {
            at = at.min((alarm + CALM).max(self.looked + self.pause()));
        }
        if !self.sure {
            // Only to know what to compare with: must stay cheap while pods come and go, and must not
            // be late while somebody changes things.
            let pause = if self.repairs.is_empty() {
                (self.took * 10).clamp(PROBE[0], VERIFY)
            } else {
                LONGEST_PAUSE
            };
            at = at.min(self.looked + pause);
        }
        at
    }

    fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.repairs.len()).unwrap_or(u32::MAX);
        SHORTEST_PAUSE
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(LONGEST_PAUSE)
    }

    /// A look begins: what came until now is in it.
    fn looking(&mut self, now: Instant) {
        self.looked = now;
        self.alarm = None;
    }

    fn looked(&mut self, now: Instant, took: Duration, sure: bool) {
        self.looked = now;
        self.took = took;
        self.sure = sure;
        self.forget(now);
    }

    fn wrote(&mut self, sure: bool) {
        self.sure = sure;
    }

    fn probe_at(&self) -> Instant {
        self.probed + (self.probe_took * PROBE_SHARE).clamp(PROBE[0], PROBE[1])
    }

    fn probed(&mut self, now: Instant, took: Duration) {
        self.probed = now;
        self.probe_took = took;
    }

    fn forget(&mut self, now: Instant) {
        let old = |at: &Instant| now.saturating_duration_since(*at) > FIGHT_TIME;
        while self.repairs.front().is_some_and(old) {
            self.repairs.pop_front();
        }
        if self.repairs.is_empty() {
            self.report_at = None;
            self.report_pause = REPORT[0];
        }
    }

    fn repaired(&mut self, now: Instant) -> News {
        self.forget(now);
        self.repairs.push_back(now);
        if self.repairs.len() < FIGHT {
            return News::Repaired;
        }
        if self.report_at.is_some_and(|at| now < at) {
            return News::Old;
        }
        self.report_at = Some(now + self.report_pause);
        self.report_pause = (self.report_pause * 2).min(REPORT[1]);
        News::Fight(self.repairs.len())
    }

    fn is_fight(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.repairs.len() >= FIGHT
    }
}

#[cfg(test)]
mod tests;
