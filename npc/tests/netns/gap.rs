//! Never a gap: while npc is killed and started, lists everything again, and gets policies that say
//! the same in other words, no packet that is allowed is lost, and none passes that is forbidden.
//!
//! Pod 2 lets pod 3 in and nobody else. Pod 3 sends numbered datagrams at a steady pace, of a flow
//! that is answered (conntrack knows it) and of one that never is (each datagram is judged anew), and
//! opens connections; pod 4 sends and opens the same and must not get through. Both ends are in one
//! kernel, so a datagram that was not dropped is in the receiver's queue when the send returns.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weft_testkit::{
    builders::make_pod,
    eventually::{eventually, eventually_eq},
    netns::Netns,
};

use crate::{
    api::{PODS, POLICIES},
    world::{Backend, PATIENCE, World, arrives, endpoint},
};

/// How often npc is killed.
const RESTARTS: usize = 20;
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

/// What the receiver got, by port and sender.
#[derive(Default)]
struct Received {
    answered: AtomicU32,
    unanswered: AtomicU32,
    forbidden: AtomicU32,
}

/// Receives datagrams, for ever.
fn receive(pod: &Netns, received: &Arc<Received>) {
    for port in [ANSWERED, UNANSWERED] {
        let received = Arc::clone(received);
        pod.run(move || {
            let socket = UdpSocket::bind(("0.0.0.0", port)).expect("bound");
            std::thread::spawn(move || {
                let mut buffer = [0; 16];
                loop {
                    let (n, from) = socket.recv_from(&mut buffer).expect("received");
                    let count = match (from, port) {
                        (SocketAddr::V4(from), _) if from.ip().octets()[3] != 3 => {
                            &received.forbidden
                        }
                        (_, ANSWERED) => &received.answered,
                        _ => &received.unanswered,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    if port == ANSWERED {
                        socket.send_to(&buffer[..n], from).expect("answered");
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

/// Sends at a steady pace until told to stop; how many.
fn send(pod: &Netns, port: u16, stop: &Stop) -> JoinHandle<u32> {
    let stop = Arc::clone(stop);
    pod.run(move || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).expect("bound");
        socket.connect(("10.32.0.2", port)).expect("a route");
        std::thread::spawn(move || {
            let mut sent = 0_u32;
            let mut due = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                socket.send(&sent.to_be_bytes()).expect("sent");
                sent += 1;
                due += PACE;
                pause(due);
            }
            sent
        })
    })
}

#[allow(clippy::disallowed_methods, reason = "a steady pace is what is sent")]
fn pause(until: Instant) {
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
}

/// Opens connections until told to stop: how many, and how many got there.
fn open(pod: &Netns, milliseconds: u64, stop: &Stop) -> JoinHandle<(u32, u32)> {
    let stop = Arc::clone(stop);
    pod.run(move || {
        std::thread::spawn(move || {
            let (mut opened, mut arrived) = (0, 0);
            let mut due = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                opened += 1;
                // Less than the second after which a lost SYN is sent again.
                arrived += u32::from(arrives(2, milliseconds));
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
    let pods = world.bridge(&[2, 3, 4]);
    let (server, client, stranger) = (&pods[0], &pods[1], &pods[2]);
    world.start_router();
    world.attached.lock().expect("attachments").endpoints = [2, 3, 4].map(endpoint).into();
    for n in [2, 3, 4] {
        let pod = make_pod("default", &format!("pod{n}")).uid(&format!("uid{n}"));
        let pod = pod
            .label("app", &format!("pod{n}"))
            .address(&format!("10.32.0.{n}"));
        world.api.add(PODS, &pod.node("n1").build());
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
    let allowed = [ANSWERED, UNANSWERED].map(|port| send(client, port, &stop));
    let forbidden = [ANSWERED, UNANSWERED].map(|port| send(stranger, port, &stop));
    let opened = open(client, 900, &stop);
    let refused: Vec<_> = (0..4).map(|_| open(stranger, 20, &stop)).collect();

    let mut said = wordings[0].clone();
    for round in 0..RESTARTS {
        world.kill_and_start();
        let lists = listed(&world);
        world.api.expire();
        eventually(PATIENCE, || match listed(&world) {
            // Pods, namespaces and policies.
            seen if seen >= lists + 3 => Ok(()),
            seen => Err(format!("{seen} lists after {lists}")),
        });
        let next = &wordings[(round + 1) % wordings.len()];
        reword(&world, &said, next);
        said = next.clone();
    }
    stop.store(true, Ordering::Relaxed);

    let [answered, unanswered] = allowed.map(|sender| sender.join().expect("sent"));
    let counts =
        || [&received.answered, &received.unanswered].map(|count| count.load(Ordering::Relaxed));
    eventually_eq(PATIENCE, &[answered, unanswered], counts);
    let forbidden = forbidden.map(|sender| sender.join().expect("sent"));
    assert!(forbidden.iter().chain(&counts()).all(|count| *count > 500));
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
