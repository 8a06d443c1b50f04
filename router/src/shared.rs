//! What the tasks of the router share.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};
use weft_crds::NodeConfig;
use weft_ipam::node::Reservation;
use weft_netlink::{IfName, MacAddr};
use weft_socket::{Endpoint, PodRef};

use crate::{
    args::RunArgs,
    input::link_of,
    ipam::{NodeIpam, socket_id},
    metrics::Metrics,
    npc::Npc,
    stores::Stores,
    view::View,
};

/// What the sync loop is asked.
#[derive(Debug)]
pub(crate) enum Kick {
    /// Reservations changed: bring the port rules in line soon.
    Ports,
    /// Open this port: its rules and its FDB entry, then answer.
    Open {
        link: IfName,
        mac: MacAddr,
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// Shared by all tasks.
pub(crate) struct Shared {
    pub(crate) args: RunArgs,
    pub(crate) config: NodeConfig,
    pub(crate) stores: Stores,
    pub(crate) view: watch::Sender<View>,
    pub(crate) kicks: mpsc::Sender<Kick>,
    pub(crate) npc: Npc,
    pub(crate) metrics: Metrics,
    pub(crate) del_dir: PathBuf,
    ipam: Mutex<NodeIpam>,
}

impl Shared {
    #[allow(clippy::too_many_arguments, reason = "put together once, in run")]
    pub(crate) fn new(
        args: RunArgs,
        config: NodeConfig,
        stores: Stores,
        kicks: mpsc::Sender<Kick>,
        metrics: Metrics,
        ipam: NodeIpam,
    ) -> Self {
        Self {
            npc: Npc::new(args.paths.run_dir.join("npc.sock")),
            del_dir: args.paths.run_dir.join("del"),
            args,
            config,
            stores,
            view: watch::Sender::new(View::default()),
            kicks,
            metrics,
            ipam: Mutex::new(ipam),
        }
    }

    /// The allocator. It writes to disk: hold it for one operation.
    pub(crate) fn ipam(&self) -> MutexGuard<'_, NodeIpam> {
        self.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every reservation.
    pub(crate) fn reservations(&self) -> Vec<Reservation> {
        self.ipam().list().cloned().collect()
    }

    /// Waits until the port of a reservation is enforced: rules and FDB entry are in the kernel.
    ///
    /// # Errors
    /// What could not be done, or the router is stopping.
    pub(crate) async fn enforced(&self, held: &Reservation) -> Result<(), String> {
        let link = IfName::parse(&link_of(&held.id.container_id, &held.id.ifname));
        let link = link.map_err(|e| e.to_string())?;
        let first = held.addresses.first().copied();
        let mac = MacAddr::of_pod(first.ok_or("the reservation holds no address")?);
        let (done, answer) = oneshot::channel();
        let stopping = || "the router is stopping".to_owned();
        let kick = Kick::Open { link, mac, done };
        self.kicks.send(kick).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Reservations changed. A kick that is queued already will do.
    pub(crate) fn kick(&self) {
        let _ = self.kicks.try_send(Kick::Ports);
    }

    /// Changes the view; who watches it hears only of differences.
    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        self.view.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            *view != before
        });
    }
}

/// A reservation, as npc hears of it.
pub(crate) fn endpoint(reservation: &Reservation) -> Endpoint {
    Endpoint {
        id: socket_id(&reservation.id),
        pod: PodRef {
            namespace: reservation.pod.namespace.clone(),
            name: reservation.pod.name.clone(),
            uid: reservation.pod.uid.clone(),
        },
        addresses: reservation.addresses.clone(),
        host_ifname: link_of(&reservation.id.container_id, &reservation.id.ifname),
    }
}
