//! Leader election by a `coordination.k8s.io/v1` Lease, with the rules of client-go's
//! `leaderelection`: the holder renews every 2 s and gives up after 10 s without success; others
//! take over when they have *seen* no renewal for 15 s. Times of other machines are never compared
//! with ours.
//!
//! [`decide`] is pure; [`acquire`] and [`Leadership::hold`] are the loop around it. Losing the
//! Lease ends the future, and the process exits: whatever it still had in flight dies with it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The three times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a holder that nobody hears from keeps the Lease.
    pub duration: Duration,
    /// How long the holder tries to renew before it gives up. Shorter than `duration`, or two
    /// would lead.
    pub deadline: Duration,
    /// Pause between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The Lease as last read. Two equal records are the same renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if nobody.
    pub holder: String,
    /// The holder's `leaseDurationSeconds`.
    pub duration: Duration,
    /// `resourceVersion`: any write by anybody is a sign of life.
    pub version: String,
}

/// What this process knows. Times are on its own monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The Lease, `None` if there is none.
    pub record: Option<Record>,
    /// When `record` was first seen as it is.
    pub seen: Duration,
    /// When this process last renewed successfully; `None` if it does not lead.
    pub renewed: Option<Duration>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write the Lease as ours (compare-and-swap).
    Acquire,
    /// Write a new renew time (compare-and-swap).
    Renew,
    /// Somebody else leads.
    Wait,
    /// We led and do not any more: exit.
    Lost,
}

/// What `me` shall do at `now`.
#[must_use]
pub fn decide(view: &View, me: &str, now: Duration, timing: &Timing) -> Decision {
    if let Some(renewed) = view.renewed {
        if now.saturating_sub(renewed) >= timing.deadline {
            return Decision::Lost;
        }
        return match &view.record {
            Some(record) if record.holder == me => Decision::Renew,
            // Somebody deleted the Lease or took our name out: nobody else leads yet, but another
            // may at any moment. Leading on would be a guess.
            _ => Decision::Lost,
        };
    }
    match &view.record {
        None => Decision::Acquire,
        Some(record) if record.holder.is_empty() || record.holder == me => Decision::Acquire,
        Some(record) if now.saturating_sub(view.seen) > record.duration => Decision::Acquire,
        Some(_) => Decision::Wait,
    }
}

/// Who takes part in which election.
#[derive(Clone)]
pub struct Candidate {
    /// Client of the cluster.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Our identity: the pod's name.
    pub identity: String,
    /// Owners of the Lease: with them gone, Kubernetes removes it.
    pub owners: Vec<OwnerReference>,
    /// The times.
    pub timing: Timing,
}

/// Waits until this process leads. `None` if `token` was cancelled before.
pub async fn acquire(candidate: Candidate, token: &CancellationToken) -> Option<Leadership> {
    let mut state = Election::new(candidate);
    loop {
        let step = tokio::select! {
            () = token.cancelled() => return None,
            step = state.step() => step,
        };
        if step == Step::Leading {
            tracing::info!(lease = %state.candidate.name, me = %state.candidate.identity, "leading");
            return Some(Leadership { state });
        }
        tokio::select! {
            () = token.cancelled() => return None,
            () = sleep(state.candidate.timing.retry) => {}
        }
    }
}

/// A Lease that is held.
pub struct Leadership {
    state: Election,
}

/// How leading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The Lease is lost: exit now.
    Lost,
    /// The token was cancelled; the Lease was given back, if the API answered.
    Released,
}

impl Leadership {
    /// Renews until the Lease is lost or `token` is cancelled.
    pub async fn hold(mut self, token: &CancellationToken) -> Ended {
        loop {
            tokio::select! {
                () = token.cancelled() => {
                    self.state.release().await;
                    return Ended::Released;
                }
                () = sleep(self.state.candidate.timing.retry) => {}
            }
            // Not raced with the token: a renewal cut in the middle leaves `release` with an old
            // resourceVersion.
            if self.state.step().await == Step::Lost {
                tracing::error!(lease = %self.state.candidate.name, "the lease is lost");
                return Ended::Lost;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Leading,
    Waiting,
    Lost,
}

struct Election {
    candidate: Candidate,
    start: Instant,
    view: View,
    lease: Option<Lease>,
}

impl Election {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            start: Instant::now(),
            view: View::default(),
            lease: None,
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.candidate.client.clone(), &self.candidate.namespace)
    }

    fn decide(&self) -> Decision {
        decide(
            &self.view,
            &self.candidate.identity,
            self.start.elapsed(),
            &self.candidate.timing,
        )
    }

    /// Reads, decides, writes: one turn. Never takes longer than the deadline leaves.
    async fn step(&mut self) -> Step {
        let limit = match self.view.renewed {
            Some(renewed) => {
                (renewed + self.candidate.timing.deadline).saturating_sub(self.start.elapsed())
            }
            None => self.candidate.timing.deadline,
        };
        match timeout(limit, self.turn()).await {
            Ok(Ok(step)) => step,
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.candidate.name, %error, "cannot read or write the lease");
                self.after_failure()
            }
            Err(_) => {
                tracing::warn!(lease = %self.candidate.name, "no answer about the lease in {limit:?}");
                self.after_failure()
            }
        }
    }

    fn after_failure(&self) -> Step {
        match (self.view.renewed, self.decide()) {
            (Some(_), Decision::Lost) => Step::Lost,
            (Some(_), _) => Step::Leading,
            (None, _) => Step::Waiting,
        }
    }

    async fn turn(&mut self) -> Result<Step, kube::Error> {
        let lease = self.api().get_opt(&self.candidate.name).await?;
        self.see(lease);
        match self.decide() {
            Decision::Wait => Ok(Step::Waiting),
            Decision::Lost => Ok(Step::Lost),
            Decision::Acquire | Decision::Renew => match self.write().await {
                Ok(lease) => {
                    self.see(Some(lease));
                    self.view.renewed = Some(self.start.elapsed());
                    Ok(Step::Leading)
                }
                // Somebody wrote between our read and our write: look again next time.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(self.after_failure()),
                Err(error) => Err(error),
            },
        }
    }

    fn see(&mut self, lease: Option<Lease>) {
        let record = lease.as_ref().map(record);
        if record != self.view.record {
            self.view.seen = self.start.elapsed();
            self.view.record = record;
        }
        self.lease = lease;
    }

    async fn write(&self) -> Result<Lease, kube::Error> {
        let mut lease = claimed(
            self.lease.as_ref(),
            &self.candidate.name,
            &self.candidate.identity,
            &self.candidate.timing,
            now(),
        );
        if !self.candidate.owners.is_empty() {
            lease.metadata.owner_references = Some(self.candidate.owners.clone());
        }
        if self.lease.is_some() {
            self.api()
                .replace(&self.candidate.name, &PostParams::default(), &lease)
                .await
        } else {
            self.api().create(&PostParams::default(), &lease).await
        }
    }

    /// Gives the Lease back, so that the next one need not wait. Best effort.
    async fn release(self) {
        let Some(mut lease) = self.lease.clone() else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(now()));
        let api = self.api();
        let params = PostParams::default();
        let write = api.replace(&self.candidate.name, &params, &lease);
        match timeout(self.candidate.timing.retry, write).await {
            Ok(Ok(_)) => tracing::info!(lease = %self.candidate.name, "lease given back"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %self.candidate.name, %error, "cannot give the lease back");
            }
            Err(_) => {
                tracing::warn!(lease = %self.candidate.name, "no time to give the lease back")
            }
        }
    }
}

/// Wall-clock time: written into the Lease for people, never compared.
fn now() -> Timestamp {
    Timestamp::now()
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// `old` with `me` as the holder, renewed at `now`.
fn claimed(old: Option<&Lease>, name: &str, me: &str, timing: &Timing, now: Timestamp) -> Lease {
    let previous = old.and_then(|l| l.spec.clone()).unwrap_or_default();
    let same = previous.holder_identity.as_deref() == Some(me);
    let transitions = previous.lease_transitions.unwrap_or_default();
    Lease {
        metadata: old.map_or_else(
            || ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        ),
        spec: Some(LeaseSpec {
            holder_identity: Some(me.to_owned()),
            lease_duration_seconds: i32::try_from(timing.duration.as_secs()).ok(),
            acquire_time: if same {
                previous.acquire_time.clone()
            } else {
                Some(MicroTime(now))
            },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if same || old.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..previous
        }),
    }
}

#[cfg(test)]
mod tests;
