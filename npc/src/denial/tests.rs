use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use weft_netfilter::Ruleset;
use weft_policy::Index;
use weft_policy_compile::NodeView;
use weft_testkit::builders::{NetworkPolicyBuilder, make_namespace, make_network_policy, make_pod};

use super::*;
use crate::state::tests::attached;

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Of namespace `x`, for the pod `web`.
fn for_web(name: &str) -> NetworkPolicyBuilder {
    make_network_policy("x", name).selects(&[("app", "web")])
}

/// Allows nothing in.
fn deny() -> NetworkPolicy {
    for_web("deny").build()
}

/// Its ports are not understood.
fn odd() -> NetworkPolicy {
    let mut policy = for_web("odd").build();
    let ports = serde_json::json!([{"ports": [{"port": 80, "endPort": 70}]}]);
    let spec = policy.spec.as_mut().expect("spec");
    spec.ingress = serde_json::from_value(ports).expect("rules");
    policy
}

/// These policies, and pods `x/web` (10.32.0.2) and `x/free` (10.32.0.3) of a node with the block
/// 10.32.0.0/26; `x/late` (10.32.0.4) has no Pod yet.
fn compiled(policies: &[NetworkPolicy]) -> Compiled {
    let mut index = Index::new("n1");
    index.apply_namespace(&make_namespace("x", &[]));
    for policy in policies {
        index.apply_network_policy(policy);
    }
    for (name, last) in [("web", 2), ("free", 3), ("late", 4)] {
        if name != "late" {
            let pod = make_pod("x", name).label("app", name).uid(name).node("n1");
            index.apply_pod(&pod.build());
        }
        let (id, endpoint) = attached(&format!("x/{name}"), &[&format!("10.32.0.{last}")]);
        index.apply_endpoint(id, endpoint);
    }
    Compiled {
        model: index.model(),
        view: NodeView {
            blocks: ["10.32.0.0/26".parse().expect("net")].into(),
            ..NodeView::default()
        },
        ruleset: Ruleset::default(),
    }
}

fn tcp(source: &str, destination: &str) -> Packet {
    Packet {
        source: address(source),
        destination: address(destination),
        payload: Payload::Port {
            protocol: Protocol::Tcp,
            port: 80,
        },
        state: Flow::New,
        path: Path::Forward { out_port: None },
    }
}

fn denial(
    direction: Direction,
    namespace: Option<&str>,
    policies: &[&str],
    reason: &str,
) -> Denial {
    Denial {
        direction,
        namespace: namespace.map(Arc::from),
        policies: policies
            .iter()
            .map(|name| ObjectKey::new("x", name))
            .collect(),
        reason: reason.to_owned(),
    }
}

#[test]
fn a_denial_names_the_policies_and_why_nothing_allowed_it() {
    let compiled = compiled(&[deny()]);
    let why = |prefix, packet: Packet| explain(&compiled, prefix, &packet);
    assert_eq!(
        why("weft-deny-ingress", tcp("10.32.1.9", "10.32.0.2")),
        Some(denial(
            Direction::Ingress,
            Some("x"),
            &["deny"],
            "no rule matched"
        ))
    );
    // It would be allowed as the first packet of a flow.
    assert_eq!(
        why("weft-deny-ingress", tcp("10.32.1.9", "10.32.0.3")),
        Some(denial(
            Direction::Ingress,
            Some("x"),
            &[],
            "denied by rules that have changed since"
        ))
    );
    assert_eq!(why("somebody else's", tcp("10.32.1.9", "10.32.0.2")), None);
}

#[test]
fn a_policy_that_is_not_understood_is_named() {
    let found = explain(
        &compiled(&[deny(), odd()]),
        "weft-deny-ingress",
        &tcp("10.32.1.9", "10.32.0.2"),
    );
    let found = found.expect("ours");
    assert_eq!(
        found.policies,
        ["deny", "odd"].map(|name| ObjectKey::new("x", name))
    );
    assert!(
        found.reason.starts_with(
            "no rule matched, and NetworkPolicy x/odd: spec.ingress[0].ports[0].endPort: "
        ),
        "{}",
        found.reason
    );
}

#[test]
fn a_closed_address_is_told_with_the_end_that_is_closed() {
    let compiled = compiled(&[deny()]);
    let why =
        |source, destination| explain(&compiled, "weft-deny-closed", &tcp(source, destination));
    assert_eq!(
        why("10.32.0.9", "10.32.0.3"),
        Some(denial(
            Direction::Egress,
            None,
            &[],
            "denied: no known pod has the address 10.32.0.9 of this node's blocks"
        ))
    );
    assert_eq!(
        why("10.32.0.3", "10.32.0.4"),
        Some(denial(
            Direction::Ingress,
            Some("x"),
            &[],
            "denied: the Pod object has not been seen yet"
        ))
    );
}

#[test]
fn a_copy_of_a_frame_is_judged_by_its_receiver() {
    let logged = Logged {
        prefix: "weft-deny-ingress".to_owned(),
        hook: Some(Hook::Forward),
        phys_out: Some(7),
        headers: Headers {
            source: address("10.32.1.9"),
            destination: address("224.0.0.251"),
            protocol: weft_netfilter::Protocol::UDP,
            ports: Some((5353, 5353)),
            icmp_type: None,
        },
    };
    let packet = packet(&logged, |index| {
        (index == 7).then(|| "vethweplweb".to_owned())
    });
    assert_eq!(
        explain(&compiled(&[deny()]), &logged.prefix, &packet),
        Some(denial(
            Direction::Ingress,
            Some("x"),
            &["deny"],
            "no rule matched"
        ))
    );
}

#[test]
fn what_allowed_a_connection_is_told() {
    let open = for_web("open").ingress(vec![], vec![]).build();
    let compiled = compiled(&[open]);
    let (to, from) = (tcp("10.32.1.9", "10.32.0.2"), tcp("10.32.0.2", "10.32.1.9"));
    assert_eq!(
        why_allowed(&compiled, Direction::Ingress, &to),
        (
            Some(ObjectKey::new("x", "open")),
            "allowed by rule 0 of x/open".to_owned()
        )
    );
    assert_eq!(
        why_allowed(&compiled, Direction::Egress, &from),
        (None, "allowed: no policy selects the pod".to_owned())
    );
    for (prefix, packet) in [("weft-allow-ingress", &to), ("weft-allow-egress", &from)] {
        let copied = Copied::by(prefix).expect("ours");
        let (_, namespace) = decider(&compiled, copied, packet);
        assert_eq!(namespace.as_deref(), Some("x"), "{prefix}");
        // It is no denial.
        assert_eq!(explain(&compiled, prefix, packet), None);
    }
    // The rules have changed since it was copied.
    let closed = super::tests::compiled(&[deny()]);
    assert_eq!(
        why_allowed(&closed, Direction::Ingress, &to),
        (None, "allowed by rules that have changed since".to_owned())
    );
}

/// A segment in FORWARD, or at another hook.
fn logged(hook: Hook, source: &str, destination: &str, ports: (u16, u16)) -> Logged {
    Logged {
        prefix: cut::PREFIX.to_owned(),
        hook: Some(hook),
        phys_out: None,
        headers: Headers {
            source: address(source),
            destination: address(destination),
            protocol: weft_netfilter::Protocol::TCP,
            ports: Some(ports),
            icmp_type: None,
        },
    }
}

#[test]
fn a_packet_of_a_flow_that_was_cut_is_explained_in_both_directions() {
    let compiled = compiled(&[deny()]);
    let why = |logged: &Logged| cut::explain(&compiled, logged, &packet(logged, |_| None));
    let cause = "its flow was allowed before and is cut: no rule matched";
    let expected = denial(Direction::Ingress, Some("x"), &["deny"], cause);
    let asked = logged(Hook::Forward, "10.32.1.9", "10.32.0.2", (40_000, 80));
    assert_eq!(why(&asked), expected);
    let answered = logged(Hook::Forward, "10.32.0.2", "10.32.1.9", (80, 40_000));
    assert_eq!(why(&answered), expected);
    // Meanwhile it is allowed again.
    let free = logged(Hook::Forward, "10.32.1.9", "10.32.0.3", (40_000, 80));
    let gone = "its flow was cut, by rules that have changed since";
    assert_eq!(why(&free), denial(Direction::Ingress, None, &[], gone));
    // What the node pushes to a pod that may not send to it.
    let pushed = logged(Hook::Output, "10.32.0.1", "10.32.0.4", (80, 40_000));
    let unknown =
        "its flow was allowed before and is cut: denied: the Pod object has not been seen yet";
    assert_eq!(
        why(&pushed),
        denial(Direction::Egress, Some("x"), &[], unknown)
    );
}
