//! A node of both families with a bridge and pods, on which npc runs.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;
use weft_socket::{AttachmentId, Endpoint, NpcRequest, PodRef};
use weft_testkit::{
    builders::{make_network_policy, make_pod, selector},
    netns::Netns,
};

use crate::{
    api::{PODS, POLICIES},
    world::World,
};

/// The node and its pods: `pod2` lets nobody in, `pod3` everybody; who sends is `pod4`.
pub(crate) struct Node {
    pub(crate) world: World,
    pods: BTreeMap<u8, Netns>,
}

/// Who lets nobody in.
pub(crate) const CLOSED: u8 = 2;
/// Who lets everybody in.
pub(crate) const OPEN: u8 = 3;
const SENDER: u8 = 4;

/// No duplicate address detection: it takes a second.
const NO_DETECTION: &str =
    "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0";

/// Addresses of pod `n`.
pub(crate) fn addresses(n: u8) -> [IpAddr; 2] {
    [format!("10.32.0.{n}"), format!("fd10:32::{n}")].map(|a| a.parse().expect("address"))
}

fn endpoint(n: u8) -> Endpoint {
    Endpoint {
        id: AttachmentId {
            container_id: format!("c{n}"),
            ifname: "eth0".to_owned(),
        },
        pod: PodRef {
            namespace: "default".to_owned(),
            name: format!("pod{n}"),
            uid: format!("uid{n}"),
        },
        addresses: addresses(n).into(),
        host_ifname: format!("vethwepl{n}"),
    }
}

/// Whether a connection gets there. Nobody listens: what arrives is answered by a reset.
pub(crate) fn arrives(to: IpAddr, patience: Duration) -> bool {
    let result = TcpStream::connect_timeout(&SocketAddr::new(to, 80), patience);
    !matches!(result, Err(error) if error.kind() == ErrorKind::TimedOut)
}

impl Node {
    /// npc runs with this section `policy` of its configuration, and everything is in force.
    pub(crate) fn new(policy: &Value) -> Self {
        let mut world = World::with(policy);
        // Only the bridge itself says that its frames meet rules, as the router sets it up.
        world.ns.sh(&format!(
            "{NO_DETECTION} && sysctl -qw net.bridge.bridge-nf-call-iptables=0 \
             net.bridge.bridge-nf-call-ip6tables=0 && \
             ip link add weave address 02:00:00:00:00:01 type bridge nf_call_iptables 1 \
             nf_call_ip6tables 1 && ip link set weave alias weft/c/fabric && \
             ip link set weave up && ip addr add 10.32.0.1/12 dev weave && \
             ip addr add fd10:32::1/64 dev weave nodad"
        ));
        {
            let mut attached = world.attached.lock().expect("attachments");
            attached.blocks.push("fd10:32::/122".parse().expect("net"));
            attached
                .gateways
                .push("fd10:32::1".parse().expect("address"));
        }
        let mut policy = make_network_policy("default", "closed").build();
        let closed = format!("pod{CLOSED}");
        policy.spec.get_or_insert_default().pod_selector = Some(selector(&[("app", &closed)]));
        world.api.add(POLICIES, &policy);
        world.start_router();
        world.start();
        world.ready();
        let mut node = Self {
            world,
            pods: BTreeMap::new(),
        };
        for n in [CLOSED, OPEN, SENDER] {
            node.come(n);
        }
        for family in 0..2 {
            assert!(node.reaches(OPEN, family), "family {family}");
            assert!(!node.reaches(CLOSED, family), "family {family}");
        }
        node
    }

    fn come(&mut self, n: u8) {
        let ns = Netns::new();
        self.world.ns.sh(&format!(
            "ip link add vethwepl{n} master weave type veth peer name eth0 netns {} && \
             ip link set vethwepl{n} up",
            ns.name()
        ));
        ns.sh(&format!(
            "{NO_DETECTION} && ip link set eth0 up && ip addr add 10.32.0.{n}/12 dev eth0 && \
             ip addr add fd10:32::{n}/64 dev eth0 nodad"
        ));
        self.pods.insert(n, ns);
        let name = format!("pod{n}");
        let pod = make_pod("default", &name)
            .uid(&format!("uid{n}"))
            .node("n1");
        self.world.api.add(PODS, &pod.label("app", &name).build());
        let attached = endpoint(n);
        let list = &self.world.attached;
        list.lock()
            .expect("attachments")
            .endpoints
            .push(attached.clone());
        self.world
            .ask::<Option<()>>(&NpcRequest::Pod(attached))
            .expect("let in");
    }

    /// Does a connection of the sender get to the pod, by its address of family 0 (IPv4) or 1?
    pub(crate) fn reaches(&self, n: u8, family: usize) -> bool {
        let to = addresses(n)[family];
        // What must not come would come at once.
        let patience = Duration::from_millis(if n == CLOSED { 60 } else { 2_000 });
        self.pods[&SENDER].run(move || arrives(to, patience))
    }

    /// The closed pod is closed in both families.
    pub(crate) fn is_closed(&self) -> bool {
        (0..2).all(|family| !self.reaches(CLOSED, family))
    }

    /// A namespace of the sender, to work in.
    pub(crate) fn sender(&self) -> &Netns {
        &self.pods[&SENDER]
    }

    /// Repairs that were counted.
    pub(crate) fn repairs(&self) -> u32 {
        let metrics = self.world.metrics();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("weft_npc_drift_repairs_total "));
        count.expect("the metric").parse().expect("a number")
    }

    /// Notes of events that hold these words.
    pub(crate) fn notes(&self, words: &str) -> usize {
        let notes = self.world.api.notes.lock().expect("notes");
        notes.iter().filter(|note| note.contains(words)).count()
    }
}
