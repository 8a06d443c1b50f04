//! The whole process: a small API, a router that only lists, and the kernel of a namespace.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixListener,
    path::Path,
    process::Child,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use weft_socket::{
    AttachmentId, CallError, Endpoint, Endpoints, NpcRequest, NpcStatus, PodRef, Reply, call, code,
    encode,
};
use weft_testkit::{
    builders::{make_namespace, make_network_policy, make_pod},
    eventually::{eventually, eventually_eq},
    netns::Netns,
};

use crate::api::{Api, NAMESPACES, PODS, POLICIES};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    // The process ends before its namespace does.
    npc: Option<Child>,
    ns: Netns,
    dir: tempfile::TempDir,
    api: Api,
    attached: Arc<Mutex<Endpoints>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
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
        addresses: vec![format!("10.32.0.{n}").parse().expect("address")],
        host_ifname: format!("vethwepl{n}"),
    }
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

impl World {
    fn new() -> Self {
        let world = Self {
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
        let config = json!({"clusterId": "c", "generation": 1, "network": {}});
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:8080"}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        for (name, text) in [("node.json", config), ("kubeconfig", kubeconfig)] {
            std::fs::write(world.dir.path().join(name), text.to_string()).expect(name);
        }
        world
    }

    fn start(&mut self) {
        let npc = self.ns.spawn(&format!(
            "env KUBECONFIG={dir}/kubeconfig NODE_NAME=n1 {npc} run --config {dir}/node.json \
             --run-dir {dir} >>{dir}/log 2>&1",
            dir = self.dir.path().display(),
            npc = env!("CARGO_BIN_EXE_weft-npc"),
        ));
        self.npc = Some(npc);
    }

    fn kill(&mut self) {
        if let Some(mut npc) = self.npc.take() {
            // It may have ended by itself.
            let _ = npc.kill();
            let _ = npc.wait();
        }
    }

    fn start_router(&self) {
        let socket = self.dir.path().join("router.sock");
        router(&socket, Arc::clone(&self.attached));
    }

    fn ask<A: serde::de::DeserializeOwned>(&self, request: &NpcRequest) -> Result<A, CallError> {
        let socket = self.dir.path().join("npc.sock");
        call(&socket, request, Duration::from_secs(15))
    }

    fn status(&self) -> Result<NpcStatus, CallError> {
        self.ask(&NpcRequest::Status)
    }

    fn ready(&self) {
        let why = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        eventually(PATIENCE, || match self.status() {
            Ok(status) if status.ready => Ok(()),
            other => Err(format!("{other:?}\n{}", why())),
        });
    }

    /// Addresses that the kernel does not close.
    fn known(&self) -> Vec<String> {
        // The set or its twin.
        let listed = self
            .ns
            .sh("ipset save | sed -n 's/^add weft-npc-known-4[.b]* //p'");
        let mut addresses: Vec<String> = listed.lines().map(str::to_owned).collect();
        addresses.sort();
        addresses
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_pod_is_let_in_when_its_policy_is_in_force_and_stays_so_when_npc_dies() {
    let mut world = World::new();
    // Somebody's rules from before.
    world
        .ns
        .sh("iptables-nft -A FORWARD -s 10.9.0.0/16 -j DROP");
    world.start();
    // The router has not answered: nothing is written.
    eventually(PATIENCE, || {
        let reasons = world
            .status()
            .map_err(|e| e.to_string())?
            .reasons
            .join("; ");
        match reasons.starts_with("lists: the router's list of attachments has not arrived") {
            true => Ok(()),
            false => Err(reasons),
        }
    });
    assert_eq!(world.ns.sh("ipset list -n"), "");
    world.start_router();
    world.ready();
    assert_eq!(
        world.ns.sh("iptables-nft -S FORWARD"),
        "-P FORWARD ACCEPT\n-A FORWARD -j WEFT-NPC\n-A FORWARD -s 10.9.0.0/16 -j DROP"
    );
    assert_eq!(world.known(), ["10.32.0.1"]);

    // A pod that the API does not show yet is let in when it does.
    let api = world.api.clone();
    let late = std::thread::spawn(move || {
        api.add(
            PODS,
            &make_pod("default", "pod2").uid("uid2").node("n1").build(),
        );
    });
    world
        .ask::<Option<()>>(&NpcRequest::Pod(endpoint(2)))
        .expect("let in");
    late.join().expect("added");
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);
    world
        .attached
        .lock()
        .expect("attachments")
        .endpoints
        .push(endpoint(2));

    // Killed: the rules stay; started again: nothing changes.
    let rules = || {
        world
            .ns
            .sh("iptables-nft-save -t filter | grep -v '^#' | sed 's/\\[.*//'")
    };
    let before = rules();
    let socket = world.dir.path().join("npc.sock");
    world.kill();
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);
    std::fs::remove_file(socket).expect("socket of the dead");
    world.start();
    world.ready();
    let after = world
        .ns
        .sh("iptables-nft-save -t filter | grep -v '^#' | sed 's/\\[.*//'");
    assert_eq!(after, before);
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);

    world
        .ask::<Option<()>>(&NpcRequest::PodGone(endpoint(2).id))
        .expect("gone");
    eventually_eq(PATIENCE, &vec!["10.32.0.1".to_owned()], || world.known());

    // A UID that the API never shows.
    let refused = world.ask::<Option<()>>(&NpcRequest::Pod(endpoint(3)));
    let Err(CallError::Refused(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.code, code::TRY_AGAIN_LATER);
    assert_eq!(world.known(), ["10.32.0.1"]);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn policies_get_into_force_problems_become_events_and_drift_is_repaired() {
    let mut world = World::new();
    world.start_router();
    world.start();
    world.ready();
    let pod = make_pod("default", "pod2").uid("uid2").node("n1").build();
    world.api.add(PODS, &pod);
    world
        .ask::<Option<()>>(&NpcRequest::Pod(endpoint(2)))
        .expect("let in");
    let dump = || world.ask::<String>(&NpcRequest::Dump).expect("dump");
    assert!(!dump().contains("default/pod2"), "{}", dump());

    let mut policy =
        serde_json::to_value(make_network_policy("default", "odd").build()).expect("policy");
    policy["spec"] = json!({
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 80, "endPort": 70}]}],
    });
    world.api.add(POLICIES, &policy);
    eventually(PATIENCE, || {
        let rules = world.ns.sh("iptables-nft -S");
        if rules.contains("-d 10.32.0.2/32") {
            Ok(())
        } else {
            Err(rules)
        }
    });
    eventually(PATIENCE, || {
        let notes = world.api.notes.lock().expect("notes").clone();
        match notes.iter().any(|note| note.contains("endPort")) {
            true => Ok(()),
            false => Err(notes),
        }
    });

    world
        .ns
        .sh("iptables-nft -F && ipset flush weft-npc-known-4");
    eventually_eq(
        PATIENCE,
        &"-P FORWARD ACCEPT\n-A FORWARD -j WEFT-NPC".to_owned(),
        || world.ns.sh("iptables-nft -S FORWARD"),
    );
    let both = ["10.32.0.1", "10.32.0.2"].map(str::to_owned).to_vec();
    eventually_eq(PATIENCE, &both, || world.known());
    eventually(PATIENCE, || {
        let notes = world.api.notes.lock().expect("notes").clone();
        match notes
            .iter()
            .any(|note| note.contains("something else changed"))
        {
            true => Ok(()),
            false => Err(notes),
        }
    });
    let metrics = world.ns.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:6781").expect("metrics");
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            .expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        answer
    });
    assert!(
        metrics.contains("weft_npc_drift_repairs_total "),
        "{metrics}"
    );
}
