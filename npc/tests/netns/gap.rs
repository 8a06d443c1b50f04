//! Never a gap: while npc is killed and started, lists everything again, and gets policies that say
//! the same in other words, no packet that is allowed is lost, and none passes that is forbidden.
//!
//! Pod 2 lets pod 3 in and nobody else. Pod 3 sends numbered datagrams at a steady pace, of a flow
//! that is answered (conntrack knows it) and of one that never is (each datagram is judged anew), and
//! opens connections; pod 4 sends and opens the same and must not get through. Both ends are in one
//! kernel, so a datagram that was not dropped is in the receiver's queue when the send returns.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weft_testkit::{eventually::eventually, netns::Netns};

use crate::{
    api::{PODS, POLICIES},
    pace::{pause, receiver},
    world::{Backend, PATIENCE, World, arrives, endpoint, pod},
};

/// How often npc is killed.
const RESTARTS: usize = 20;
/// Datagrams of a flow, at least: on a machine that is quick with the restarts too.
const MANY: usize = 2000;
/// Between datagrams.
const PACE: Duration = Duration::from_millis(2);
/// Datagrams that are answered, that are not, that are forbidden: a port for each.
const ANSWERED: u16 = 53;
const UNANSWERED: u16 = 54;
/// Somebody listens here; connections to port 80 are answered by a reset.
const STREAM: u16 = 81;

/// The policy in other words; the last is the first under another name.
fn wordings() -> Vec<Value> {
    let client = json!({"podSelector": {"matchLabels": {"app": "pod3"}}});
    let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
    let udp = |port: u16| json!({"protocol": "UDP", "port": port});
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let policy = |name: &str, ingress: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": name, "uid": name},
            "spec": {
                "podSelector": {"matchLabels": {"app": "pod2"}},
                "policyTypes": ["Ingress"],
                "ingress": ingress,
            },
        })
    };
    let connections = json!({"from": [client], "ports": [tcp(80), tcp(STREAM)]});
    let datagrams = |from: Value| json!({"from": from, "ports": [udp(ANSWERED), udp(UNANSWERED)]});
    let whole = datagrams(json!([block("10.32.0.0/29", &["10.32.0.4/30"])]));
    let split = datagrams(json!([
        block("10.32.0.0/31", &[]),
        block("10.32.0.2/31", &[])
    ]));
    let first = json!([connections, whole]);
    vec![
        policy("p", first.clone()),
        policy(
            "p",
            json!([whole, {"from": [client], "ports": [tcp(STREAM), tcp(80)]}]),
        ),
        policy("p", json!([connections, split])),
        policy(
            "p",
            json!([
                {"from": [client], "ports": [tcp(80)]},
                {"from": [client], "ports": [tcp(STREAM)]},
                {"from": [block("10.32.0.3/32", &[])], "ports": [udp(ANSWERED)]},
                whole,
            ]),
        ),
        policy("q", first),
    ]
}

/// What the receiver got, by port and sender: numbers, or how many.
#[derive(Default)]
struct Received {
    answered: Mutex<BTreeSet<u32>>,
    unanswered: Mutex<BTreeSet<u32>>,
    forbidden: AtomicU32,
}

/// Receives datagrams, for ever.
fn receive(pod: &Netns, received: &Arc<Received>) {
    for port in [ANSWERED, UNANSWERED] {
        let received = Arc::clone(received);
        pod.run(move || {
            let socket = receiver(("0.0.0.0", port));
            std::thread::spawn(move || {
                let mut number = [0; 4];
                loop {
                    let (_, from) = socket.recv_from(&mut number).expect("received");
                    let numbers = match (from, port) {
                        (SocketAddr::V4(from), _) if from.ip().octets()[3] != 3 => {
                            received.forbidden.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        (_, ANSWERED) => &received.answered,
                        _ => &received.unanswered,
                    };
                    let mut numbers = numbers.lock().expect("numbers");
                    numbers.insert(u32::from_be_bytes(number));
                    if port == ANSWERED {
                        socket.send_to(&number, from).expect("answered");
                    }
                }
            });
        });
    }
}

/// Answers what comes on one connection, for ever.
fn serve(pod: &Netns) {
    pod.run(|| {
        let listener = TcpListener::bind(("0.0.0.0", STREAM)).expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut buffer = [0; 16];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                stream.write_all(&buffer[..n]).expect("answered");
            }
        });
    });
}

/// Says when to stop.
type Stop = Arc<AtomicBool>;

/// Who sends datagrams.
struct Sender {
    /// When each was sent; its number is its place.
    times: Arc<Mutex<Vec<Instant>>>,
    thread: JoinHandle<()>,
}

impl Sender {
    /// Sends at a steady pace until told to stop.
    fn new(pod: &Netns, port: u16, stop: &Stop) -> Self {
        let stop = Arc::clone(stop);
        let times = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::clone(&times);
        let thread = pod.run(move || {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("bound");
            socket.connect(("10.32.0.2", port)).expect("a route");
            std::thread::spawn(move || {
                let mut due = Instant::now();
                for number in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    sent.lock().expect("times").push(Instant::now());
                    socket.send(&number.to_be_bytes()).expect("sent");
                    // What was due while it had no processor is left out: no bursts.
                    due = Instant::now().max(due + PACE);
                    pause(due);
                }
            })
        });
        Self { times, thread }
    }

    fn sent(&self) -> usize {
        self.times.lock().expect("times").len()
    }

    /// When it has stopped: when each was sent.
    fn end(self) -> Vec<Instant> {
        self.thread.join().expect("sent");
        let mut times = self.times.lock().expect("times");
        std::mem::take(&mut *times)
    }
}

/// What was done to npc, and when it began.
type Deeds = Vec<(Instant, String)>;

/// The numbers that did not come, and how long after which deed they were sent.
fn lost(sent: &[Instant], received: &Mutex<BTreeSet<u32>>, deeds: &Deeds) -> Vec<String> {
    let received = received.lock().expect("numbers");
    let all = (0_u32..).zip(sent);
    let lost = all.filter(|(number, _)| !received.contains(number));
    lost.map(|(number, at)| {
        let before = deeds.iter().rfind(|(begun, _)| begun <= at);
        let deed = before.map(|(begun, deed)| format!("{:?} after {deed}", *at - *begun));
        format!("{number} of {}: {deed:?}", sent.len())
    })
    .collect()
}

/// Opens connections until told to stop: how many, and how many got there.
fn open(pod: &Netns, milliseconds: u64, stop: &Stop) -> JoinHandle<(u32, u32)> {
    let stop = Arc::clone(stop);
    pod.run(move || {
        std::thread::spawn(move || {
            let patience = Duration::from_millis(milliseconds);
            let (mut opened, mut arrived) = (0, 0);
            let mut due = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                opened += 1;
                // Less than the second after which a lost SYN is sent again.
                arrived += u32::from(arrives([10, 32, 0, 2].into(), patience));
                due = Instant::now().max(due + PACE);
                pause(due);
            }
            (opened, arrived)
        })
    })
}

/// Talks on one connection until told to stop: how many words, and the longest time one took.
fn talk(pod: &Netns, stop: &Stop) -> JoinHandle<(u32, Duration)> {
    let stop = Arc::clone(stop);
    pod.run(move || {
        let mut stream = TcpStream::connect(("10.32.0.2", STREAM)).expect("connected");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        std::thread::spawn(move || {
            let (mut words, mut longest) = (0_u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                let mut word = words.to_be_bytes();
                stream.write_all(&word).expect("the flow lives");
                stream.read_exact(&mut word).expect("the flow is answered");
                assert_eq!(word, words.to_be_bytes());
                longest = longest.max(start.elapsed());
                words += 1;
                pause(start + PACE);
            }
            (words, longest)
        })
    })
}

fn listed(world: &World) -> u32 {
    world.api.lists.load(Ordering::Relaxed)
}

/// Something happens, and the rules in the kernel change.
fn takes_effect(world: &World, happens: impl FnOnce()) {
    let rules = world.rules();
    happens();
    eventually(PATIENCE, || match world.rules() {
        seen if seen == rules => Err(seen),
        _ => Ok(()),
    });
}

/// The next wording is in force.
fn reword(world: &World, before: &Value, after: &Value) {
    if before["metadata"]["name"] == after["metadata"]["name"] {
        takes_effect(world, || world.api.change(POLICIES, after));
    } else {
        // Never without either.
        takes_effect(world, || world.api.add(POLICIES, after));
        takes_effect(world, || world.api.remove(POLICIES, before));
    }
}

fn no_gap(backend: Backend) {
    let mut world = World::new(backend);
    let pods = world.bridge_with(&[2, 3, 4]);
    let (server, client, stranger) = (&pods[0], &pods[1], &pods[2]);
    world.start_router();
    world.attached.lock().expect("attachments").endpoints = [2, 3, 4].map(endpoint).into();
    for n in [2, 3, 4] {
        let pod = pod(n).address(&format!("10.32.0.{n}"));
        world.api.add(PODS, &pod.build());
    }
    let wordings = wordings();
    world.api.add(POLICIES, &wordings[0]);
    world.start();
    world.ready();

    let received = Arc::new(Received::default());
    receive(server, &received);
    serve(server);
    let stop = Stop::default();
    let stream = talk(client, &stop);
    let allowed = [ANSWERED, UNANSWERED].map(|port| Sender::new(client, port, &stop));
    let forbidden = [ANSWERED, UNANSWERED].map(|port| Sender::new(stranger, port, &stop));
    let opened = open(client, 900, &stop);
    let refused: Vec<_> = (0..4).map(|_| open(stranger, 20, &stop)).collect();

    let mut said = wordings[0].clone();
    let mut deeds = Deeds::new();
    for round in 0..RESTARTS {
        let mut begin = |deed: &str| deeds.push((Instant::now(), format!("{deed} {round}")));
        begin("restart");
        world.kill_and_start();
        begin("relist");
        let lists = listed(&world);
        world.api.expire();
        eventually(PATIENCE, || match listed(&world) {
            // Pods, namespaces and policies.
            seen if seen >= lists + 3 => Ok(()),
            seen => Err(format!("{seen} lists after {lists}")),
        });
        begin("rewording");
        let next = &wordings[(round + 1) % wordings.len()];
        reword(&world, &said, next);
        said = next.clone();
    }
    for sender in allowed.iter().chain(&forbidden) {
        eventually(PATIENCE, || match sender.sent() {
            sent if sent > MANY => Ok(()),
            sent => Err(sent),
        });
    }
    stop.store(true, Ordering::Relaxed);

    let allowed = allowed.map(Sender::end);
    for (sent, received) in allowed
        .iter()
        .zip([&received.answered, &received.unanswered])
    {
        eventually(PATIENCE, || match lost(sent, received, &deeds) {
            lost if lost.is_empty() => Ok(()),
            lost => Err(lost),
        });
    }
    let [answered, unanswered] = allowed.map(|sent| sent.len());
    let forbidden = forbidden.map(|sender| sender.end().len());
    assert_eq!(
        received.forbidden.load(Ordering::Relaxed),
        0,
        "of {forbidden:?}"
    );
    let (words, longest) = stream.join().expect("the flow lives");
    let (opened, arrived) = opened.join().expect("opened");
    assert_eq!(arrived, opened);
    assert!(
        words > 500 && opened > 100,
        "{words} words, {opened} connections"
    );
    let mut tries = 0;
    for refused in refused {
        let (opened, arrived) = refused.join().expect("opened");
        assert_eq!(arrived, 0, "of {opened}");
        tries += opened;
    }
    println!(
        "{backend:?}: {RESTARTS} restarts, relists and rewordings; {answered} + {unanswered} \
         datagrams and {opened} connections allowed, 0 lost; longest word {longest:?} of {words}; \
         {forbidden:?} datagrams and {tries} connections forbidden, 0 passed"
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn restarts_relists_and_other_words_lose_and_pass_nothing_with_iptables() {
    no_gap(Backend::Iptables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn restarts_relists_and_other_words_lose_and_pass_nothing_with_nftables() {
    no_gap(Backend::Nftables);
}
