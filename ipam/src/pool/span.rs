//! Closed intervals of addresses as numbers.

use std::net::IpAddr;

use ipnet::IpNet;

/// From `first` to `last`, both included. Families are never mixed in one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Span {
    pub(super) fn of(net: IpNet) -> Self {
        Self {
            first: number(net.network()),
            last: number(net.broadcast()),
        }
    }

    /// Number of addresses; `::/0` has one more than fits and is given as the maximum.
    pub(super) fn len(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

/// Sorted and joined where they touch.
pub(super) fn merge(spans: impl IntoIterator<Item = Span>) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.into_iter().collect();
    sorted.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(sorted.len());
    for span in sorted {
        match merged.last_mut() {
            Some(tail) if span.first <= tail.last.saturating_add(1) => {
                tail.last = tail.last.max(span.last);
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// Addresses in a merged list.
pub(super) fn measure(merged: &[Span]) -> u128 {
    merged.iter().fold(0, |sum, s| sum.saturating_add(s.len()))
}
