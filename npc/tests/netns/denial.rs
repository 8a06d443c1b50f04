//! A packet that a policy denies is explained in the log and counted.

use std::net::{Ipv4Addr, UdpSocket};

use serde_json::{Value, json};
use weft_testkit::{
    builders::{make_namespace, make_network_policy},
    eventually::eventually,
    netns::Netns,
};

use crate::{
    api::{NAMESPACES, POLICIES},
    world::{PATIENCE, World},
};

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

/// npc with this section `policy`, on a bridge with pods 2 and 3, and an address that is nobody's.
fn stage(policy: &Value) -> (World, [Netns; 3]) {
    let mut world = World::with(policy);
    world.bridge();
    world.start_router();
    world.start();
    world.ready();
    let pods = [2, 3, 9].map(|n| world.wire(n));
    world.come(2);
    world.come(3);
    (world, pods)
}

/// The lines of a target without their time are these.
fn expect(world: &World, target: &str, expected: &[Value]) {
    eventually(PATIENCE, || {
        let mut lines = world.log(target);
        for line in &mut lines {
            line.as_object_mut().expect("a line").remove("timestamp");
        }
        if lines == expected {
            Ok(())
        } else {
            Err(lines)
        }
    });
}

/// All rules of the node.
fn rules(world: &World) -> String {
    world.ns.sh("iptables-nft -S; nft -n list ruleset")
}

/// Asks with `--compare`: the answer without the path through the rules, and the exit status.
fn ask(world: &World, from: &str, to: &str) -> Vec<String> {
    let answer = world.ns.sh(&format!(
        "{npc} query --run-dir {dir} --from {from} --to {to} --protocol udp --port 80 --compare \
         2>&1; echo exit $?",
        npc = env!("CARGO_BIN_EXE_weft-npc"),
        dir = world.dir.path().display(),
    ));
    let lines = answer.lines().filter(|line| !line.starts_with("    "));
    lines.map(str::to_owned).collect()
}

fn a_denied_packet_is_explained(policy: &Value, dispatch: &str) {
    let (world, [_two, three, nobody]) = stage(policy);
    let policy = make_network_policy("default", "deny").build();
    world.api.add(POLICIES, &policy);
    eventually(PATIENCE, || match rules(&world) {
        rules if rules.contains(dispatch) => Ok(()),
        rules => Err(rules),
    });

    for _ in 0..3 {
        send(&three, 3, 2);
    }
    let by_policy = denied(
        &json!({"source": "10.32.0.3", "source_pod": "default/pod3"}),
        "no rule matched",
        "default/deny",
    );
    expect(&world, "weft_npc::denied", std::slice::from_ref(&by_policy));

    // An address that belongs to nobody is told with its own end.
    send(&nobody, 9, 2);
    let closed = denied(
        &json!({"source": "10.32.0.9", "direction": "egress"}),
        "denied: no known pod has the address 10.32.0.9 of this node's blocks",
        "",
    );
    expect(&world, "weft_npc::denied", &[by_policy, closed]);

    assert_eq!(
        ask(&world, "default/pod3", "default/pod2"),
        [
            "denied: default/pod3 (10.32.0.3) -> default/pod2 (10.32.0.2), udp 80",
            "  egress:  allowed: no policy selects the pod",
            "  ingress: denied: no rule matched in default/deny",
            "  kernel:  denied; policies and rules agree",
            "exit 1",
        ]
    );
    assert_eq!(
        ask(&world, "node", "default/pod2"),
        [
            "allowed: node n1 (10.32.0.1) -> default/pod2 (10.32.0.2), udp 80",
            "  egress:  allowed: from the pod's own node",
            "  ingress: allowed: from the pod's own node",
            "  kernel:  allowed; policies and rules agree",
            "exit 0",
        ]
    );
    assert_eq!(
        ask(&world, "default/gone", "default/pod2"),
        [
            "npc knows no pod default/gone, neither from the API nor as attached to this node",
            "  is it spelled as `kubectl get pods -n default` shows it?",
            "exit 2",
        ]
    );

    let wanted = [
        "weft_npc_denials_total{namespace=\"default\",direction=\"ingress\"} 3",
        "weft_npc_denials_total{namespace=\"\",direction=\"egress\"} 1",
        "weavenpc_blocked_connections_total{protocol=\"udp\",dport=\"80\"} 4",
    ];
    let metrics = world.metrics();
    for line in wanted {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }

    // Between somebody else's change and its repair the kernel does not do what policies say.
    let harm = if dispatch.contains("goto") {
        "nft flush chain inet weft forward"
    } else {
        "iptables-nft -D FORWARD -j WEFT-NPC"
    };
    let seen = eventually(PATIENCE, || {
        world.ns.sh(&format!("{harm} || true"));
        let answer = ask(&world, "default/pod3", "default/pod2");
        match answer.iter().any(|line| line.contains("drift:")) {
            true => Ok(answer),
            false => Err(answer),
        }
    });
    assert_eq!(
        seen[3..],
        [
            "  kernel:  allowed; policies and rules DISAGREE",
            "  drift:   the kernel does not hold what npc wants. npc repairs that within a second, \
             so ask again; if it stays, see the events of the Node",
            "exit 1",
        ]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_denied_packet_is_explained_once_and_counted() {
    a_denied_packet_is_explained(
        &json!({"backend": "Iptables", "iptablesVariant": "Nft"}),
        "-d 10.32.0.2/32",
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_packet_denied_by_nftables_is_explained_once_and_counted() {
    a_denied_packet_is_explained(
        &json!({"backend": "Nftables"}),
        "10.32.0.2 : goto WEFT-NPC-I-pod2",
    );
}

fn allowed_connections_are_logged(policy: &Value) {
    let (world, [two, three, _nobody]) = stage(policy);
    assert!(!rules(&world).contains("weft-allow"), "nobody asks");
    send(&three, 3, 2);
    let mut namespace = make_namespace("default", &[]);
    let annotations = [("weft.dev/log-allowed".to_owned(), "true".to_owned())];
    namespace.metadata.annotations = Some(annotations.into());
    world.api.add(NAMESPACES, &namespace);
    eventually(PATIENCE, || match rules(&world) {
        rules if rules.contains("weft-allow-ingress") => Ok(()),
        rules => Err(rules),
    });

    for _ in 0..3 {
        send(&two, 2, 3);
    }
    let [egress, ingress] = ["egress", "ingress"].map(|direction| {
        let mut line = denied(
            &json!({"source": "10.32.0.2", "source_pod": "default/pod2"}),
            "allowed: no policy selects the pod",
            "",
        );
        for (key, value) in [
            ("target", "weft_npc::allowed"),
            ("message", "allowed"),
            ("direction", direction),
            ("destination", "10.32.0.3"),
            ("destination_pod", "default/pod3"),
        ] {
            line[key] = value.into();
        }
        line
    });
    expect(&world, "weft_npc::allowed", &[egress, ingress]);
    // Nothing was denied, and nothing is counted as if it were.
    assert!(world.log("weft_npc::denied").is_empty());
    assert!(!world.metrics().contains("weft_npc_denials_total{"));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn allowed_connections_are_logged_for_a_namespace_that_asks_with_iptables() {
    allowed_connections_are_logged(&json!({"backend": "Iptables", "iptablesVariant": "Nft"}));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn allowed_connections_are_logged_for_a_namespace_that_asks_with_nftables() {
    allowed_connections_are_logged(&json!({"backend": "Nftables"}));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn nothing_is_copied_to_user_space_when_denials_are_not_logged() {
    let mut world = World::with(
        &json!({"backend": "Iptables", "iptablesVariant": "Nft", "denyLog": "Disabled"}),
    );
    world.start_router();
    world.start();
    world.ready();
    let rules = world.ns.sh("iptables-nft -S");
    assert!(rules.contains("-A WEFT-NPC-DENY-I -j DROP"), "{rules}");
    assert!(!rules.contains("NFLOG"), "{rules}");
}
