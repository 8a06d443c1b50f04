//! A packet that a policy denies is explained in the log and counted.

use std::net::{Ipv4Addr, UdpSocket};

use serde_json::{Value, json};
use weft_testkit::{builders::make_network_policy, eventually::eventually, netns::Netns};

use crate::{
    api::POLICIES,
    process::{PATIENCE, World},
};

/// A namespace that is pod `n` of the node.
fn pod(world: &World, n: u8) -> Netns {
    let ns = Netns::new();
    world.ns.sh(&format!(
        "ip link add vethwepl{n} type veth peer name eth0 netns {} && \
         ip link set vethwepl{n} master weave up",
        ns.name()
    ));
    ns.sh(&format!(
        "ip link set eth0 up && ip addr add 10.32.0.{n}/12 dev eth0"
    ));
    ns
}

/// Sends a datagram from port 40000 of the namespace's pod `from` to port 80 of pod `to`.
fn send(ns: &Netns, from: u8, to: u8) {
    ns.run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::new(10, 32, 0, from), 40_000)).expect("socket");
        socket
            .send_to(b"?", (Ipv4Addr::new(10, 32, 0, to), 80))
            .expect("sent");
    });
}

fn denied(end: &Value, reason: &str, policies: &str) -> Value {
    let mut line = json!({
        "level": "INFO", "target": "weft_npc::denied", "message": "denied",
        "direction": "ingress", "protocol": "udp", "source_port": 40_000,
        "destination": "10.32.0.2", "destination_pod": "default/pod2", "destination_port": 80,
        "policies": policies, "reason": reason, "suppressed": 0,
    });
    for (key, value) in end.as_object().expect("fields") {
        line[key] = value.clone();
    }
    line
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_denied_packet_is_explained_once_and_counted() {
    let mut world = World::with(&json!({"iptablesVariant": "Nft"}));
    world
        .ns
        .sh("sysctl -qw net.bridge.bridge-nf-call-iptables=0 && \
         ip link add weave type bridge nf_call_iptables 1 && ip link set weave up && \
         ip addr add 10.32.0.1/12 dev weave");
    world.start_router();
    world.start();
    world.ready();
    let (_two, three, nobody) = (pod(&world, 2), pod(&world, 3), pod(&world, 9));
    world.come(2);
    world.come(3);
    let policy = make_network_policy("default", "deny").build();
    world.api.add(POLICIES, &policy);
    eventually(PATIENCE, || {
        let rules = world.ns.sh("iptables-nft -S");
        match rules.contains("-d 10.32.0.2/32") {
            true => Ok(()),
            false => Err(rules),
        }
    });

    let seen = || {
        let mut lines = world.log("weft_npc::denied");
        for line in &mut lines {
            line.as_object_mut().expect("a line").remove("timestamp");
        }
        lines
    };
    let expect = |expected: &[Value]| {
        eventually(PATIENCE, || match seen() {
            lines if lines == expected => Ok(()),
            lines => Err(lines),
        });
    };
    for _ in 0..3 {
        send(&three, 3, 2);
    }
    let by_policy = denied(
        &json!({"source": "10.32.0.3", "source_pod": "default/pod3"}),
        "no rule matched",
        "default/deny",
    );
    expect(std::slice::from_ref(&by_policy));

    // An address that belongs to nobody is told with its own end.
    send(&nobody, 9, 2);
    let closed = denied(
        &json!({"source": "10.32.0.9", "direction": "egress"}),
        "denied: no known pod has the address 10.32.0.9 of this node's blocks",
        "",
    );
    expect(&[by_policy, closed]);

    let ask = |from: &str, port: u16| {
        let answer = world.ns.sh(&format!(
            "{npc} query --run-dir {dir} --from {from} --to default/pod2 --protocol udp \
             --port {port} --compare; echo exit $?",
            npc = env!("CARGO_BIN_EXE_weft-npc"),
            dir = world.dir.path().display(),
        ));
        let lines = answer.lines().filter(|line| !line.starts_with("    "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        ask("default/pod3", 80),
        [
            "denied: default/pod3 (10.32.0.3) -> default/pod2 (10.32.0.2)",
            "  egress:  allowed: no policy selects the pod",
            "  ingress: denied: no rule matched in default/deny",
            "  kernel:  denied; policies and rules agree",
            "exit 1",
        ]
    );
    assert_eq!(
        ask("10.32.0.1", 80),
        [
            "allowed: 10.32.0.1 -> default/pod2 (10.32.0.2)",
            "  egress:  allowed: from the pod's own node",
            "  ingress: allowed: from the pod's own node",
            "  kernel:  allowed; policies and rules agree",
            "exit 0",
        ]
    );
    assert_eq!(ask("default/gone", 80), ["exit 2"]);

    let wanted = [
        "weft_npc_denials_total{namespace=\"default\",direction=\"ingress\"} 3",
        "weft_npc_denials_total{namespace=\"\",direction=\"egress\"} 1",
        "weavenpc_blocked_connections_total{protocol=\"udp\",dport=\"80\"} 4",
    ];
    let metrics = world.metrics();
    for line in wanted {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn nothing_is_copied_to_user_space_when_denials_are_not_logged() {
    let mut world = World::with(&json!({"iptablesVariant": "Nft", "denyLog": "Disabled"}));
    world.start_router();
    world.start();
    world.ready();
    let rules = world.ns.sh("iptables-nft -S");
    assert!(rules.contains("-A WEFT-NPC-DENY-I -j DROP"), "{rules}");
    assert!(!rules.contains("NFLOG"), "{rules}");
}
