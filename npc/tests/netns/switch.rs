//! From one interface of the kernel to another, under fire: 500 datagrams a second to a pod that
//! nobody may reach and 500 to one that everybody may, each a flow of its own, in both families.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weft_testkit::{eventually::eventually, netns::Netns};

use crate::{
    api::PODS,
    dual::{addresses, endpoint},
    pace::{pause, receiver},
    world::{PATIENCE, World, pod},
};

/// Nobody may reach it.
const CLOSED: u8 = 2;
/// Everybody may.
const OPEN: u8 = 3;
const SENDER: u8 = 4;
/// Between two rounds of one datagram to each pod in each family.
const ROUND: Duration = Duration::from_millis(4);
const PORT: u16 = 80;

/// A node with the three pods.
struct Node {
    world: World,
    sender: Netns,
    receivers: [(u8, Netns); 2],
}

/// Pod `n` is there, for everybody.
fn come(world: &World, n: u8) -> Netns {
    world.attach(endpoint(n));
    world.api.add(PODS, &pod(n).build());
    world.dual_wire(n)
}

impl Node {
    fn new(policy: &Value) -> Self {
        let world = World::with(policy);
        world.dual_bridge();
        world.close(CLOSED);
        Self {
            receivers: [CLOSED, OPEN].map(|n| (n, come(&world, n))),
            sender: come(&world, SENDER),
            world,
        }
    }

    /// Sends until told to stop.
    fn fire(&self) -> Fire {
        let stop = Arc::new(AtomicBool::new(false));
        let receivers = self.receivers.iter().flat_map(|(n, ns)| {
            let stop = &stop;
            addresses(*n).map(move |address| {
                let stop = Arc::clone(stop);
                ns.run(move || {
                    // Bound before anything is sent.
                    let socket = receiver((address, PORT));
                    (
                        address,
                        std::thread::spawn(move || received(&socket, &stop)),
                    )
                })
            })
        });
        let receivers = receivers.collect();
        let (stopped, rounds) = (Arc::clone(&stop), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&rounds);
        let sender = self
            .sender
            .run(move || std::thread::spawn(move || send_until(&stopped, &counted)));
        Fire {
            stop,
            rounds,
            receivers,
            sender,
        }
    }

    /// Starts npc anew with this section `policy`, and kills it as soon as the interface of the
    /// kernel that it names holds rules.
    fn begin_and_die(&mut self, policy: &Value, holder: &str) {
        self.world.kill();
        self.world.policy = Some(policy.clone());
        self.world.start();
        eventually(PATIENCE, || {
            let held = held(&self.world);
            if held.contains(&holder) {
                Ok(())
            } else {
                Err(held)
            }
        });
        self.world.kill();
    }
}

/// Numbers of the datagrams that came.
fn received(socket: &UdpSocket, stop: &AtomicBool) -> BTreeSet<u32> {
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("timeout");
    let (mut numbers, mut buffer) = (BTreeSet::new(), [0; 4]);
    loop {
        if socket.recv(&mut buffer).is_ok() {
            numbers.insert(u32::from_be_bytes(buffer));
        } else if stop.load(Ordering::Relaxed) {
            return numbers;
        }
    }
}

/// One datagram to each pod and family per round, each from a port of its own. Counts the rounds.
fn send_until(stop: &AtomicBool, rounds: &AtomicU32) {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        for n in [CLOSED, OPEN] {
            for (from, to) in addresses(SENDER).into_iter().zip(addresses(n)) {
                let port = 10_000 + u16::try_from(round % 20_000).expect("small");
                let port = port + if n == OPEN { 20_000 } else { 0 };
                let socket = UdpSocket::bind((from, port)).expect("bound");
                let to = SocketAddr::new(to, PORT);
                socket.send_to(&round.to_be_bytes(), to).expect("sent");
            }
        }
        rounds.store(round + 1, Ordering::Relaxed);
        pause(start + ROUND * (round + 1));
    }
}

/// Senders and receivers at work.
struct Fire {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU32>,
    receivers: Vec<(IpAddr, JoinHandle<BTreeSet<u32>>)>,
    sender: JoinHandle<()>,
}

/// What came of what was sent.
#[derive(Debug)]
struct Score {
    /// Per pod and family.
    rounds: u32,
    seconds: f64,
    wrongly_allowed: Vec<(IpAddr, u32)>,
    lost: Vec<(IpAddr, u32)>,
}

impl Fire {
    fn cease(self, since: Instant) -> Score {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("sender");
        let rounds = self.rounds.load(Ordering::Relaxed);
        let mut score = Score {
            rounds,
            seconds: since.elapsed().as_secs_f64(),
            wrongly_allowed: Vec::new(),
            lost: Vec::new(),
        };
        let closed = addresses(CLOSED);
        for (address, receiver) in self.receivers {
            let came = receiver.join().expect("receiver");
            if closed.contains(&address) {
                score
                    .wrongly_allowed
                    .extend(came.into_iter().map(|n| (address, n)));
            } else {
                let lost = (0..rounds).filter(|n| !came.contains(n));
                score.lost.extend(lost.map(|n| (address, n)));
            }
        }
        score
    }
}

/// The interfaces of the kernel that hold something of npc's.
fn held(world: &World) -> Vec<&'static str> {
    let of = |script: &str| {
        world.ns.sh(&format!("({script}) | grep -c -w -E 'WEFT-NPC|inet weft|bridge weft-npc|weft-npc-known-[46](.b)?' || true")) != "0"
    };
    let looks = [
        (
            "iptables-legacy",
            "iptables-legacy-save; ip6tables-legacy-save",
        ),
        ("iptables-nft", "iptables-nft-save; ip6tables-nft-save"),
        ("ipset", "ipset list -n"),
        ("nftables", "nft list tables"),
    ];
    looks
        .into_iter()
        .filter(|(_, script)| of(script))
        .map(|(name, _)| name)
        .collect()
}

/// What weave-npc leaves behind, and things of others whose names look like ours.
const THEIRS: &str = "\
    ipset create 'weave-]B*(W?)t*z5O17G044[gUo#$l' hash:ip comment && \
    ipset add 'weave-]B*(W?)t*z5O17G044[gUo#$l' 10.32.9.9 comment 'namespace: default, pod: x' && \
    ipset create weft-npcx hash:net && ipset add weft-npcx 10.9.0.0/16 && \
    for t in iptables-legacy iptables-nft; do \
      $t -N WEAVE-NPC && $t -N WEAVE-NPC-DEFAULT && \
      $t -A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT && \
      $t -A WEAVE-NPC -m set --match-set 'weave-]B*(W?)t*z5O17G044[gUo#$l' dst \
        -m comment --comment 'DefaultAllow ingress isolation for namespace: default' -j ACCEPT && \
      $t -A FORWARD -o weave -m comment --comment 'NOTE: this must go before -j KUBE-FORWARD' \
        -j WEAVE-NPC && \
      $t -N WEFT-NPCX && $t -A WEFT-NPCX -m set --match-set weft-npcx src -j DROP && \
      $t -A FORWARD -j WEFT-NPCX || exit 1; \
    done; \
    nft add table inet weftx && nft add chain inet weftx c && nft add table ip weft";

fn theirs(world: &World) -> String {
    world.ns.sh("for t in iptables-legacy iptables-nft; do \
           $t-save | grep -e WEAVE -e WEFT-NPCX | sed 's/\\[.*//'; done; \
         ipset save | grep -e ' weave-' -e weft-npcx | sed 's/ bucketsize.*//'; \
         nft list table inet weftx; nft list table ip weft")
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_switch_under_fire_opens_and_loses_nothing_and_leaves_no_rest() {
    let nftables = json!({"backend": "Nftables"});
    let nft = json!({"backend": "Iptables", "iptablesVariant": "Nft"});
    let legacy = json!({"backend": "Iptables", "iptablesVariant": "Legacy"});
    let mut node = Node::new(&nft);
    node.world.ns.sh(THEIRS);
    let before = theirs(&node.world);
    assert!(before.contains("WEAVE-NPC-DEFAULT"), "{before}");

    // The control: nothing judges yet, so everything arrives. (It fills the neighbour tables too.)
    let (control, since) = (node.fire(), Instant::now());
    eventually(PATIENCE, || match control.rounds.load(Ordering::Relaxed) {
        rounds if rounds > 50 => Ok(()),
        rounds => Err(rounds),
    });
    let control = control.cease(since);
    assert!(control.wrongly_allowed.len() > 40, "{control:?}");

    node.world.start_router();
    node.world.start();
    node.world.ready();
    let (fire, since) = (node.fire(), Instant::now());
    for (policy, holders) in [
        (&nftables, &["nftables"][..]),
        (&legacy, &["iptables-legacy", "ipset"]),
        (&nftables, &["nftables"]),
        (&nft, &["iptables-nft", "ipset"]),
        (&legacy, &["iptables-legacy", "ipset"]),
        (&nft, &["iptables-nft", "ipset"]),
    ] {
        node.world.restart(policy);
        assert_eq!(held(&node.world), holders, "after the switch to {policy}");
        assert_eq!(theirs(&node.world), before, "after the switch to {policy}");
    }
    // Killed on the way, and started again with either: no rest of the other.
    for (policy, first, then, holders) in [
        (&nftables, "nftables", &nftables, &["nftables"][..]),
        (&legacy, "iptables-legacy", &nftables, &["nftables"]),
        (&nft, "iptables-nft", &nft, &["iptables-nft", "ipset"]),
        (
            &nftables,
            "nftables",
            &legacy,
            &["iptables-legacy", "ipset"],
        ),
    ] {
        node.begin_and_die(policy, first);
        node.world.restart(then);
        assert_eq!(
            held(&node.world),
            holders,
            "{policy} was killed, {then} came"
        );
        assert_eq!(theirs(&node.world), before);
    }
    let score = fire.cease(since);
    println!(
        "{} rounds in {:.1} s: {:.0} forbidden and {:.0} allowed a second; wrongly allowed {}, lost {}",
        score.rounds,
        score.seconds,
        2.0 * f64::from(score.rounds) / score.seconds,
        2.0 * f64::from(score.rounds) / score.seconds,
        score.wrongly_allowed.len(),
        score.lost.len(),
    );
    assert!(
        score.wrongly_allowed.is_empty() && score.lost.is_empty(),
        "{score:?}"
    );
    let rate = 2.0 * f64::from(score.rounds) / score.seconds;
    assert!(rate > 250.0, "only {rate:.0} of each a second: {score:?}");
}
