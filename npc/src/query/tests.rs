use k8s_openapi::{
    api::networking::v1::NetworkPolicyPort, apimachinery::pkg::util::intstr::IntOrString,
};
use weft_netfilter::{Family, Ruleset};
use weft_policy::{Endpoint, EndpointId};
use weft_policy_compile::{NodeView, compile};
use weft_testkit::builders::{make_namespace, make_network_policy, make_pod, pods};

use super::*;
use crate::state::List;

/// `x/web` (10.32.0.2) is of this node and admits `x/client` (10.32.0.3, of this node) on TCP 80 by
/// rule 1 of `x/web`; `x/far` (10.32.1.2) is of node n2.
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
        for (name, last) in [("web", 2), ("client", 3)] {
            let pod = make_pod("x", name).label("app", name).uid(name).node("n1");
            index.apply_pod(&pod.build());
            let endpoint = Endpoint {
                pod: ObjectKey::new("x", name),
                uid: name.into(),
                addresses: [IpAddr::from([10, 32, 0, last])].into(),
                host_ifname: format!("vethwepl{name}"),
            };
            index.apply_endpoint(EndpointId::new(name, "eth0"), endpoint);
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

fn question(from: &str, to: &str, protocol: &str, port: Option<u16>) -> Query {
    Query {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: protocol.to_owned(),
        port,
        compare: true,
    }
}

/// The whole answer as it is printed, the kernel holding `ruleset`.
fn asked(stage: &(State, Compiled), ruleset: &Ruleset, query: &Query) -> String {
    let (state, compiled) = stage;
    let flow = match Flow::find(state, compiled, query) {
        Ok(flow) => flow,
        Err(error) => return error.to_string(),
    };
    let mut reply = flow.judge(compiled);
    let (packet, passes) = flow.in_kernel(compiled);
    let outcome = weft_netfilter::trace::trace(ruleset, &packet, &passes).expect("traced");
    let traced = Traced {
        dropped: outcome.dropped,
        path: Vec::new(),
    };
    reply.kernel = Some(compare(reply.allowed, Ok(Some(traced))).expect("compared"));
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
        ask("x/client", "x/web", "tcp", Some(80)),
        "allowed: x/client (10.32.0.3) -> x/web (10.32.0.2)\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: allowed by rule 1 of x/web\n  \
         kernel:  allowed; policies and rules agree\n"
    );
    assert_eq!(
        ask("x/client", "10.32.0.2", "UDP", Some(80)),
        "denied: x/client (10.32.0.3) -> x/web (10.32.0.2)\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: denied: no rule matched in x/web\n  \
         kernel:  denied; policies and rules agree\n"
    );
    assert_eq!(
        ask("x/client", "x/far", "icmp", None),
        "allowed: x/client (10.32.0.3) -> x/far (10.32.1.2)\n  \
         egress:  allowed: no policy selects the pod\n  \
         ingress: not judged here: x/far is a pod of node n2, ask npc there\n  \
         kernel:  allowed; policies and rules agree\n"
    );
    assert_eq!(
        ask("10.32.0.9", "198.18.0.1", "tcp", Some(80)),
        "denied: 10.32.0.9 -> 198.18.0.1\n  \
         egress:  denied: no pod that npc knows has the address 10.32.0.9 of this node's blocks\n  \
         ingress: not judged: 198.18.0.1 is no pod\n  \
         kernel:  denied; policies and rules agree\n"
    );
    assert_eq!(
        ask("10.32.0.1", "x/web", "tcp", Some(81)),
        "allowed: 10.32.0.1 -> x/web (10.32.0.2)\n  \
         egress:  allowed: from the pod's own node\n  \
         ingress: allowed: from the pod's own node\n  \
         kernel:  allowed; policies and rules agree\n"
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
        &question("x/far", "x/web", "tcp", Some(80)),
    );
    assert!(
        answer.ends_with("kernel:  allowed; policies and rules DISAGREE\n"),
        "{answer}"
    );
}

#[test]
fn what_cannot_be_answered_says_what_to_ask_instead() {
    let stage = stage();
    let ask = |query: Query| asked(&stage, &stage.1.ruleset, &query);
    for (query, error) in [
        (
            question("x/gone", "x/web", "tcp", Some(80)),
            "npc knows no pod x/gone",
        ),
        (
            question("web", "x/web", "tcp", Some(80)),
            "\"web\" is neither an address nor NAMESPACE/POD",
        ),
        (
            question("x/client", "x/web", "gre", Some(80)),
            "protocol \"gre\" is none of tcp, udp, sctp and icmp",
        ),
        (
            question("x/client", "x/web", "tcp", None),
            "a port must be given for TCP",
        ),
        (
            question("fd00::1", "x/web", "tcp", Some(80)),
            "fd00::1 and x/web have no address of the same family",
        ),
    ] {
        assert_eq!(ask(query), error);
    }
}
