//! A node, its pods and its router, as far as the plugin sees them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, outside a test function, and not all of it is used by every test"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use serde_json::{Value, json};
use weft_socket::{
    AddReply, AttachmentId, ErrorReply, GcReply, Reply, RouterRequest, RouterStatus, code,
};
use weft_testkit::netns::Netns;

/// What the plugin answered.
pub(crate) enum Outcome {
    /// Exit status 0, and standard output (`null` if empty).
    Success(Value),
    /// Another status, and the error result.
    Failure(Value),
}

impl Outcome {
    #[track_caller]
    pub(crate) fn success(self) -> Value {
        match self {
            Self::Success(value) => value,
            Self::Failure(error) => panic!("failed: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn success_empty(self) {
        assert_eq!(self.success(), Value::Null);
    }

    #[track_caller]
    pub(crate) fn failure(self, code: u32) -> Value {
        match self {
            Self::Success(value) => panic!("succeeded: {value}"),
            Self::Failure(error) => {
                assert_eq!(error["code"], code, "{error}");
                error
            }
        }
    }
}

/// A sandbox.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) ns: Arc<Netns>,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ns: Arc::new(Netns::new()),
        }
    }

    /// Another container id on the same namespace.
    pub(crate) fn named(id: &str, other: &Self) -> Self {
        Self {
            id: id.to_owned(),
            ns: Arc::clone(&other.ns),
        }
    }

    pub(crate) fn env(&self) -> Vec<(String, String)> {
        [
            ("CNI_CONTAINERID", self.id.clone()),
            ("CNI_NETNS", self.ns.path()),
            ("CNI_IFNAME", "eth0".to_owned()),
            (
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=uid-{}",
                    self.id
                ),
            ),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .to_vec()
    }
}

/// A node with a bridge and a router.
pub(crate) struct Node {
    pub(crate) ns: Arc<Netns>,
    pub(crate) router: Router,
    pub(crate) dir: tempfile::TempDir,
    /// A copy of the plugin, which it may remove.
    pub(crate) plugin: PathBuf,
}

impl Node {
    pub(crate) fn new() -> Self {
        let ns = Arc::new(Netns::new());
        ns.sh(
            "ip link add weave address 0a:58:0a:20:00:01 type bridge forward_delay 0; \
             echo 0 > /proc/sys/net/ipv6/conf/weave/accept_dad; \
             ip addr add 10.32.0.1/12 dev weave; ip addr add fd00:10::1/64 dev weave nodad; \
             ip link set weave up",
        );
        let dir = tempfile::tempdir().unwrap();
        let plugin = dir.path().join("weft-cni");
        std::fs::copy(env!("CARGO_BIN_EXE_weft-cni"), &plugin).unwrap();
        let router = Router::new(&dir.path().join("router.sock"), Arc::clone(&ns));
        Self {
            ns,
            router,
            dir,
            plugin,
        }
    }

    pub(crate) fn conf(&self) -> Value {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        json!({
            "cniVersion": "1.1.0",
            "name": "weft",
            "type": "weft-cni",
            "routerSocket": path("router.sock"),
            "delDir": path("del"),
            "uninstalledMarker": path("weft/uninstalled"),
        })
    }

    pub(crate) fn add(&self, pod: &Pod) -> Outcome {
        self.call("ADD", pod.env(), &self.conf())
    }

    pub(crate) fn del(&self, pod: &Pod) -> Outcome {
        self.call("DEL", pod.env(), &self.conf())
    }

    pub(crate) fn check(&self, pod: &Pod, result: &Value) -> Outcome {
        let mut conf = self.conf();
        conf["prevResult"] = result.clone();
        self.call("CHECK", pod.env(), &conf)
    }

    /// Runs the plugin on the node.
    #[allow(clippy::disallowed_methods, reason = "the test starts the plugin")]
    pub(crate) fn call(&self, verb: &str, env: Vec<(String, String)>, conf: &Value) -> Outcome {
        let (plugin, verb, conf) = (self.plugin.clone(), verb.to_owned(), conf.to_string());
        // Spawned on the namespace's thread, waited for here: calls of one node run side by side.
        let mut child = self.ns.run(move || {
            Command::new(plugin)
                .env_clear()
                .env("CNI_COMMAND", verb)
                .envs(env)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        child
            .stdin
            .take()
            .unwrap()
            .write_all(conf.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let value = if stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout:?}"))
        };
        if output.status.success() {
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
            Outcome::Success(value)
        } else {
            assert!(!output.stderr.is_empty(), "an error is logged");
            Outcome::Failure(value)
        }
    }

    /// One property of a link, as `ip -j link` names it.
    pub(crate) fn link(&self, name: &str, property: &str) -> Value {
        let text = self.ns.sh(&format!("ip -j link show {name}"));
        let links: Value = serde_json::from_str(&text).unwrap();
        links[0][property].clone()
    }

    /// Host ends on the node.
    pub(crate) fn pod_links(&self) -> String {
        self.ns
            .sh("ip -o link show | grep -o 'vethwepl[^@:]*' | sort || true")
    }
}

#[derive(Default)]
struct State {
    held: BTreeMap<AttachmentId, u8>,
    next: u8,
    log: Vec<String>,
    refuse_enforce: bool,
    not_ready: bool,
    /// Generation of the listener that serves; others stop.
    stopped: bool,
}

/// A router that keeps everything in memory.
pub(crate) struct Router {
    socket: PathBuf,
    ns: Arc<Netns>,
    state: Arc<Mutex<State>>,
}

impl Router {
    fn new(socket: &Path, ns: Arc<Netns>) -> Self {
        let mut router = Self {
            socket: socket.to_owned(),
            ns,
            state: Arc::default(),
        };
        router.start();
        router
    }

    /// Listens.
    pub(crate) fn start(&mut self) {
        self.lock().stopped = false;
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (state, ns) = (Arc::clone(&self.state), Arc::clone(&self.ns));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if state.lock().unwrap().stopped {
                    return;
                }
                let (state, ns) = (Arc::clone(&state), Arc::clone(&ns));
                thread::spawn(move || serve(&stream.unwrap(), &state, &ns));
            }
        });
    }

    /// Stops listening.
    pub(crate) fn stop(&mut self) {
        self.lock().stopped = true;
        // Wakes the listener, which then ends.
        let _ = UnixStream::connect(&self.socket);
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub(crate) fn refuse_enforce(&self, refuse: bool) {
        self.lock().refuse_enforce = refuse;
    }

    pub(crate) fn ready(&self, ready: bool) {
        self.lock().not_ready = !ready;
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    pub(crate) fn held(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn serve(mut stream: &UnixStream, state: &Mutex<State>, ns: &Netns) {
    let mut line = Vec::new();
    BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
    if line.is_empty() {
        return;
    }
    let answer = answer(weft_socket::decode(&line).unwrap(), state, ns);
    let reply = match answer {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(error),
    };
    stream
        .write_all(&weft_socket::encode(&reply).unwrap())
        .unwrap();
}

fn answer(request: RouterRequest, state: &Mutex<State>, ns: &Netns) -> Result<Value, ErrorReply> {
    let unknown = || ErrorReply {
        code: code::UNKNOWN_CONTAINER,
        msg: "no such attachment".into(),
        details: String::new(),
    };
    let value = |reply: AddReply| serde_json::to_value(reply).unwrap();
    match request {
        RouterRequest::Add(add) => {
            if !add.pod.name.is_empty() {
                assert_eq!(add.pod.uid, format!("uid-{}", add.id.container_id));
            }
            let mut state = state.lock().unwrap();
            state.log.push(format!("add {}", add.id.container_id));
            let n = match state.held.get(&add.id) {
                Some(n) => *n,
                None => {
                    state.next += 1;
                    state.next - 1
                }
            };
            state.held.insert(add.id.clone(), n);
            Ok(value(reply(&add.id, n)))
        }
        RouterRequest::Enforce(id) => {
            let n = *state.lock().unwrap().held.get(&id).ok_or_else(unknown)?;
            let reply = reply(&id, n);
            // As the router does: ports neither learn nor flood.
            ns.sh(&format!(
                "bridge fdb replace {} dev {} master static",
                reply.mac, reply.host_ifname
            ));
            let up = ns.sh(&format!("ip -o link show up dev {}", reply.host_ifname));
            let mut state = state.lock().unwrap();
            let now = if up.is_empty() { "down" } else { "up" };
            state.log.push(format!("enforce {} {now}", id.container_id));
            if state.refuse_enforce {
                return Err(ErrorReply {
                    code: code::TRY_AGAIN_LATER,
                    msg: "policy is not in the kernel yet".into(),
                    details: String::new(),
                });
            }
            Ok(value(reply))
        }
        RouterRequest::Del(id) => {
            state.lock().unwrap().held.remove(&id);
            Ok(Value::Null)
        }
        RouterRequest::Check(id) => {
            let n = *state.lock().unwrap().held.get(&id).ok_or_else(unknown)?;
            Ok(value(reply(&id, n)))
        }
        RouterRequest::Gc(gc) => {
            let mut state = state.lock().unwrap();
            let names: Vec<_> = gc.valid.iter().map(|a| a.container_id.as_str()).collect();
            state.log.push(format!("gc [{}]", names.join(" ")));
            state.held.retain(|id, _| gc.valid.contains(id));
            Ok(serde_json::to_value(GcReply::default()).unwrap())
        }
        RouterRequest::Status => {
            let ready = !state.lock().unwrap().not_ready;
            let reasons = if ready {
                vec![]
            } else {
                vec!["no confirmed block".to_owned()]
            };
            Ok(serde_json::to_value(RouterStatus {
                ready,
                reasons,
                version: "test".into(),
            })
            .unwrap())
        }
        other => panic!("the plugin asked {other:?}"),
    }
}

fn reply(id: &AttachmentId, n: u8) -> AddReply {
    let host = 10 + n;
    let seven: String = id.container_id.chars().take(7).collect();
    AddReply {
        addresses: vec![
            format!("10.32.0.{host}/12").parse().unwrap(),
            format!("fd00:10::{host}/64").parse().unwrap(),
        ],
        gateways: vec![
            IpAddr::V4(Ipv4Addr::new(10, 32, 0, 1)),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 1)),
        ],
        on_link: vec!["10.96.0.0/24".parse().unwrap()],
        mac: format!("0a:58:0a:20:00:{host:02x}"),
        mtu: 1400,
        host_ifname: match id.ifname.as_str() {
            "eth0" => format!("vethwepl{seven}"),
            other => format!("vethwepl{other}"),
        },
        host_ifalias: match id.ifname.as_str() {
            "eth0" => format!("weft/cluster-1/{}", id.container_id),
            other => format!("weft/cluster-1/{}/{other}", id.container_id),
        },
        bridge: "weave".into(),
    }
}
