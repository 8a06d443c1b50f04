//! ADD, Enforce, DEL, CHECK and GC of attachments.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use weft_fabric::names::WEAVE;
use weft_ipam::{
    gc::not_listed,
    node::{Durability, Reservation, ReserveError},
};
use weft_netlink::MacAddr;
use weft_socket::{
    AddReply, AddRequest, AttachmentId, ErrorReply, GcReply, GcRequest, NpcRequest, PodRef, code,
};

use crate::{
    announce, clock, conntrack,
    input::{alias_of, link_of},
    ipam,
    shared::{Shared, endpoint},
    view::View,
};

/// How long an ADD waits for its pod to arrive in the store. The kubelet knows a pod from the same
/// API server, so it is there within moments unless our watch hangs.
const POD_WAIT: Duration = Duration::from_secs(10);
/// How long npc may take to bring a pod's policy into the kernel.
const NPC_WAIT: Duration = Duration::from_secs(15);
/// DEL goes on without npc after this.
const NPC_GONE_WAIT: Duration = Duration::from_secs(2);

fn again(msg: impl Into<String>, details: impl Into<String>) -> ErrorReply {
    ErrorReply {
        code: code::TRY_AGAIN_LATER,
        msg: msg.into(),
        details: details.into(),
    }
}

/// Reserves addresses, durably, and says how the pod is to be attached.
pub(crate) async fn add(
    shared: &Arc<Shared>,
    request: &AddRequest,
) -> Result<AddReply, ErrorReply> {
    let view = shared.view.borrow().clone();
    if !view.fabric.ok {
        return Err(again(
            format!(
                "the fabric of this node is not ready ({})",
                view.fabric.reason
            ),
            view.fabric.message,
        ));
    }
    let pod = find_pod(shared, &request.pod).await?;
    let wanted = ipam::request(&shared.stores, &request.id, &request.pod, pod.as_deref())
        .map_err(|why| again(format!("no pool for pod {}", name(&request.pod)), why))?;
    let reserved = tokio::task::block_in_place(|| shared.ipam().reserve(&wanted, clock::now()));
    let reservation = reserved.map_err(|e| refusal(&request.pod, &e))?;
    let answer = reply(shared, &view, &reservation)?;
    tokio::spawn(prepare(Arc::clone(shared), reservation));
    Ok(answer)
}

/// Brings port rules and policy of a reservation into the kernel while the plugin makes the devices,
/// so that Enforce finds them there. It says whether they are; what fails here, it tries again. The
/// pod is closed all the same: its host end is down until Enforce has answered.
async fn prepare(shared: Arc<Shared>, reservation: Reservation) {
    let pod = NpcRequest::Pod(endpoint(&reservation));
    let ports = async {
        if let Err(why) = shared.bring_ports().await {
            tracing::debug!(why, "Port rules are not in line yet");
        }
    };
    let policy = shared.npc.ask::<Option<()>>(&pod, NPC_WAIT);
    let ((), asked) = tokio::join!(ports, policy);
    if let Err(error) = asked {
        tracing::debug!(%error, "npc does not have a new pod yet");
    }
    // A DEL in between may have told npc before it heard of the pod.
    let held = shared.ipam().find(&reservation.id).map(|held| held.seq);
    if held != Some(reservation.seq) {
        tell_gone(&shared, &reservation).await;
    }
}

/// The pod's object; `None` for a static pod whose mirror is not there yet, and for callers that
/// name no pod.
async fn find_pod(shared: &Shared, pod: &PodRef) -> Result<Option<Arc<Pod>>, ErrorReply> {
    if pod.uid.is_empty() {
        return Ok(None);
    }
    let known = || shared.stores.pod(&pod.namespace, &pod.name, &pod.uid);
    let is_static = pod.uid.len() == 32 && pod.uid.chars().all(|c| c.is_ascii_hexdigit());
    if is_static {
        return Ok(known());
    }
    // Subscribed before the look, so that no change is missed in between.
    let mut changes = shared.stores.pod_changes();
    let wait = async {
        loop {
            if let Some(pod) = known() {
                return Some(pod);
            }
            if changes.changed().await.is_err() {
                return None;
            }
        }
    };
    tokio::time::timeout(POD_WAIT, wait).await.map_err(|_| {
        again(
            format!(
                "the API has not shown pod {} with UID {} within {POD_WAIT:?}",
                name(pod),
                pod.uid
            ),
            "the kubelet tries again; if it persists, this node cannot watch pods",
        )
    })
}

fn name(pod: &PodRef) -> String {
    if pod.name.is_empty() {
        "(not named)".to_owned()
    } else {
        format!("{}/{}", pod.namespace, pod.name)
    }
}

fn refusal(pod: &PodRef, error: &ReserveError) -> ErrorReply {
    let remedy = match error {
        ReserveError::NoRoom { .. } => {
            "the operator grants further blocks while the IPPool has some (`kubectl get \
             ippools,ipblocks`); extend spec.cidrs of the IPPool if it is exhausted"
        }
        ReserveError::Storage(_) => "free space on the file system of the state directory",
        ReserveError::Lost(_) => "the router reads them back from the kernel, it takes a moment",
        ReserveError::Fixed { .. } => "choose another address or wait for it",
        ReserveError::NothingAsked => "name an IPPool that exists",
        ReserveError::OtherPod { .. } => "the runtime used a container id twice",
    };
    again(format!("no address for pod {}: {error}", name(pod)), remedy)
}

fn reply(shared: &Shared, view: &View, held: &Reservation) -> Result<AddReply, ErrorReply> {
    let internal = |msg: String| ErrorReply {
        code: code::INTERNAL,
        msg,
        details: String::new(),
    };
    let pool_of = |a: IpAddr| view.pools.iter().find(|p| p.contains(&a)).copied();
    let mut addresses = Vec::new();
    let mut gateways = Vec::new();
    for address in &held.addresses {
        let pool = pool_of(*address)
            .ok_or_else(|| internal(format!("address {address} lies in no IPPool any more")))?;
        let net = IpNet::new(*address, pool.prefix_len()).map_err(|e| internal(e.to_string()))?;
        addresses.push(net);
        let gateway = view
            .gateways
            .iter()
            .find(|g| g.is_ipv4() == address.is_ipv4());
        gateways.push(*gateway.ok_or_else(|| {
            again(
                format!("this node has no gateway for {address}"),
                "the operator grants it with the first block of the family",
            )
        })?);
    }
    let same_family = |n: &IpNet| {
        addresses
            .iter()
            .any(|a| a.addr().is_ipv4() == n.addr().is_ipv4())
    };
    let on_link = view
        .pools
        .iter()
        .filter(|p| same_family(p) && !addresses.iter().any(|a| a.trunc() == **p))
        .copied()
        .collect();
    let first = held.addresses.first().copied();
    let first = first.ok_or_else(|| internal("the reservation holds no address".to_owned()))?;
    let (container, ifname) = (&held.id.container_id, &held.id.ifname);
    Ok(AddReply {
        addresses,
        gateways,
        on_link,
        mac: MacAddr::of_pod(first).to_string(),
        mtu: view
            .mtu
            .ok_or_else(|| internal("the MTU is not known".to_owned()))?,
        host_ifname: link_of(container, ifname),
        host_ifalias: alias_of(&shared.config.cluster_id, container, ifname),
        bridge: WEAVE.to_owned(),
    })
}

fn held(shared: &Shared, id: &AttachmentId) -> Result<Reservation, ErrorReply> {
    let held = shared.ipam().find(&ipam::attachment(id)).cloned();
    held.ok_or_else(|| ErrorReply {
        code: code::UNKNOWN_CONTAINER,
        msg: format!(
            "the router knows no interface {} of container {}",
            id.ifname, id.container_id
        ),
        details: String::new(),
    })
}

/// Answers when port rules, FDB entry and policy of the attachment are in the kernel.
pub(crate) async fn enforce(shared: &Shared, id: &AttachmentId) -> Result<AddReply, ErrorReply> {
    let reservation = held(shared, id)?;
    let pod = NpcRequest::Pod(endpoint(&reservation));
    let policy = shared.npc.ask::<Option<()>>(&pod, NPC_WAIT);
    let (ports, policy) = tokio::join!(shared.enforced(&reservation), policy);
    ports.map_err(|why| {
        again(
            format!(
                "cannot enforce the port rules of container {}",
                id.container_id
            ),
            why,
        )
    })?;
    policy?;
    if let Some(first) = reservation.addresses.first() {
        announce::repeat(MacAddr::of_pod(*first), reservation.addresses.clone());
    }
    let view = shared.view.borrow().clone();
    reply(shared, &view, &reservation)
}

/// What is held for the attachment.
pub(crate) fn check(shared: &Shared, id: &AttachmentId) -> Result<AddReply, ErrorReply> {
    let reservation = held(shared, id)?;
    let view = shared.view.borrow().clone();
    reply(shared, &view, &reservation)
}

/// Takes an attachment back. Unknown is success.
pub(crate) async fn del(shared: &Arc<Shared>, id: &AttachmentId) -> Result<(), ErrorReply> {
    let released =
        tokio::task::block_in_place(|| shared.ipam().release(&ipam::attachment(id), clock::now()));
    if let Durability::Pending(error) = &released.durability {
        // In force now; a crash before the disk has room again would bring it back as used, for
        // the garbage collector.
        tracing::warn!(container = id.container_id, %error, "Release is not on disk yet");
    }
    if let Some(reservation) = released.reservation {
        gone(shared, &reservation).await;
    }
    Ok(())
}

/// After a release: policy, port rules and flows of the addresses.
pub(crate) async fn gone(shared: &Arc<Shared>, reservation: &Reservation) {
    let ports = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(why) = ports.bring_ports().await {
            tracing::warn!(why, "Port rules are not in line");
        }
    });
    tell_gone(shared, reservation).await;
    let addresses = reservation.addresses.clone();
    tokio::spawn(async move {
        for address in addresses {
            conntrack::flush(address).await;
        }
    });
}

/// Takes a pod away from npc.
async fn tell_gone(shared: &Shared, reservation: &Reservation) {
    let request = NpcRequest::PodGone(ipam::socket_id(&reservation.id));
    if let Err(error) = shared.npc.ask::<Option<()>>(&request, NPC_GONE_WAIT).await {
        // npc asks for all endpoints when it starts, and finds this one gone.
        tracing::warn!(%error, "npc was not told of a pod that is gone");
    }
}

/// Takes back everything that the runtime does not list.
pub(crate) async fn gc(shared: &Arc<Shared>, request: &GcRequest) -> GcReply {
    let before = shared.reservations();
    let valid: BTreeSet<_> = request.valid.iter().map(ipam::attachment).collect();
    let mut reply = GcReply::default();
    for seq in not_listed(&before, &valid) {
        let released = tokio::task::block_in_place(|| shared.ipam().release_if(seq, clock::now()));
        if let Some(reservation) = released.reservation {
            reply.released.push(ipam::socket_id(&reservation.id));
            gone(shared, &reservation).await;
        }
    }
    reply
}
