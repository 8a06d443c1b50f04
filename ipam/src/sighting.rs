//! "Seen twice": the rule that nothing is taken back on one look.

use serde::{Deserialize, Serialize};

/// How often, and since when, something was seen in the same state without interruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// First look, seconds since the Unix epoch.
    pub first: u64,
    /// Last look that counted.
    pub last: u64,
    /// Looks that counted.
    pub count: u32,
}

/// When a state that was seen several times may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Looks closer together than this (seconds) count once.
    pub gap: u64,
    /// Seconds between the first look and the action, at least.
    pub grace: u64,
}

impl Default for Patience {
    /// Two looks at least 30 s apart.
    fn default() -> Self {
        Self { gap: 30, grace: 30 }
    }
}

impl Sighting {
    /// Adds a look at `now` to what was seen before. `None` before: the first look. A clock that
    /// went backwards starts over, because the time that passed is unknown.
    #[must_use]
    pub fn observe(previous: Option<Self>, now: u64, patience: Patience) -> Self {
        match previous {
            Some(seen) if now < seen.last => Self::observe(None, now, patience),
            Some(seen) if now - seen.last < patience.gap => seen,
            Some(seen) => Self {
                first: seen.first,
                last: now,
                count: seen.count.saturating_add(1),
            },
            None => Self {
                first: now,
                last: now,
                count: 1,
            },
        }
    }

    /// Whether it was seen twice and the grace has passed.
    #[must_use]
    pub fn is_ripe(self, now: u64, patience: Patience) -> bool {
        self.count >= 2 && now.saturating_sub(self.first) >= patience.grace
    }
}
