//! What a pool's status says, computed from the same decisions that grant.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;
use weft_crds::{Condition, ConditionStatus, IPPool, IPPoolStatus, PoolNodeUsage, set_condition};
use weft_ipam::{
    claim::BlockView,
    pool::{Family, Pool},
};

use super::{
    grant::Grants,
    verdict::{Refusal, Verdict},
};

/// Names in a message at most; the rest is a number.
const NAMES: usize = 5;

/// Amounts, for status and metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) capacity: u128,
    pub(crate) allocated: u128,
}

impl Amounts {
    /// Counts a pool. Gateways are not allocated to pods and are not counted here.
    pub(crate) fn of(pool: Option<&Pool>, blocks: &[&BlockView]) -> Self {
        Self {
            capacity: pool.map_or(0, |p| {
                [Family::V4, Family::V6]
                    .map(|f| p.capacity(f))
                    .into_iter()
                    .fold(0, u128::saturating_add)
            }),
            allocated: blocks.iter().map(|b| u128::from(b.used)).sum(),
        }
    }

    pub(crate) fn free(self) -> u128 {
        self.capacity.saturating_sub(self.allocated)
    }
}

/// The status `pool` should have. Transition times come from its present one.
pub(crate) fn status(
    pool: &IPPool,
    verdict: &Verdict,
    grants: &Grants,
    blocks: &[BlockView],
    now: &str,
) -> IPPoolStatus {
    let name = pool.name_any();
    let own: Vec<&BlockView> = blocks.iter().filter(|b| b.pool == name).collect();
    let amounts = Amounts::of(verdict.pool.as_ref(), &own);
    let mut nodes: BTreeMap<&str, PoolNodeUsage> = BTreeMap::new();
    for block in &own {
        let usage = nodes.entry(&block.node.name).or_default();
        usage.node.clone_from(&block.node.name);
        usage.blocks += 1;
        usage.allocated += block.used;
    }
    let mut conditions = pool.status.clone().unwrap_or_default().conditions;
    for condition in judge_conditions(pool, verdict, grants, &nodes) {
        set_condition(&mut conditions, condition, now);
    }
    IPPoolStatus {
        conditions,
        capacity: amounts.capacity.to_string(),
        allocated: i64::try_from(amounts.allocated).unwrap_or(i64::MAX),
        free: amounts.free().to_string(),
        blocks: i64::try_from(own.len()).unwrap_or(i64::MAX),
        nodes: nodes.into_values().collect(),
    }
}

fn judge_conditions(
    pool: &IPPool,
    verdict: &Verdict,
    grants: &Grants,
    nodes: &BTreeMap<&str, PoolNodeUsage>,
) -> [Condition; 3] {
    let name = pool.name_any();
    let condition = |type_: &str, holds: bool, reason: &str, message: String| Condition {
        type_: type_.into(),
        status: ConditionStatus::from(holds),
        reason: reason.into(),
        message,
        observed_generation: pool.metadata.generation,
        last_transition_time: None,
    };
    let ready = match &verdict.refusal {
        None => condition("Ready", true, "InUse", "blocks are given out".into()),
        Some(Refusal::Deleting) => {
            let who = list(nodes.keys().copied());
            condition(
                "Ready",
                false,
                "Deleting",
                format!(
                    "the pool goes away when its last block is back; held by: {who}. Delete the \
                     pods there that have addresses of this pool, or the nodes"
                ),
            )
        }
        Some(refusal) => condition("Ready", false, refusal.reason(), refusal.message()),
    };
    let overlap = match &verdict.refusal {
        Some(
            refusal @ (Refusal::Overlap { .. }
            | Refusal::NodeRange { .. }
            | Refusal::ServiceRange { .. }),
        ) => condition("CIDROverlap", true, refusal.reason(), refusal.message()),
        _ => condition("CIDROverlap", false, "NoOverlap", String::new()),
    };
    let remedy = "add a CIDR to the pool, or a pool";
    let exhausted = if let Some(without) = grants.without.get(&name) {
        let who = list(without.iter().map(String::as_str));
        condition(
            "Exhausted",
            true,
            "NodesWithoutBlock",
            format!("no block left for: {who}; pods there get no address of this pool: {remedy}"),
        )
    } else if let Some(short) = grants.short.get(&name) {
        let who = list(short.iter().map(String::as_str));
        condition(
            "Exhausted",
            true,
            "NoFurtherBlock",
            format!("fewer addresses than pods that could run, on: {who}; {remedy}"),
        )
    } else {
        condition("Exhausted", false, "BlocksAvailable", String::new())
    };
    [ready, overlap, exhausted]
}

/// `a, b, c and 7 more`.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let shown = all
        .iter()
        .take(NAMES)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match all.len() {
        0 => "nobody".into(),
        n if n > NAMES => format!("{shown} and {} more", n - NAMES),
        _ => shown,
    }
}

/// Conditions that were not so before and that somebody should hear of.
pub(crate) fn news<'a>(
    before: Option<&'a IPPoolStatus>,
    after: &'a IPPoolStatus,
) -> Vec<&'a Condition> {
    let bad = |c: &Condition| match c.type_.as_str() {
        "Ready" => c.status == ConditionStatus::False,
        _ => c.status == ConditionStatus::True,
    };
    let known = |c: &Condition| {
        let old = before.and_then(|s| weft_crds::condition(&s.conditions, &c.type_));
        old.is_some_and(|o| o.status == c.status && o.reason == c.reason)
    };
    after
        .conditions
        .iter()
        .filter(|c| bad(c) && !known(c))
        .collect()
}

/// Statuses that differ from what the objects say.
pub(crate) fn changed(
    pools: &[Arc<IPPool>],
    verdicts: &BTreeMap<String, Verdict>,
    grants: &Grants,
    blocks: &[BlockView],
    now: &str,
) -> Vec<(Arc<IPPool>, IPPoolStatus)> {
    pools
        .iter()
        .filter_map(|pool| {
            let verdict = verdicts.get(&pool.name_any())?;
            let status = status(pool, verdict, grants, blocks, now);
            (pool.status.as_ref() != Some(&status)).then(|| (Arc::clone(pool), status))
        })
        .collect()
}
