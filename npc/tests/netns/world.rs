//! The whole process: a small API, a router that only lists, and the kernel of a namespace.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixListener,
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use weft_socket::{
    AttachmentId, CallError, Endpoint, Endpoints, NpcRequest, NpcStatus, PodRef, Reply, call,
    encode,
};
use weft_testkit::{
    builders::{PodBuilder, make_namespace, make_network_policy, make_pod},
    eventually::eventually,
    netns::Netns,
};

use crate::api::{Api, NAMESPACES, PODS, POLICIES};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    backend: Backend,
    /// Replaces the section `policy` of the configuration.
    pub(crate) policy: Option<serde_json::Value>,
    // The process ends before its namespace does.
    npc: Option<Child>,
    pub(crate) ns: Netns,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) api: Api,
    pub(crate) attached: Arc<Mutex<Endpoints>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn endpoint(n: u8) -> Endpoint {
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
        addresses: vec![format!("10.32.0.{n}").parse().expect("address")],
        host_ifname: format!("vethwepl{n}"),
    }
}

/// Pod `n` of this node, labelled `app=pod<n>`.
pub(crate) fn pod(n: u8) -> PodBuilder {
    let name = format!("pod{n}");
    let pod = make_pod("default", &name).uid(&format!("uid{n}"));
    pod.label("app", &name).node("n1")
}

/// Answers every question with the list of attachments.
fn router(path: &Path, attached: Arc<Mutex<Endpoints>>) {
    let listener = UnixListener::bind(path).expect("router.sock");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connection");
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("stream"));
            reader.read_line(&mut line).expect("request");
            let answer = attached.lock().expect("attachments").clone();
            let answer = encode(&Reply::Ok(answer)).expect("answer");
            // npc may have been killed meanwhile.
            let _ = stream.write_all(&answer);
        }
    });
}

/// Where npc keeps its rules, and how to look at them there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Iptables,
    Nftables,
}

impl World {
    /// With this section `policy` of the configuration.
    pub(crate) fn with(policy: &serde_json::Value) -> Self {
        let backend = match policy["backend"].as_str() {
            Some("Nftables") => Backend::Nftables,
            _ => Backend::Iptables,
        };
        let mut world = Self::new(backend);
        world.policy = Some(policy.clone());
        world
    }

    pub(crate) fn new(backend: Backend) -> Self {
        let world = Self {
            backend,
            policy: None,
            npc: None,
            ns: Netns::new(),
            dir: tempfile::tempdir().expect("directory"),
            api: Api::new(),
            attached: Arc::new(Mutex::new(Endpoints {
                endpoints: Vec::new(),
                blocks: vec!["10.32.0.0/26".parse().expect("net")],
                gateways: vec!["10.32.0.1".parse().expect("address")],
            })),
        };
        world.api.add(NAMESPACES, &make_namespace("default", &[]));
        let api = world.api.clone();
        world.ns.run(move || {
            std::thread::spawn(move || api.serve());
        });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:8080"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(world.dir.path().join("kubeconfig"), kubeconfig.to_string())
            .expect("kubeconfig");
        world
    }

    pub(crate) fn start(&mut self) {
        let backend = json!({"backend": format!("{:?}", self.backend)});
        let policy = self.policy.clone().unwrap_or(backend);
        let config = json!({"clusterId": "c", "generation": 1, "network": {"policy": policy}});
        std::fs::write(self.dir.path().join("node.json"), config.to_string()).expect("node.json");
        let npc = self.ns.spawn(&format!(
            "env KUBECONFIG={dir}/kubeconfig NODE_NAME=n1 WEFT_LOG_FORMAT=json {npc} run --config {dir}/node.json \
             --run-dir {dir} --state-dir {dir}/state >>{dir}/log 2>&1",
            dir = self.dir.path().display(),
            npc = env!("CARGO_BIN_EXE_weft-npc"),
        ));
        self.npc = Some(npc);
    }

    /// Killed and started again with this section `policy` of the configuration.
    pub(crate) fn restart(&mut self, policy: &serde_json::Value) {
        self.policy = Some(policy.clone());
        self.kill_and_start();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut npc) = self.npc.take() {
            // It may have ended by itself.
            let _ = npc.kill();
            let _ = npc.wait();
        }
    }

    pub(crate) fn start_router(&self) {
        let socket = self.dir.path().join("router.sock");
        router(&socket, Arc::clone(&self.attached));
    }

    pub(crate) fn ask<A: serde::de::DeserializeOwned>(
        &self,
        request: &NpcRequest,
    ) -> Result<A, CallError> {
        let socket = self.dir.path().join("npc.sock");
        call(&socket, request, Duration::from_secs(15))
    }

    pub(crate) fn status(&self) -> Result<NpcStatus, CallError> {
        self.ask(&NpcRequest::Status)
    }

    pub(crate) fn ready(&self) {
        let why = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        eventually(PATIENCE, || match self.status() {
            Ok(status) if status.ready => Ok(()),
            other => Err(format!("{other:?}\n{}", why())),
        });
    }

    /// Killed, if it runs, and started again; ready. (The socket of the dead is npc's to replace.)
    pub(crate) fn kill_and_start(&mut self) {
        self.kill();
        self.start();
        self.ready();
    }

    /// The router lists it from now on.
    pub(crate) fn attach(&self, endpoint: Endpoint) {
        let mut attached = self.attached.lock().expect("attachments");
        attached.endpoints.push(endpoint);
    }

    /// A policy that lets nobody in to pod `n`.
    pub(crate) fn close(&self, n: u8) {
        let closed = make_network_policy("default", "closed");
        let closed = closed.selects(&[("app", &format!("pod{n}"))]).build();
        self.api.add(POLICIES, &closed);
    }

    /// The bridge of the pods, with IPv4 alone.
    pub(crate) fn bridge(&self) {
        self.ns
            .sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0 && \
             ip link add weave type bridge nf_call_iptables 1 && ip link set weave up && \
             ip addr add 10.32.0.1/12 dev weave");
    }

    /// A namespace whose `eth0`, still down, is `device` at the bridge.
    pub(crate) fn port(&self, device: &str) -> Netns {
        let ns = Netns::new();
        self.ns.sh(&format!(
            "ip link add {device} master weave type veth peer name eth0 netns {} && \
             ip link set {device} up",
            ns.name()
        ));
        ns
    }

    /// A namespace that is pod `n`, with IPv4 alone.
    pub(crate) fn wire(&self, n: u8) -> Netns {
        let ns = self.port(&format!("vethwepl{n}"));
        ns.sh(&format!(
            "ip link set eth0 up && ip addr add 10.32.0.{n}/12 dev eth0"
        ));
        ns
    }

    /// The bridge with these pods. Pod 2 is one of them, and the last one reaches it: nothing is
    /// enforced.
    pub(crate) fn bridge_with(&self, pods: &[u8]) -> Vec<Netns> {
        self.bridge();
        let pods: Vec<Netns> = pods.iter().map(|n| self.wire(*n)).collect();
        // The control: nothing judges yet. A port that has just come up may miss the first question
        // for an address.
        let last = pods.last().expect("a pod");
        eventually(PATIENCE, || {
            match last.run(|| arrives([10, 32, 0, 2].into(), Duration::from_secs(2))) {
                true => Ok(()),
                false => Err("pod 2 does not answer"),
            }
        });
        pods
    }

    pub(crate) fn metrics(&self) -> String {
        self.ns.run(|| {
            let mut stream = TcpStream::connect("127.0.0.1:6781").expect("metrics");
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
                .expect("request");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answer");
            answer
        })
    }

    /// The lines of its log from a target.
    pub(crate) fn log(&self, target: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &serde_json::Value| line["target"] == target)
            .collect()
    }

    /// A pod of this node comes: the API shows it and npc lets it in.
    pub(crate) fn come(&self, n: u8) {
        self.api.add(PODS, &pod(n).build());
        self.ask::<Option<()>>(&NpcRequest::Pod(endpoint(n)))
            .expect("let in");
    }

    /// Addresses that the kernel does not close.
    pub(crate) fn known(&self) -> Vec<String> {
        let listed = self.ns.sh(match self.backend {
            // The set or its twin.
            Backend::Iptables => "ipset save | sed -n 's/^add weft-npc-known-4[.b]* //p'",
            Backend::Nftables => {
                "nft list set inet weft weft-npc-known-4 | tr -d '\\n\\t' | \
                 sed -n 's/.*elements = {//; s/}.*//; s/, */\\n/gp; s/^/ /p' | sort -u"
            }
        });
        let mut addresses: Vec<String> = listed
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty() && !line.contains([' ', ',']))
            .collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// All rules, without counters, and without telling a set from its twin.
    pub(crate) fn rules(&self) -> String {
        self.ns.sh(match self.backend {
            Backend::Iptables => {
                "iptables-nft-save -t filter | grep -v '^#' | sed 's/\\[.*//; s/\\.b / /g'"
            }
            Backend::Nftables => "nft -n list table inet weft; nft -n list table bridge weft-npc",
        })
    }

    /// Can [`World::rules`] and [`World::known`] be asked for?
    pub(crate) fn has_rules(&self) -> bool {
        self.ns
            .sh(match self.backend {
                Backend::Iptables => "ipset list -n",
                Backend::Nftables => "nft list tables",
            })
            .contains("weft")
    }
}

/// Whether a connection gets there. Nobody listens: what arrives is answered by a reset.
pub(crate) fn arrives(to: IpAddr, patience: Duration) -> bool {
    let result = TcpStream::connect_timeout(&SocketAddr::new(to, 80), patience);
    !matches!(result, Err(error) if error.kind() == ErrorKind::TimedOut)
}
