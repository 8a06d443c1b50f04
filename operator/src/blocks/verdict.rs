//! Which pools may give out blocks, and why the others may not.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;
use kube::ResourceExt;
use weft_crds::{IPPool, PoolPhase};
use weft_ipam::{
    choice::Selector,
    pool::{Pool, overlaps},
};

use crate::rows::NodeRow;

/// Why a pool gives out no blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The spec cannot be used.
    Invalid(String),
    /// An older pool has (part of) the range.
    Overlap {
        other: String,
        theirs: IpNet,
        ours: IpNet,
    },
    /// A node's own address is inside.
    NodeRange {
        node: String,
        address: std::net::IpAddr,
        ours: IpNet,
    },
    /// Services have (part of) the range.
    ServiceRange { services: IpNet, ours: IpNet },
    /// `spec.phase` is not Active.
    Phase(PoolPhase),
    /// The pool is being deleted.
    Deleting,
}

impl Refusal {
    /// Reason of the condition.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "InvalidSpec",
            Self::Overlap { .. } => "CIDROverlap",
            Self::NodeRange { .. } => "OverlapsNodes",
            Self::ServiceRange { .. } => "OverlapsServices",
            Self::Phase(PoolPhase::Draining) => "Draining",
            Self::Phase(_) => "Disabled",
            Self::Deleting => "Deleting",
        }
    }

    /// What is wrong and what to do.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Invalid(why) => format!("{why}; no block is given out until the spec is right"),
            Self::Overlap {
                other,
                theirs,
                ours,
            } => format!(
                "{ours} overlaps {theirs} of the older IPPool {other}: delete one of the two; this \
                 pool is used as soon as {other} is gone"
            ),
            Self::NodeRange {
                node,
                address,
                ours,
            } => format!(
                "address {address} of node {node} lies in {ours}: pods there would hide the node; \
                 make a pool of another range"
            ),
            Self::ServiceRange { services, ours } => format!(
                "{ours} overlaps the Service range {services}: make a pool of another range"
            ),
            Self::Phase(PoolPhase::Draining) => {
                "phase is Draining: nothing new is given out, unused blocks come back".into()
            }
            Self::Phase(_) => "phase is Disabled: the pool is not used".into(),
            Self::Deleting => "the pool is being deleted".into(),
        }
    }
}

/// What is decided about one pool.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// The arithmetic of the pool, if its spec can be read.
    pub(crate) pool: Option<Pool>,
    /// Nodes that may hold blocks.
    pub(crate) nodes: Selector,
    /// Why it gives out no blocks; `None`: it does.
    pub(crate) refusal: Option<Refusal>,
}

/// Judges every pool. Of pools that overlap, the oldest wins (then by name); it keeps its range
/// until it is gone.
pub(crate) fn judge(
    pools: &[Arc<IPPool>],
    nodes: &[Arc<NodeRow>],
    services: &[IpNet],
) -> BTreeMap<String, Verdict> {
    let mut by_age: Vec<&Arc<IPPool>> = pools.iter().collect();
    by_age.sort_by_key(|p| (p.creation_timestamp(), p.name_any()));
    let mut claimed: Vec<(String, IpNet)> = Vec::new();
    let mut verdicts = BTreeMap::new();
    for object in by_age {
        let name = object.name_any();
        let verdict = match read(object) {
            Err(why) => Verdict {
                pool: None,
                nodes: Selector::default(),
                refusal: Some(Refusal::Invalid(why)),
            },
            Ok((pool, selector)) => {
                let overlap = overlap(&pool, &claimed);
                if overlap.is_none() {
                    claimed.extend(pool.cidrs().iter().map(|c| (name.clone(), *c)));
                }
                let refusal = overlap
                    .or_else(|| collision(&pool, nodes, services))
                    .or_else(|| state(object));
                Verdict {
                    pool: Some(pool),
                    nodes: selector,
                    refusal,
                }
            }
        };
        verdicts.insert(name, verdict);
    }
    verdicts
}

fn read(object: &IPPool) -> Result<(Pool, Selector), String> {
    let spec = &object.spec;
    let pool = Pool::parse(
        &object.name_any(),
        &spec.cidrs,
        spec.block_size.v4,
        spec.block_size.v6,
        &spec.exclude,
    )
    .map_err(|error| error.to_string())?;
    let selector = match &spec.node_selector {
        None => Selector::default(),
        Some(selector) => serde_json::to_value(selector)
            .and_then(serde_json::from_value)
            .map_err(|error| format!("nodeSelector cannot be used: {error}"))?,
    };
    Ok((pool, selector))
}

fn overlap(pool: &Pool, claimed: &[(String, IpNet)]) -> Option<Refusal> {
    let pairs = pool
        .cidrs()
        .iter()
        .flat_map(|ours| claimed.iter().map(move |c| (ours, c)));
    pairs
        .filter(|(ours, (_, theirs))| overlaps(**ours, *theirs))
        .map(|(ours, (other, theirs))| Refusal::Overlap {
            other: other.clone(),
            theirs: *theirs,
            ours: *ours,
        })
        .next()
}

fn collision(pool: &Pool, nodes: &[Arc<NodeRow>], services: &[IpNet]) -> Option<Refusal> {
    for ours in pool.cidrs() {
        if let Some(range) = services.iter().find(|s| overlaps(**s, *ours)) {
            return Some(Refusal::ServiceRange {
                services: *range,
                ours: *ours,
            });
        }
        for node in nodes {
            if let Some(address) = node.addresses.iter().find(|a| ours.contains(*a)) {
                return Some(Refusal::NodeRange {
                    node: node.id.name.clone(),
                    address: *address,
                    ours: *ours,
                });
            }
        }
    }
    None
}

fn state(object: &IPPool) -> Option<Refusal> {
    if object.metadata.deletion_timestamp.is_some() {
        return Some(Refusal::Deleting);
    }
    match object.spec.phase {
        PoolPhase::Active => None,
        phase @ (PoolPhase::Draining | PoolPhase::Disabled) => Some(Refusal::Phase(phase)),
    }
}
