//! What the node's garbage collector takes back, and when: two sightings, then a fresh look.
//!
//! The order matters: list reservations **first**, evidence **after** (the other way round frees
//! the addresses of pods that started in between). What is decided for one reservation is carried
//! out by its sequence number ([`crate::node::Allocator::release_if`]): if it was released and the
//! attachment came back meanwhile, nothing happens. The auditor prints the same decisions.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    node::{Attachment, Reservation},
    sighting::{Patience, Sighting},
};

/// What the node shows about one reservation. `None`: could not be found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The host end of its veth exists (by name, `ifalias` and bridge). This alone tells whether a
    /// pod lives on the node; the runtime's socket does not.
    pub host_link: Option<bool>,
}

/// Why something stays or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// In use: forget earlier sightings.
    InUse,
    /// Owner or evidence unknown, which means in use.
    Unknown,
    /// Younger than [`MIN_AGE`]: its ADD may still be between reserving and making the veth.
    Young,
    /// Looks leaked.
    Leaked,
}

/// Seconds a reservation is left alone: longer than any runtime waits for an ADD.
pub const MIN_AGE: u64 = 300;

/// The one decision: allocator, collector and auditor share it.
#[must_use]
pub fn judge(reservation: &Reservation, evidence: Evidence, now: u64) -> Verdict {
    if reservation.id.container_id.is_empty() || reservation.id.ifname.is_empty() {
        return Verdict::Unknown;
    }
    match evidence.host_link {
        None => Verdict::Unknown,
        Some(true) => Verdict::InUse,
        // A clock behind the reservation's tells nothing about its age.
        Some(false) if now.saturating_sub(reservation.at) < MIN_AGE => Verdict::Young,
        Some(false) => Verdict::Leaked,
    }
}

/// What was seen in earlier sweeps, by sequence number of the reservation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects(BTreeMap<u64, Sighting>);

impl Suspects {
    /// Number of suspects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// No suspects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One sweep: returns the sequence numbers that were seen leaked twice with the grace between.
    /// Look at each of them once more ([`judge`] on fresh evidence) and release it only if it is
    /// still [`Verdict::Leaked`]. A suspect that turns out in use starts over.
    pub fn sweep<'a>(
        &mut self,
        looks: impl IntoIterator<Item = (&'a Reservation, Evidence)>,
        now: u64,
        patience: Patience,
    ) -> Vec<u64> {
        let mut next = BTreeMap::new();
        let mut ripe = Vec::new();
        for (reservation, evidence) in looks {
            if judge(reservation, evidence, now) != Verdict::Leaked {
                continue;
            }
            let before = self.0.get(&reservation.seq).copied();
            let seen = Sighting::observe(before, now, patience);
            if seen.is_ripe(now, patience) {
                ripe.push(reservation.seq);
            }
            next.insert(reservation.seq, seen);
        }
        self.0 = next;
        ripe
    }
}

/// The CNI verb GC: everything the runtime does not list is gone. `seen_before` is the reservations
/// as they were when the request arrived, so that an ADD that runs meanwhile is not taken back.
#[must_use]
pub fn not_listed(seen_before: &[Reservation], valid: &BTreeSet<Attachment>) -> Vec<u64> {
    seen_before
        .iter()
        .filter(|r| !r.id.container_id.is_empty() && !valid.contains(&r.id))
        .map(|r| r.seq)
        .collect()
}
