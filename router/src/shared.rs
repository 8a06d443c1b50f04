//! What the tasks of the router share.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};
use weft_crds::NodeConfig;
use weft_ipam::node::Reservation;
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

/// Asks for a sync; answered when the kernel holds what was wanted at the time of asking.
pub(crate) type Kick = Option<oneshot::Sender<Result<(), String>>>;

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

    /// Asks for a sync and waits for it.
    ///
    /// # Errors
    /// What the sync could not do, or the router is stopping.
    pub(crate) async fn synced(&self) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        let stopping = || "the router is stopping".to_owned();
        self.kicks.send(Some(done)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Asks for a sync soon. One that is queued already will do.
    pub(crate) fn kick(&self) {
        let _ = self.kicks.try_send(None);
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
