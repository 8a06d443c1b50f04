//! How much one policy may ask for. A limit protects the other policies of a node: more than this
//! would cost seconds of every sync and more memory than npc has. It is announced before it is
//! reached.

use crate::{ObjectKey, Problem};

/// Addresses of pods that the peers and named ports of one direction of a policy may name on one
/// node, each selector and each named port counted by itself. A selector becomes a set of the
/// kernel, which ipset limits to twice as many.
pub const MAX_ADDRESSES: usize = 1 << 19;

/// Peers, excepts and ports that one direction of a policy may have in all its rules together.
/// Each is a rule of the kernel or an element; selectors, named ports and CIDRs with excepts are
/// sets, and count [`TERMS_OF_SET`] times.
pub const MAX_TERMS: usize = 1 << 15;

/// What needs a set costs about as much as so many rules.
pub(crate) const TERMS_OF_SET: usize = 4;

/// Problems of one policy that are told; a policy may have as many as it has fields.
pub(crate) const MAX_PROBLEMS: usize = 16;

/// From here on a limit is announced: 80 %.
pub(crate) fn near(limit: usize) -> usize {
    limit / 5 * 4
}

/// What of a policy is measured against a limit.
pub(crate) struct Measure<'a> {
    pub(crate) policy: &'a ObjectKey,
    /// The direction, as a field.
    pub(crate) field: &'a str,
    /// What is counted, in the plural.
    pub(crate) what: &'static str,
    pub(crate) limit: usize,
}

impl Measure<'_> {
    /// It is beyond the limit.
    pub(crate) fn exceeded(&self, place: &str) -> Problem {
        let Self { what, limit, .. } = self;
        Problem {
            policy: self.policy.clone(),
            field: format!("{}{place}", self.field),
            message: format!(
                "the policy has more than {limit} {what} up to here; use fewer rules, wider CIDRs or \
                 narrower selectors, or several policies"
            ),
        }
    }

    /// It is beyond 80 % of it.
    pub(crate) fn near(&self, count: usize) -> Option<Problem> {
        let Self { what, limit, .. } = self;
        (count > near(*limit)).then(|| Problem {
            policy: self.policy.clone(),
            field: self.field.to_owned(),
            message: format!(
                "has {count} {what}; with more than {limit} it would allow nothing in this direction"
            ),
        })
    }
}
