//! Decides which packets get a line.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use weft_policy::Direction;

/// A pair of pods gets one line in this time.
const QUIET: Duration = Duration::from_secs(10);
/// Pairs that are remembered.
const PAIRS: usize = 4096;
/// Lines a second, of all pairs together: one pod that scans is many pairs.
const LINES: u32 = 50;

/// Source, destination, and whose policies decided.
pub(super) type Pair = (IpAddr, IpAddr, Direction);

/// Decides which packets get a line. Time is an argument; memory is bounded.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    pairs: BTreeMap<Pair, Told>,
    second: Option<Instant>,
    lines: u32,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Limiter {
    /// `Some`: write a line, and so many packets of the pair were passed over since its last one.
    pub(super) fn admit(&mut self, now: Instant, pair: Pair) -> Option<u64> {
        if let Some(told) = self.pairs.get_mut(&pair)
            && now.saturating_duration_since(told.at) < QUIET
        {
            told.since += 1;
            return None;
        }
        if !self.has_line(now) {
            if let Some(told) = self.pairs.get_mut(&pair) {
                told.since += 1;
            }
            return None;
        }
        if let Some(told) = self.pairs.get_mut(&pair) {
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if self.pairs.len() >= PAIRS {
            self.pairs
                .retain(|_, told| now.saturating_duration_since(told.at) < QUIET);
        }
        if self.pairs.len() >= PAIRS {
            return None;
        }
        self.pairs.insert(pair, Told { at: now, since: 0 });
        Some(0)
    }

    fn has_line(&mut self, now: Instant) -> bool {
        let same = self
            .second
            .is_some_and(|begin| now.saturating_duration_since(begin) < Duration::from_secs(1));
        if !same {
            self.second = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES
    }
}

#[cfg(test)]
mod tests;
