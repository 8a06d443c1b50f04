//! What the tasks of the router share.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};
use weft_crds::NodeConfig;
use weft_ipam::node::Reservation;
use weft_netlink::{IfName, Kernel, MacAddr};
use weft_socket::{Endpoint, PodRef};

use crate::{
    args::RunArgs,
    input::{link_of, pod_ports},
    ipam::{NodeIpam, socket_id},
    kernel::{Pods, Ports, forward},
    metrics::Metrics,
    npc::Npc,
    stores::Stores,
    view::View,
};

/// Shared by all tasks.
pub(crate) struct Shared {
    pub(crate) args: RunArgs,
    pub(crate) config: NodeConfig,
    pub(crate) stores: Stores,
    pub(crate) view: watch::Sender<View>,
    /// Port rules.
    pub(crate) ports: Ports,
    /// For the FDB entry of a port that opens.
    pub(crate) kernel: Kernel,
    /// Something is not as it should be: the sync loop must look at it.
    pub(crate) look: Notify,
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
        ports: Ports,
        kernel: Kernel,
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
            ports,
            kernel,
            look: Notify::new(),
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

    /// Reservations whose addresses lie in confirmed blocks of this node. The ports of the others
    /// are closed: their block may belong to another node by now.
    pub(crate) fn open_reservations(&self) -> Vec<Reservation> {
        let allocator = self.ipam();
        let blocks = allocator.blocks();
        let inside = |a: &IpAddr| blocks.iter().any(|b| b.cidr.contains(a));
        allocator
            .list()
            .filter(|r| r.addresses.iter().all(inside))
            .cloned()
            .collect()
    }

    /// The ports of those.
    pub(crate) fn pod_ports(&self) -> Pods {
        pod_ports(&self.open_reservations())
    }

    /// Brings the port rules in line with the reservations.
    ///
    /// # Errors
    /// Why they are not; the sync loop looks at it.
    pub(crate) async fn bring_ports(&self) -> Result<(), String> {
        let done = self.ports.bring(|| self.pod_ports()).await;
        if done.is_err() {
            self.look.notify_one();
        }
        done
    }

    /// Enforces the port of a reservation: rules and FDB entry are in the kernel after it.
    ///
    /// # Errors
    /// What could not be done; the sync loop looks at it.
    pub(crate) async fn enforced(&self, held: &Reservation) -> Result<(), String> {
        let link = IfName::parse(&link_of(&held.id.container_id, &held.id.ifname));
        let link = link.map_err(|e| e.to_string())?;
        let first = held.addresses.first().copied();
        let mac = MacAddr::of_pod(first.ok_or("the reservation holds no address")?);
        self.bring_ports().await?;
        let done = forward(&self.kernel, &link, mac).await;
        if done.is_err() {
            self.look.notify_one();
        }
        done
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
