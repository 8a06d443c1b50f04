//! What must not be lost: DELs that the plugin could not bring to us (tombstones), and addresses
//! whose attachment ended without one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use kube::runtime::events::{Event, EventType, Recorder};
use weft_ipam::{
    gc::{Evidence, Suspects, Verdict, judge},
    node::{Durability, Reservation},
    sighting::Patience,
};
use weft_netlink::{IfName, Kernel, Netlink, Network, Owner};
use weft_socket::{
    AttachmentId, NpcRequest,
    tombstone::{self, Tombstone},
};

use crate::{
    attach::gone,
    clock,
    input::link_of,
    ipam,
    kernel::attachments,
    report,
    shared::{Shared, endpoint},
};

/// How often the collector sweeps. What it takes back is at least [`weft_ipam::gc::MIN_AGE`] old.
pub(crate) const SWEEP: Duration = Duration::from_secs(60);
/// How long npc may take to take notice.
const NPC_WAIT: Duration = Duration::from_secs(2);

/// Carries out the DELs that the plugin could not bring to us.
pub(crate) async fn replay_tombstones(shared: &Arc<Shared>) {
    let stones = match tombstone::list(&shared.del_dir) {
        Ok(stones) => stones,
        Err(error) => {
            tracing::warn!(dir = %shared.del_dir.display(), %error, "Cannot read tombstones");
            return;
        }
    };
    for stone in stones {
        replay(shared, &stone).await;
    }
}

/// An ADD of the same attachment removes the tombstone before it asks us: as long as the file is
/// there, what we hold is from before the DEL. Look and release are one step under the allocator's
/// lock, which the ADD needs, so it cannot come in between and lose what it was just given.
async fn replay(shared: &Arc<Shared>, stone: &Tombstone) {
    let id = ipam::attachment(&stone.id);
    let released = tokio::task::block_in_place(|| {
        let mut allocator = shared.ipam();
        if !is_there(&stone.path) {
            tracing::info!(
                container = stone.id.container_id,
                "The attachment is back, its DEL is void"
            );
            return None;
        }
        let released = allocator.release(&id, clock::now());
        if let Durability::Pending(error) = &released.durability {
            tracing::warn!(%error, "A DEL that was left to us is not on disk yet, keeping its tombstone");
        } else if let Err(error) = stone.remove() {
            tracing::warn!(path = %stone.path.display(), %error, "Cannot remove a tombstone");
        }
        released.reservation
    });
    let Some(reservation) = released else {
        return;
    };
    gone(shared, &reservation).await;
    // An ADD since then has told npc of the new pod, perhaps before npc heard that the old one is
    // gone.
    let back = shared.ipam().find(&id).cloned();
    if let Some(back) = back
        && let Err(error) = shared
            .npc
            .ask::<Option<()>>(&NpcRequest::Pod(endpoint(&back)), NPC_WAIT)
            .await
    {
        tracing::warn!(%error, "npc was not told of a pod that is back");
    }
}

/// Unknown means: not sure that it is, so the DEL waits for the next look.
fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap_or(false)
}

/// One sweep of the garbage collector: reservations whose host end is gone, seen twice and looked at
/// once more, are taken back (a DEL that never came, an ADD that died half-way). The runtime does
/// not ask for it: it calls the verb GC from CNI 1.1.0 on, and the conflist says 1.0.0.
///
/// # Errors
/// The kernel's links cannot be listed: then nothing is known and nothing is taken back.
pub(crate) async fn collect(
    shared: &Arc<Shared>,
    suspects: &mut Suspects,
    recorder: &Recorder,
) -> Result<(), weft_netlink::Error> {
    // Reservations first, evidence after: the other way round frees those that came in between.
    let reservations = shared.reservations();
    let shown = Shown::look(&shared.config.cluster_id).await?;
    let now = clock::now();
    let looks = reservations.iter().map(|r| (r, shown.of(r)));
    let ripe = suspects.sweep(looks, now, Patience::default());
    if ripe.is_empty() {
        return Ok(());
    }
    let shown = Shown::look(&shared.config.cluster_id).await?;
    for reservation in reservations.iter().filter(|r| ripe.contains(&r.seq)) {
        if judge(reservation, shown.of(reservation), now) != Verdict::Leaked {
            continue;
        }
        let released =
            tokio::task::block_in_place(|| shared.ipam().release_if(reservation.seq, now));
        if let Some(released) = released.reservation {
            shared.metrics.leaked(released.addresses.len());
            let note = note(&released);
            tracing::warn!(container = released.id.container_id, "{note}");
            gone(shared, &released).await;
            let event = Event {
                type_: EventType::Normal,
                reason: "AddressesTakenBack".to_owned(),
                note: Some(note),
                action: "CollectGarbage".to_owned(),
                secondary: None,
            };
            report::on_node(shared, recorder, event).await;
        }
    }
    Ok(())
}

/// What the kernel shows.
struct Shown {
    attachments: BTreeMap<AttachmentId, IfName>,
    /// Every link, whosever it is.
    links: BTreeSet<IfName>,
}

impl Shown {
    async fn look(cluster: &str) -> Result<Self, weft_netlink::Error> {
        let kernel = Kernel::connect().map_err(|e| weft_netlink::Error {
            action: "open a netlink socket".to_owned(),
            cause: e.to_string(),
            errno: e.raw_os_error(),
        })?;
        Ok(Self::new(&kernel.dump().await?, cluster))
    }

    fn new(network: &Network, cluster: &str) -> Self {
        Self {
            attachments: attachments(network, &Owner::new(cluster)),
            links: network.links.keys().cloned().collect(),
        }
    }

    /// In use while a link says so by its alias. A link of its name that says nothing, or something
    /// else, leaves the owner unknown, which means in use as well.
    fn of(&self, reservation: &Reservation) -> Evidence {
        let id = ipam::socket_id(&reservation.id);
        let named = link_of(&id.container_id, &id.ifname);
        let named = self.links.iter().any(|l| l.as_str() == named);
        Evidence {
            host_link: (self.attachments.contains_key(&id) || !named)
                .then(|| self.attachments.contains_key(&id)),
        }
    }
}

fn note(released: &Reservation) -> String {
    let addresses: Vec<String> = released.addresses.iter().map(ToString::to_string).collect();
    let pod = &released.pod;
    let of = if pod.name.is_empty() {
        String::new()
    } else {
        format!(" of pod {}/{}", pod.namespace, pod.name)
    };
    format!(
        "took back {}{of}: container {} has no link on this node any more, and no DEL came",
        addresses.join(" and "),
        released.id.container_id
    )
}

#[cfg(test)]
mod tests;
