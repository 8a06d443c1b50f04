//! A node with npc, pods and a neighbour, for flows.

use std::{collections::BTreeMap, net::SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use weft_testkit::{builders::make_pod, netns::Netns};

use crate::{
    api::PODS,
    dual::{addresses, endpoint},
    push::{Flow, Traffic, Transport},
    world::{Backend, World, pod},
};

/// A node with the pods 2, 3 and 4, and pods 10.32.1.5 and 10.32.1.6 of another one.
pub(crate) struct Node {
    pub(crate) traffic: Traffic,
    pub(crate) world: World,
    pub(crate) pods: BTreeMap<u8, Netns>,
    pub(crate) far: Netns,
}

/// Pod `n` of the node, under this label.
pub(crate) fn local(n: u8, app: &str) -> Pod {
    pod(n).label("app", app).build()
}

pub(crate) fn remote(n: u8, app: &str) -> Pod {
    let pod = make_pod("default", &format!("far{n}")).uid(&format!("uid-far{n}"));
    let pod = pod.label("app", app).node("n2");
    pod.address(&format!("10.32.1.{n}")).build()
}

pub(crate) fn at(server: &str) -> SocketAddr {
    server.parse().expect("an address and a port")
}

impl Node {
    /// npc runs and knows all pods; each is labelled `app=pod<n>` or `app=far<n>`.
    pub(crate) fn new(backend: &str) -> Self {
        let world = match backend {
            "nftables" => World::new(Backend::Nftables),
            variant => World::with(&json!({"iptablesVariant": variant})),
        };
        world
            .ns
            .sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        world.dual_bridge();
        let mut pods = BTreeMap::new();
        for n in [2, 3, 4] {
            world.attach(endpoint(n));
            let ns = world.dual_wire(n);
            ns.sh("ip route add default via 10.32.0.1");
            pods.insert(n, ns);
            world.api.add(PODS, &pod(n).build());
        }
        let far = world.port("vethwe-bridge");
        far.sh("ip link set eth0 up");
        for n in [5, 6] {
            far.sh(&format!("ip addr add 10.32.1.{n}/12 dev eth0"));
            world.api.add(PODS, &remote(n, &format!("far{n}")));
        }
        let mut node = Self {
            traffic: Traffic::default(),
            world,
            pods,
            far,
        };
        node.world.start_router();
        node.world.start();
        node.world.ready();
        node
    }

    /// npc is killed; started again it finds the API as it is then.
    pub(crate) fn restart(&mut self, meanwhile: impl FnOnce(&World)) {
        self.world.kill();
        meanwhile(&self.world);
        self.world.kill_and_start();
    }

    pub(crate) fn serve(&self, n: u8, server: &str) {
        self.traffic.serve(&self.pods[&n], at(server));
    }

    /// Of pod `n`.
    fn flow(&self, name: &'static str, transport: Transport, n: u8, server: &str) -> Flow {
        let server = at(server);
        let [v4, v6] = addresses(n);
        let source = if server.is_ipv4() { v4 } else { v6 };
        let ends = [SocketAddr::new(source, 0), server];
        self.traffic.flow(name, transport, &self.pods[&n], ends)
    }

    pub(crate) fn tcp(&self, name: &'static str, n: u8, server: &str) -> Flow {
        self.flow(name, Transport::Tcp, n, server)
    }

    pub(crate) fn udp(&self, name: &'static str, n: u8, server: &str) -> Flow {
        self.flow(name, Transport::Udp, n, server)
    }

    /// Of the other node's pod `n`.
    pub(crate) fn far_tcp(&self, name: &'static str, n: u8, server: &str) -> Flow {
        let ends = [at(&format!("10.32.1.{n}:0")), at(server)];
        self.traffic.flow(name, Transport::Tcp, &self.far, ends)
    }

    fn count(&self, metric: &str) -> u64 {
        let metrics = self.world.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(metric));
        let number = line.and_then(|rest| rest.trim().parse().ok());
        assert!(number.is_some(), "{metric} in\n{metrics}");
        number.unwrap_or_default()
    }

    /// Flows that were cut, and flows that went on.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |what| self.count(&format!("weft_npc_flows_{what}_total"));
        (count("cut"), count("restored"))
    }
}
