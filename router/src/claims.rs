//! The node's side of the two-phase claim: Pending blocks of this Node become Confirmed, by
//! compare-and-swap, with the Node's UID and the epoch; empty blocks of a pool that gives no
//! addresses any more (draining, disabled, being deleted) become Releasing.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;

use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_crds::{BlockPhase, IPBlock};
use weft_ipam::{
    claim::{BlockView, Claim, NodeRef, Return, confirm, decide_return},
    sighting::{Patience, Sighting},
};

use crate::{clock, ipam, shared::Shared};

/// How often usage is reported, at most; and how often a failed claim is tried again.
const REPORT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(10);
/// Two looks at an empty block of a pool that gives nothing new: nobody can take an address between
/// them, so they need not be far apart.
const PATIENCE: Patience = Patience { gap: 3, grace: 3 };

/// Sightings of empty blocks.
type Empty = BTreeMap<IpNet, Sighting>;

/// Confirms until `token` is cancelled.
pub(crate) async fn run(shared: Arc<Shared>, client: Client, token: CancellationToken) {
    let api: Api<IPBlock> = Api::all(client);
    if !shared.stores.ready().await {
        return;
    }
    let mut changes = shared.stores.changes();
    let mut empty = Empty::new();
    let mut report_at = tokio::time::Instant::now() + REPORT;
    loop {
        let report = tokio::time::Instant::now() >= report_at;
        if report {
            report_at = tokio::time::Instant::now() + REPORT;
        }
        let pause = if pass(&shared, &api, report, &mut empty).await && empty.is_empty() {
            REPORT
        } else {
            RETRY
        };
        tokio::select! {
            () = token.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn pass(shared: &Shared, api: &Api<IPBlock>, report: bool, empty: &mut Empty) -> bool {
    let Some(node) = shared.stores.node.state().into_iter().next() else {
        return false;
    };
    let me = NodeRef {
        name: shared.args.node_name.clone(),
        uid: node.uid().unwrap_or_default(),
    };
    let mut complete = true;
    let counts = shared.ipam().counts(clock::now());
    for block in shared.stores.blocks.state() {
        let Some(view) = BlockView::of(&block) else {
            tracing::warn!(
                block = block.name_any(),
                "The CIDR of a block cannot be read"
            );
            continue;
        };
        let counts = counts.get(&view.cidr).copied().unwrap_or_default();
        let used = counts.used;
        let (phase, epoch) = match confirm(&view, &me) {
            Claim::Confirm { epoch } => (BlockPhase::Confirmed, epoch),
            Claim::Held if returns(shared, &view, used + counts.cooling, empty) => {
                (BlockPhase::Releasing, view.epoch)
            }
            Claim::Held if report && used != view.used => (BlockPhase::Confirmed, view.epoch),
            Claim::Held | Claim::Ignore => continue,
            Claim::Fenced => {
                tracing::warn!(
                    block = block.name_any(),
                    "Block belongs to another Node of our name"
                );
                continue;
            }
        };
        let status = serde_json::json!({
            "metadata": {"resourceVersion": block.resource_version()},
            "status": {"phase": phase, "nodeUID": me.uid, "epoch": epoch, "used": used},
        });
        let name = block.name_any();
        let params = PatchParams::default();
        let patch = Patch::Merge(&status);
        let write = api.patch_status(&name, &params, &patch);
        match timeout(LIMIT, write).await {
            Ok(Ok(_)) => tracing::info!(block = name, epoch, used, ?phase, "Block status written"),
            // Somebody was faster: the watch brings the new version and we decide again.
            Ok(Err(kube::Error::Api(e))) if e.code == 409 => complete = false,
            Ok(Err(error)) => {
                tracing::warn!(block = name, %error, "Cannot confirm a block");
                complete = false;
            }
            Err(_) => {
                tracing::warn!(block = name, "No answer to the confirmation of a block");
                complete = false;
            }
        }
    }
    complete
}

/// Whether the block goes back: its pool gives no addresses any more, nobody holds or rests one of
/// its addresses (`busy`), it carries no gateway, and this was seen twice.
fn returns(shared: &Shared, block: &BlockView, busy: u32, empty: &mut Empty) -> bool {
    let stores = &shared.stores;
    let active = stores
        .pools
        .find(|p| p.name_any() == block.pool)
        .is_some_and(|p| ipam::gives_addresses(&p));
    let pinned = stores.weft_node.state().into_iter().any(|n| {
        let mut gateways = n
            .spec
            .gateways
            .iter()
            .filter_map(|g| g.parse::<IpAddr>().ok());
        gateways.any(|g| block.cidr.contains(&g))
    });
    if active {
        empty.remove(&block.cidr);
        return false;
    }
    let seen = empty.remove(&block.cidr);
    match decide_return(busy, pinned, u128::MAX, 0, seen, clock::now(), PATIENCE) {
        Return::Keep => false,
        Return::Watch(sighting) => {
            empty.insert(block.cidr, sighting);
            false
        }
        // `busy` is as old as the pass, which waits for the API between two blocks.
        Return::Give => {
            let counts = shared.ipam().counts(clock::now());
            let counts = counts.get(&block.cidr).copied().unwrap_or_default();
            counts.used + counts.cooling == 0
        }
    }
}
