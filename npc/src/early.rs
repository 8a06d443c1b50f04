//! What is enforced before the API has told its state.
//!
//! Rules that are in the kernel stay as they are until every first list is there (invariant I5). A
//! kernel without any (a reboot, somebody's flush while npc was dead) would let everything pass for
//! as long as the API cannot be reached. It gets the last state, from the snapshot on disk:
//!
//! - policies and peers as they were;
//! - of this node's pods those that are still attached (the router lists them) under the UID they
//!   had; everybody else in the node's blocks is closed, as are all of them until the router answers;
//! - as peers, addresses of this node only where the pod that had them has them still: after a
//!   reboot they may be somebody else's.
//!
//! Without a usable snapshot that leaves the closed blocks. No CNI ADD is answered meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use tokio::sync::watch;
use weft_netfilter::backend::Error;
use weft_policy::{Policy, PolicyModel, PortMatch, Ports, Standing, Subject, SubjectKey};
use weft_policy_compile::{NodeView, compile};

use crate::{
    config::Place,
    kernel::Changing,
    snapshot::{InForce, Kept},
    sync::{Compiled, Sync},
};

/// What is known of the node without the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// Its pods, as the router lists them.
    pub(crate) subjects: BTreeMap<SubjectKey, Subject>,
    /// Its blocks and gateways, as the router has them; empty until it answers.
    pub(crate) place: Place,
}

/// The last state, and where the next one goes.
#[derive(Debug, Default)]
pub(crate) struct Early {
    kept: Option<Kept>,
    /// The kernel held rules when it was last looked at.
    held: bool,
    /// The kernel holds what was compiled last by [`Sync::before_first_lists`].
    applied: bool,
    newest: watch::Sender<Option<Arc<Compiled>>>,
}

impl Early {
    /// With what was read from disk.
    pub(crate) fn new(kept: Option<Kept>) -> Self {
        Self {
            kept,
            ..Self::default()
        }
    }

    /// The kernel holds rules that nobody here compiled: there is something to look after.
    pub(crate) fn held(&self) -> bool {
        self.held
    }

    /// Hears of what is in force.
    pub(crate) fn in_force(&self) -> InForce {
        self.newest.subscribe()
    }

    /// Rules that the API's state was compiled to are in force: from now on they are the last state.
    pub(crate) fn over(&mut self, compiled: &Arc<Compiled>) {
        self.kept = None;
        self.newest.send_replace(Some(Arc::clone(compiled)));
    }
}

/// The state to enforce.
fn last_state(kept: Option<&Kept>, here: Here) -> (PolicyModel, Place) {
    let Here { subjects, place } = here;
    let mut model = kept.map(|kept| kept.model.clone()).unwrap_or_default();
    let before = std::mem::take(&mut model.subjects);
    let is_local = |address: &IpAddr| {
        let of_kept = kept.iter().flat_map(|kept| &kept.blocks);
        let mut blocks = place.blocks.iter().chain(of_kept);
        blocks.any(|block| block.contains(address))
    };
    let mut still = BTreeSet::new();
    for (key, subject) in subjects {
        let last = before.get(&key);
        if let Some(last) = last {
            still.extend(last.addresses.intersection(&subject.addresses).copied());
        }
        let standing = last.map_or(Standing::Unknown, |last| last.standing.clone());
        model.subjects.insert(
            key,
            Subject {
                standing,
                ..subject
            },
        );
    }
    let stays = |address: &IpAddr| still.contains(address) || !is_local(address);
    for addresses in model.peers.values_mut() {
        Arc::make_mut(addresses).retain(stays);
    }
    for policy in model.policies.values_mut() {
        retain_members(Arc::make_mut(policy), stays);
    }
    let place = match kept {
        // A router that has lost its log knows no blocks until it reaches the API.
        Some(kept) if place.blocks.is_empty() => Place {
            blocks: kept.blocks.clone(),
            gateways: kept.gateways.union(&place.gateways).copied().collect(),
        },
        Some(_) | None => place,
    };
    (model, place)
}

/// Takes addresses away from the named ports of a policy.
fn retain_members(policy: &mut Policy, stays: impl Fn(&IpAddr) -> bool) {
    let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
    for rule in rules.flatten() {
        let Ports::Only(ports) = &mut rule.ports else {
            continue;
        };
        let kept = std::mem::take(ports).into_iter().map(|port| match port {
            PortMatch::Named(mut named) => {
                Arc::make_mut(&mut named.members).retain(|(address, _)| stays(address));
                PortMatch::Named(named)
            }
            other @ (PortMatch::Protocol(_) | PortMatch::Range(..)) => other,
        });
        *ports = kept.collect();
    }
}

impl<B: Changing> Sync<B> {
    /// While first lists are missing: what is in force stays, and where nothing is, the last state
    /// gets into force. With `look`, what was written so is compared with the kernel.
    pub(crate) async fn before_first_lists(&mut self, look: bool) -> Result<(), Error> {
        let ours = self.wanted.get();
        if ours.is_some() && (look || self.unrepaired) {
            let repaired = self.verify().await;
            self.early.applied = repaired.is_ok();
            if look || repaired.is_err() {
                return repaired;
            }
        }
        // Nobody takes them away unnoticed: a change of the state is no reason to look again.
        if ours.is_none() && self.early.held && !look {
            return Ok(());
        }
        let (model, place) = last_state(self.early.kept.as_ref(), self.state.here());
        if place.blocks.is_empty() {
            return Ok(());
        }
        let view = NodeView {
            log_group: self.log_group,
            ..place.view()
        };
        match ours {
            Some(ours) if self.early.applied && ours.model == model && ours.view == view => {
                return Ok(());
            }
            Some(_) => {}
            None => {
                let nobody = compile(&PolicyModel::default(), &view);
                let started = Instant::now();
                let before = self.lookout.before_look().await;
                self.early.held = self.backend.in_force(&nobody).await?;
                if self.early.held {
                    self.lookout.looked(started, before, false);
                    return Ok(());
                }
                tracing::warn!(
                    snapshot = self.early.kept.is_some(),
                    "the kernel holds no rules of npc and the API has not answered yet: enforcing \
                     the last known state; pods that are not in it stay closed"
                );
            }
        }
        let ruleset = compile(&model, &view);
        let compiled = Arc::new(Compiled {
            model,
            view,
            ruleset,
        });
        self.early.applied = false;
        self.wanted.set(Arc::clone(&compiled));
        let done = match self.backend.sync(&compiled.ruleset).await {
            Ok(done) => done,
            Err(error) => {
                self.state.failed(None, error.to_string());
                return Err(error);
            }
        };
        self.early.applied = true;
        self.lookout.wrote(&done);
        self.metrics.size(&compiled.model, &compiled.ruleset);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
