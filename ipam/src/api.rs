//! From the objects of the API to what decisions are made of: for operator and router, which must
//! read a block alike. Behind the feature `api`.

use weft_crds::{BlockPhase, IPBlock};

use crate::claim::{BlockView, NodeRef, Phase};

impl BlockView {
    /// What the claim protocol sees of a block. `None` only for a CIDR that the API server should
    /// have refused.
    #[must_use]
    pub fn of(block: &IPBlock) -> Option<Self> {
        let status = block.status.clone().unwrap_or_default();
        Some(Self {
            cidr: block.spec.cidr.parse().ok()?,
            pool: block.spec.pool.clone(),
            node: NodeRef {
                name: block.spec.node.name.clone(),
                uid: block.spec.node.uid.clone(),
            },
            epoch: block.spec.epoch,
            phase: match status.phase {
                BlockPhase::Pending => Phase::Pending,
                BlockPhase::Confirmed => Phase::Confirmed,
                BlockPhase::Releasing => Phase::Releasing,
            },
            confirmed_uid: status.node_uid,
            confirmed_epoch: status.epoch,
            deleting: block.metadata.deletion_timestamp.is_some(),
            used: status.used,
        })
    }
}
