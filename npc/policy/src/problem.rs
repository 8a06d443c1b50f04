//! What is wrong with a policy, for its author.

use std::fmt;

use crate::ObjectKey;

/// A field of a policy that is invalid or not supported. The direction it belongs to allows
/// nothing (its subjects stay isolated by it; what other policies allow still counts), and a
/// Warning event on the policy tells why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Problem {
    /// The NetworkPolicy.
    pub policy: ObjectKey,
    /// Path of the field, as `kubectl explain` writes it: `spec.ingress[0].ports[1].endPort`.
    pub field: String,
    /// What is wrong and what to do, without the field.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NetworkPolicy {}: {}: {}",
            self.policy, self.field, self.message
        )
    }
}
