//! The blocks controller: pools and Nodes -> IPBlocks, and back again.
//!
//! Decisions are pure ([`verdict`], [`grant`], [`reclaim`], [`status`]); this file reads and writes.
//! Blocks are granted from a quorum list, never from the watch cache alone.

pub(crate) mod grant;
pub(crate) mod reclaim;
pub(crate) mod service_range;
pub(crate) mod status;
pub(crate) mod verdict;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::{Api, Client, ResourceExt, api::ListParams};
use weft_crds::{
    BlockName, BlockNode, BlockPhase, IPBlock, IPBlockSpec, IPBlockStatus, IPPool, PoolPhase,
};
use weft_ipam::{claim::BlockView, sighting::Patience};

use self::{
    grant::{Grants, NewBlock, grants},
    reclaim::{Memory, World, reclaim},
    service_range::ServiceRange,
    verdict::{Verdict, judge},
};
use crate::{
    api::{BLOCKS, delete_exactly, named, post, set_finalizer},
    clock,
    looping::{Error, Tried},
    rows::{NodeRow, PodRow},
    slim::{Node, Pod},
    stores::Stores,
};

/// How soon blocks that are on their way back are looked at again.
const RECLAIM_LOOK: Duration = Duration::from_secs(2);

/// The controller.
pub(crate) struct Blocks {
    client: Client,
    stores: Arc<Stores>,
    services: Arc<ServiceRange>,
    patience: Patience,
    memory: Memory,
}

impl Blocks {
    pub(crate) fn new(
        client: Client,
        stores: Arc<Stores>,
        services: Arc<ServiceRange>,
        grace: Duration,
    ) -> Self {
        Self {
            client,
            stores,
            services,
            // Two looks: at the start and at the end of the grace.
            patience: Patience {
                gap: grace.as_secs(),
                grace: grace.as_secs(),
            },
            memory: Memory::new(),
        }
    }

    /// Grants what is missing, takes back what is over.
    pub(crate) async fn reconcile(&mut self) -> Result<Option<Duration>, Error> {
        let pools = self.stores.pools.rows();
        let nodes = self.stores.nodes.rows();
        let mut errors = Vec::new();
        for pool in &pools {
            if let Err(error) = self.finalize(pool).await {
                errors.push(error);
            }
        }
        if self.stores.network().is_some() {
            let services = self.services.get(&self.client).await;
            let verdicts = judge(&pools, &nodes, &services);
            let cached = views(&self.stores.blocks.rows());
            if !grants(&verdicts, &nodes, &cached, clock::seconds())
                .create
                .is_empty()
            {
                self.grant(&verdicts, &nodes, &mut errors).await?;
            }
        }
        self.withdraw(&pools, &mut errors).await;
        let pending = self.take_back(&nodes, &mut errors).await;
        Error::join(errors)?;
        Ok(pending.then_some(RECLAIM_LOOK))
    }

    /// Decides again on what the API server has now, and creates. AlreadyExists is a lost race: the
    /// watch brings the winner, and the next reconcile decides anew.
    async fn grant(
        &self,
        verdicts: &BTreeMap<String, Verdict>,
        nodes: &[Arc<NodeRow>],
        errors: &mut Vec<Error>,
    ) -> Result<(), Error> {
        let api = Api::<IPBlock>::all(self.client.clone());
        let live = quorum_list(&api).await?;
        let Grants { create, .. } = grants(verdicts, nodes, &views(&live), clock::seconds());
        errors.extend(create_all(&api, &create).await);
        Ok(())
    }

    /// Blocks that nobody confirmed of pools that give out nothing any more. Such a block routes
    /// nothing; if its node confirms it at this very moment, the delete is a conflict.
    async fn withdraw(&self, pools: &[Arc<IPPool>], errors: &mut Vec<Error>) {
        let api = Api::<IPBlock>::all(self.client.clone());
        for block in self.stores.blocks.rows() {
            let idle = pools.iter().any(|p| {
                p.name_any() == block.spec.pool
                    && (p.metadata.deletion_timestamp.is_some()
                        || p.spec.phase != PoolPhase::Active)
            });
            let untouched = block.metadata.deletion_timestamp.is_none()
                && block
                    .status
                    .as_ref()
                    .is_none_or(|s| *s == IPBlockStatus::default());
            if idle && untouched {
                errors.extend(delete_exactly(&api, &*block).await.err());
            }
        }
    }

    /// Returns whether there is something to look at again soon.
    async fn take_back(&mut self, nodes: &[Arc<NodeRow>], errors: &mut Vec<Error>) -> bool {
        let blocks = self.stores.blocks.rows();
        let owners: BTreeSet<(&str, &str)> = nodes
            .iter()
            .map(|n| (n.id.name.as_str(), n.id.uid.as_str()))
            .collect();
        let orphaned = |block: &&Arc<IPBlock>| {
            let phase = block.status.as_ref().map(|s| s.phase);
            let owner = &block.spec.node;
            phase == Some(BlockPhase::Releasing)
                || !owners.contains(&(owner.name.as_str(), owner.uid.as_str()))
        };
        // The usual case: nothing to take back, so pods need not be looked at.
        let candidates: Vec<Arc<IPBlock>> = blocks.iter().filter(orphaned).cloned().collect();
        if candidates.is_empty() {
            self.memory.clear();
            return false;
        }
        let ripe = reclaim(
            &views(&candidates),
            &World {
                nodes,
                pods: &self.stores.pods.rows(),
                slices: &self.stores.slices.rows(),
                weft_nodes: &self.stores.weft_nodes.rows(),
                now: clock::seconds(),
                patience: self.patience,
            },
            &mut self.memory,
        );
        for block in candidates {
            if ripe.iter().any(|r| r.cidr.to_string() == block.spec.cidr) {
                match release(&self.client, &block).await {
                    Ok(true) => tracing::info!(
                        block = block.spec.cidr,
                        node = block.spec.node.name,
                        "taken back"
                    ),
                    Ok(false) => tracing::info!(
                        block = block.spec.cidr,
                        node = block.spec.node.name,
                        "in use after all, not taken back"
                    ),
                    Err(error) => errors.push(error),
                }
            }
        }
        true
    }

    /// The finalizer: on every pool, off when it is being deleted and no block of it is left.
    async fn finalize(&self, pool: &IPPool) -> Result<(), Error> {
        let api = Api::<IPPool>::all(self.client.clone());
        if pool.metadata.deletion_timestamp.is_none() {
            return set_finalizer(&api, pool, true).await;
        }
        let name = pool.name_any();
        let holds = |blocks: &[Arc<IPBlock>]| blocks.iter().any(|b| b.spec.pool == name);
        if holds(&self.stores.blocks.rows()) {
            return Ok(());
        }
        // The cache may be behind a grant of ours.
        let live = quorum_list(&Api::<IPBlock>::all(self.client.clone())).await?;
        if holds(&live) {
            return Ok(());
        }
        set_finalizer(&api, pool, false).await
    }
}

/// Creates every block; one that is there already was granted by somebody else.
async fn create_all(api: &Api<IPBlock>, create: &[NewBlock]) -> Vec<Error> {
    let mut errors = Vec::new();
    for new in create {
        let block = object(new);
        let name = block.name_any();
        match api.create(&post(BLOCKS), &block).await {
            Ok(_) => tracing::info!(
                block = %new.cidr, pool = new.pool, node = new.node.name, "granted"
            ),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                tracing::debug!(block = %new.cidr, "granted by somebody else");
            }
            Err(source) => errors.push(Error::Api {
                what: format!("cannot create {}", named::<IPBlock>(&name)),
                source,
            }),
        }
    }
    errors
}

/// Re-checks against the API itself, marks the block `Releasing` and deletes it, all by
/// compare-and-swap on what was seen. `false`: it is in use after all.
pub(crate) async fn release(client: &Client, block: &IPBlock) -> Result<bool, Error> {
    let status = block.status.clone().unwrap_or_default();
    let returned = status.phase == BlockPhase::Releasing
        && status.node_uid == block.spec.node.uid
        && status.epoch == block.spec.epoch
        && status.used == 0;
    let api = Api::<IPBlock>::all(client.clone());
    if returned {
        delete_exactly(&api, block).await?;
        return Ok(true);
    }
    let node = &block.spec.node;
    let found = Api::<Node>::all(client.clone())
        .get_opt(&node.name)
        .await
        .tried(|| format!("cannot read Node {}", node.name))?;
    if found.is_some_and(|n| n.metadata.uid.as_deref() == Some(node.uid.as_str())) {
        return Ok(false);
    }
    let on_node = ListParams::default().fields(&format!("spec.nodeName={}", node.name));
    let pods = Api::<Pod>::all(client.clone())
        .list(&on_node)
        .await
        .tried(|| format!("cannot list the pods of node {}", node.name))?;
    let Some(cidr) = BlockView::of(block).map(|v| v.cidr) else {
        return Ok(false);
    };
    let used = pods
        .iter()
        .map(PodRow::from_pod)
        .any(|p| p.live && !p.host_network && p.addresses.iter().any(|a| cidr.contains(a)));
    if used {
        return Ok(false);
    }
    // From here on a node that comes back cannot confirm the block: its write would be against an
    // old resourceVersion, and a Releasing block of this epoch is not confirmed.
    let mut marked = block.clone();
    marked.status = Some(IPBlockStatus {
        phase: BlockPhase::Releasing,
        node_uid: node.uid.clone(),
        epoch: block.spec.epoch,
        used: 0,
    });
    let name = block.name_any();
    let marked = api
        .replace_status(&name, &post(BLOCKS), &marked)
        .await
        .tried(|| format!("cannot mark {} as Releasing", named::<IPBlock>(&name)))?;
    delete_exactly(&api, &marked).await?;
    Ok(true)
}

async fn quorum_list(api: &Api<IPBlock>) -> Result<Vec<Arc<IPBlock>>, Error> {
    let list = api
        .list(&ListParams::default())
        .await
        .tried(|| "cannot list IPBlocks".into())?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

/// Views of blocks. A block whose CIDR cannot be read is left out with a complaint: the API server
/// validates it, so only an older schema could have let it in.
pub(crate) fn views(blocks: &[Arc<IPBlock>]) -> Vec<BlockView> {
    blocks
        .iter()
        .filter_map(|block| {
            let seen = BlockView::of(block);
            if seen.is_none() {
                tracing::error!(block = block.name_any(), cidr = block.spec.cidr, "no CIDR");
            }
            seen
        })
        .collect()
}

fn object(new: &NewBlock) -> IPBlock {
    IPBlock::new(
        &BlockName(new.cidr).to_string(),
        IPBlockSpec {
            pool: new.pool.clone(),
            cidr: new.cidr.to_string(),
            node: BlockNode {
                name: new.node.name.clone(),
                uid: new.node.uid.clone(),
            },
            epoch: new.epoch,
        },
    )
}
