use k8s_openapi::{
    api::networking::v1::NetworkPolicyPort, apimachinery::pkg::util::intstr::IntOrString,
};
use weft_netfilter::{Family, Ruleset};
use weft_policy_compile::{NodeView, compile};
use weft_testkit::builders::{make_namespace, make_network_policy, make_pod, pods};

use super::{
    ask::{json, text, words},
    *,
};
use crate::state::{List, tests::attached};

/// `x/web` (10.32.0.2) is of this node and admits `x/client` (10.32.0.3, of this node) on TCP 80 by
/// rule 1 of `x/web`; `x/far` (10.32.1.2) is of node n2. `x/agent` and `x/stranger` are on the
/// networks of n1 (192.0.2.1) and n2 (192.0.2.2); `x/late` has no address.
fn stage() -> (State, Compiled) {
    let state = State::new("n1");
    let port = NetworkPolicyPort {
        port: Some(IntOrString::Int(80)),
        ..NetworkPolicyPort::default()
    };
    let policy = make_network_policy("x", "web")
        .selects(&[("app", "web")])
        .ingress(vec![pods(&[("app", "nobody")])], vec![])
        .ingress(vec![pods(&[("app", "client")])], vec![port])
        .build();
    state.update(|index| {
        index.apply_namespace(&make_namespace("x", &[]));
        index.apply_network_policy(&policy);
        let far = make_pod("x", "far").node("n2").address("10.32.1.2");
        index.apply_pod(&far.build());
        index.apply_pod(&make_pod("x", "late").build());
        for (name, node, address) in [
            ("agent", "n1", "192.0.2.1"),
            ("stranger", "n2", "192.0.2.2"),
        ] {
            let pod = make_pod("x", name).node(node).address(address);
            index.apply_pod(&pod.host_network().build());
        }
        for (name, last) in [("web", 2), ("client", 3)] {
            let mut pod = make_pod("x", name).label("app", name).uid(name).node("n1");
            if name == "web" {
                pod = pod.port("http", "TCP", 80);
            }
            index.apply_pod(&pod.build());
            let (id, endpoint) = attached(&format!("x/{name}"), &[&format!("10.32.0.{last}")]);
            index.apply_endpoint(id, endpoint);
        }
        true
    });
    for list in List::ALL {
        state.arrived(list);
    }
    let model = state.snapshot().expect("snapshot").model;
    let view = NodeView {
        blocks: ["10.32.0.0/26".parse().expect("net")].into(),
        gateways: ["10.32.0.1".parse().expect("address")].into(),
        ..NodeView::default()
    };
    let ruleset = compile(&model, &view);
    (
        state,
        Compiled {
            model,
            view,
            ruleset,
        },
    )
}

fn question(from: &str, to: &str, protocol: &str, port: Option<&str>) -> Query {
    Query {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: protocol.to_owned(),
        port: port.map(str::to_owned),
        compare: true,
    }
}

/// Addresses of the node's devices.
fn own() -> BTreeSet<IpAddr> {
    BTreeSet::from(["192.0.2.1".parse().expect("address")])
}

/// The whole answer as it is printed, the kernel holding `ruleset`.
fn asked(stage: &(State, Compiled), ruleset: &Ruleset, query: &Query) -> String {
    let (state, compiled) = stage;
    let flow = match Flow::find(state, compiled, &own(), query) {
        Ok(flow) => flow,
        Err(error) => return words(&error),
    };
    let mut reply = flow.judge(compiled);
    let (packet, passes) = flow.in_kernel(compiled);
    let outcome = weft_netfilter::trace::trace(ruleset, &packet, &passes).expect("traced");
    let traced = Traced {
        dropped: Some(outcome.dropped),
        ..Traced::default()
    };
    reply.kernel = Some(compare(reply.allowed, traced));
    text(&reply)
}

#[test]
fn an_answer_names_policy_and_rule_and_the_kernel_agrees() {
    let stage = stage();
    let ask = |from, to, protocol, port| {
        asked(
            &stage,
            &stage.1.ruleset,
            &question(from, to, protocol, port),
        )
    };
    assert_eq!(
        ask("x/client", "x/web", "tcp", Some("80")),
        "allowed: x/client (10.32.0.3) -> x/web (10.32.0.2), tcp 80\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: allowed by rule 1 of x/web\n  \
         kernel:  allowed; policies and rules agree\n"
    );
    assert_eq!(
        ask("x/client", "10.32.0.2", "UDP", Some("80")),
        "denied: x/client (10.32.0.3) -> x/web (10.32.0.2), udp 80\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: denied: no rule matched in x/web\n  \
         kernel:  denied; policies and rules agree\n"
    );
    assert_eq!(
        ask("x/client", "x/far", "icmp", None),
        "allowed: x/client (10.32.0.3) -> x/far (10.32.1.2), icmp\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: not judged here: x/far is a pod of node n2, ask npc there\n  \
         kernel:  allowed; policies and rules agree\n"
    );
    assert_eq!(
        ask("10.32.0.9", "198.18.0.1", "tcp", Some("80")),
        "denied: 10.32.0.9 -> 198.18.0.1, tcp 80\n  \
         egress:  denied: no pod that npc knows has the address 10.32.0.9 of this node's blocks\n  \
         ingress: not judged: 198.18.0.1 is no pod\n  \
         kernel:  denied; policies and rules agree\n"
    );
}

#[test]
fn a_port_may_be_named_as_the_destination_names_it() {
    let stage = stage();
    let ask = |to, protocol, port| {
        let query = question("x/client", to, protocol, Some(port));
        asked(&stage, &stage.1.ruleset, &query)
    };
    assert_eq!(
        ask("10.32.0.2", "tcp", "http").lines().next(),
        Some("allowed: x/client (10.32.0.3) -> x/web (10.32.0.2), tcp 80")
    );
    assert_eq!(
        ask("x/web", "udp", "http"),
        "pod x/web has no UDP port named \"http\"\n  it has http (TCP 80)\n"
    );
    assert_eq!(
        ask("x/far", "tcp", "http"),
        "pod x/far has no TCP port named \"http\"\n  it has no named ports; give a number\n"
    );
    assert_eq!(
        ask("198.18.0.1", "tcp", "http"),
        "198.18.0.1 is no pod: it has no container port named \"http\"\n  give the port's number\n"
    );
}

#[test]
fn the_node_is_an_end_by_word_by_address_and_by_a_pod_on_its_network() {
    let stage = stage();
    let ask = |from, to| {
        let query = question(from, to, "tcp", Some("81"));
        asked(&stage, &stage.1.ruleset, &query)
    };
    let to_web = |from: &str| {
        format!(
            "allowed: {from} -> x/web (10.32.0.2), tcp 81\n  \
             egress:  allowed: from the pod's own node\n  \
             ingress: allowed: from the pod's own node\n  \
             kernel:  allowed; policies and rules agree\n"
        )
    };
    assert_eq!(ask("node", "x/web"), to_web("node n1 (10.32.0.1)"));
    assert_eq!(ask("192.0.2.1", "x/web"), to_web("node n1 (192.0.2.1)"));
    assert_eq!(ask("x/agent", "x/web"), to_web("x/agent (192.0.2.1)"));
    assert_eq!(
        ask("x/web", "node"),
        "allowed: x/web (10.32.0.2) -> node n1 (10.32.0.1), tcp 81\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: not judged: 10.32.0.1 is this node\n  \
         kernel:  allowed; policies and rules agree\n"
    );
    // Of another node: an address like any other.
    assert_eq!(
        ask("x/stranger", "x/web"),
        "denied: x/stranger (192.0.2.2) -> x/web (10.32.0.2), tcp 81\n  \
         egress:  not judged: x/stranger is on the network of node n2, no policy is about it\n  \
         ingress: denied: no rule matched in x/web\n  \
         kernel:  denied; policies and rules agree\n"
    );
}

#[test]
fn a_kernel_without_the_rules_disagrees() {
    let stage = stage();
    let mut flushed = stage.1.ruleset.clone();
    flushed
        .tables
        .get_mut(&Family::V4)
        .expect("table")
        .hooks
        .clear();
    let answer = asked(
        &stage,
        &flushed,
        &question("x/far", "x/web", "tcp", Some("80")),
    );
    assert!(
        answer.ends_with("kernel:  allowed; policies and rules DISAGREE\n"),
        "{answer}"
    );
}

/// The answer about x/client and x/web when the kernel says this.
fn with_kernel(traced: Traced) -> QueryReply {
    let (state, compiled) = stage();
    let query = question("x/client", "x/web", "tcp", Some("80"));
    let flow = Flow::find(&state, &compiled, &own(), &query).expect("found");
    let mut reply = flow.judge(&compiled);
    reply.kernel = Some(compare(reply.allowed, traced));
    reply
}

#[test]
fn drift_is_told_and_where_nobody_can_say_nothing_is_claimed() {
    let reply = with_kernel(Traced {
        drift: vec!["table inet weft: chain forward is missing".to_owned()],
        ..Traced::default()
    });
    let kernel = reply.kernel.as_ref().expect("compared");
    assert_eq!((kernel.allowed, kernel.agrees), (None, false));
    let answer = text(&reply);
    let (_, kernel) = answer.split_once("x/web\n").expect("policies");
    assert_eq!(
        kernel,
        "  kernel:  unknown: there are rules among npc's, or before them, that npc did not write\n  \
         drift:   the kernel does not hold what npc wants. npc repairs that within a second, so ask \
         again; if it stays, see the events of the Node\n    \
         table inet weft: chain forward is missing\n"
    );
}

#[test]
fn an_answer_is_one_object_of_json_for_programs() {
    let reply = with_kernel(Traced {
        dropped: Some(false),
        path: vec!["a rule".to_owned()],
        drift: vec![],
    });
    let seen: serde_json::Value = serde_json::from_str(&json(Ok(reply))).expect("JSON");
    assert_eq!(
        seen,
        serde_json::json!({
            "allowed": true,
            "from": {"address": "10.32.0.3", "pod": "x/client", "node": "n1"},
            "to": {"address": "10.32.0.2", "pod": "x/web", "node": "n1"},
            "protocol": "tcp",
            "port": 80,
            "egress": {
                "allowed": true, "reason": "allowed: no policy selects the pod",
                "policy": null, "rule": null, "isolated_by": [],
            },
            "ingress": {
                "allowed": true, "reason": "allowed by rule 1 of x/web",
                "policy": "x/web", "rule": 1, "isolated_by": [],
            },
            "kernel": {"allowed": true, "agrees": true, "path": ["a rule"], "drift": []},
        })
    );
    let error = refused(code::UNKNOWN_CONTAINER, "no pod".to_owned(), "look");
    assert_eq!(
        json(Err(error)),
        "{\"error\":{\"code\":3,\"details\":\"look\",\"msg\":\"no pod\"}}"
    );
}

#[test]
fn what_cannot_be_answered_says_what_to_ask_instead() {
    let stage = stage();
    let ask = |query: Query| asked(&stage, &stage.1.ruleset, &query);
    let to_web = |from: &str| question(from, "x/web", "tcp", Some("80"));
    let from_client = |protocol, port| question("x/client", "x/web", protocol, port);
    for (query, error) in [
        (
            to_web("x/gone"),
            "npc knows no pod x/gone, neither from the API nor as attached to this node\n  \
             is it spelled as `kubectl get pods -n x` shows it?\n",
        ),
        (
            to_web("gone/web"),
            "npc knows no pod gone/web, and no namespace gone\n  \
             is it spelled as `kubectl get pods -A` shows it?\n",
        ),
        (
            to_web("web"),
            "\"web\" is no pod, no address and not \"node\"\n  \
             give a pod as NAMESPACE/POD, an address, or \"node\" for the node that is asked\n",
        ),
        (
            to_web("x/late"),
            "pod x/late has no address yet\n  \
             ask again when `kubectl get pod -n x late -o wide` shows one\n",
        ),
        (
            from_client("gre", Some("80")),
            "protocol \"gre\" is none that policies know\n  it is tcp, udp, sctp or icmp\n",
        ),
        (
            from_client("tcp", None),
            "a port must be given for TCP\n  \
             add --port, a number or the name of a container port of the destination\n",
        ),
        (
            from_client("tcp", Some("65536")),
            "65536 is no port\n  ports are 1 to 65535\n",
        ),
        (
            from_client("icmp", Some("80")),
            "ICMP has no ports\n  leave --port out\n",
        ),
        (
            to_web("fd00::1"),
            "fd00::1 and x/web have no address of the same family\n  \
             name both by addresses of one family\n",
        ),
        (
            question("node", "192.0.2.1", "tcp", Some("80")),
            "node and 192.0.2.1 are both this node\n  \
             no policy is about that; one end must be a pod or another address\n",
        ),
    ] {
        assert_eq!(ask(query), error);
    }
}
