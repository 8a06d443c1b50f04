//! How `nft` lists a table of ours, for looks that find out what somebody else did to it.
//!
//! A listing shows what we wrote only if nobody else wrote since: taken for right at any other time,
//! somebody's damage would be what every later look wants to see. The kernel counts the transactions
//! of a network namespace ([`NfSocket::generation`]), so a write of ours that brought the count on by
//! one had nobody beside it, and what is listed while the count stays is what that write made. Where
//! others come in between, nothing can be told, and the table must be written as a whole once more.

use weft_netfilter::exec::{NfError, NfSocket};

use crate::exec;

/// What is believed of a table that was written.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// How it is listed as long as it holds what we wrote.
    right: Option<String>,
    /// Generation of the ruleset in which it certainly held that.
    sure: Option<u32>,
}

/// What a look shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The table holds what we wrote.
    Right,
    /// Somebody changed it.
    Changed,
    /// Others wrote, in this table or elsewhere, before there was anything to compare with.
    Unsure,
}

/// The ruleset before a transaction of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before(Option<u32>);

impl Before {
    /// To be called before the transaction is sent.
    pub(super) fn now() -> Self {
        Self(generation())
    }

    /// The generation that the transaction made, if it was the only one.
    fn made(self, now: Option<u32>) -> Option<u32> {
        now.filter(|_| self.0.map(next) == now)
    }
}

impl Listing {
    /// After a transaction that wrote the whole of `table` (family and name).
    pub(super) async fn written(table: &str, before: Before) -> Self {
        let mut listing = Self {
            right: None,
            sure: before.made(generation()),
        };
        // At once: on a busy node others write before the next look.
        let look = listing.look(table).await;
        tracing::trace!(table, ?look, "Written");
        listing
    }

    /// After a transaction that changed something in the table, and relied on the rest.
    pub(super) fn changed(&self, before: Before) -> Self {
        self.after(before, generation())
    }

    fn after(&self, before: Before, now: Option<u32>) -> Self {
        let relied = self.sure.is_some() && self.sure == before.0;
        Self {
            right: None,
            sure: before.made(now).filter(|_| relied),
        }
    }

    /// Lists the table and compares.
    pub(super) async fn look(&mut self, table: &str) -> Look {
        let (family, name) = table.split_once(' ').unwrap_or(("ip", table));
        let begun = generation();
        let listed = exec::run("nft", &["list", "table", family, name], "").await;
        self.saw(listed.ok(), begun, generation())
    }

    /// This was listed (`None`: there is no such table) between two looks at the generation.
    fn saw(&mut self, listed: Option<String>, begun: Option<u32>, ended: Option<u32>) -> Look {
        let Some(listed) = listed else {
            return Look::Changed;
        };
        let during = begun.filter(|_| begun == ended);
        if self.right.is_none() && during.is_some() && during == self.sure {
            self.right = Some(listed.clone());
        }
        match &self.right {
            None => Look::Unsure,
            Some(right) if *right == listed => {
                self.sure = during.or(self.sure);
                Look::Right
            }
            Some(_) => Look::Changed,
        }
    }
}

/// Of the network namespace of the calling thread. `None`: the kernel does not say, so nothing is
/// sure.
fn generation() -> Option<u32> {
    let socket = NfSocket::open().map_err(NfError::from);
    socket
        .and_then(|socket| socket.generation())
        .inspect_err(|error| tracing::debug!(%error, "Cannot ask for the ruleset's generation"))
        .ok()
}

/// The kernel leaves out 0 when it begins anew.
fn next(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    /// A table that was written as a whole by the only transaction between these generations.
    fn written(before: u32, after: u32) -> Listing {
        Listing {
            right: None,
            sure: Before(Some(before)).made(Some(after)),
        }
    }

    #[test]
    fn what_is_listed_in_the_generation_of_a_write_is_what_was_written() {
        let mut listing = written(7, 8);
        assert_eq!(listing.saw(listed("a"), Some(8), Some(8)), Look::Right);
        // Others write elsewhere.
        assert_eq!(listing.saw(listed("a"), Some(11), Some(12)), Look::Right);
        assert_eq!(listing.saw(listed("b"), Some(13), Some(13)), Look::Changed);
        assert_eq!(listing.saw(None, Some(14), Some(14)), Look::Changed);
    }

    #[test]
    fn a_listing_with_others_beside_or_behind_the_write_is_never_taken_for_right() {
        for (mut listing, begun, ended) in [
            (written(7, 9), 9, 9),
            (written(7, 8), 9, 9),
            (written(7, 8), 8, 9),
        ] {
            let look = listing.saw(listed("damaged"), Some(begun), Some(ended));
            assert_eq!(look, Look::Unsure);
            let look = listing.saw(listed("damaged"), Some(9), Some(9));
            assert_eq!(look, Look::Unsure);
        }
    }

    #[test]
    fn a_change_is_sure_only_on_top_of_what_was_sure_when_it_began() {
        let mut listing = written(7, 8).after(Before(Some(8)), Some(9));
        assert_eq!(listing.saw(listed("a"), Some(9), Some(9)), Look::Right);
        // Somebody wrote before it, beside it.
        for (before, after) in [(10, 11), (9, 11)] {
            let mut later = listing.after(Before(Some(before)), Some(after));
            let look = later.saw(listed("damaged"), Some(11), Some(11));
            assert_eq!(look, Look::Unsure);
        }
        // A look that found all right after others had written elsewhere.
        assert_eq!(listing.saw(listed("a"), Some(20), Some(20)), Look::Right);
        let mut later = listing.after(Before(Some(20)), Some(21));
        assert_eq!(later.saw(listed("b"), Some(21), Some(21)), Look::Right);
    }

    #[test]
    fn a_kernel_that_tells_no_generation_makes_nothing_sure() {
        let mut listing = Listing {
            right: None,
            sure: Before(None).made(None),
        };
        assert_eq!(listing.saw(listed("a"), None, None), Look::Unsure);
        let mut later = listing.after(Before(None), None);
        assert_eq!(later.saw(listed("a"), None, None), Look::Unsure);
    }

    #[test]
    fn generations_go_round_and_leave_out_zero() {
        assert_eq!([next(0), next(7), next(u32::MAX)], [1, 8, 1]);
    }
}
