//! Why a packet was dropped that belongs to a flow that was cut.

use weft_netfilter::{
    Hook,
    exec::{Headers, Logged},
};
use weft_policy::{Direction, Packet, evaluate};

use super::{Denial, packet};
use crate::sync::Compiled;

/// Of the rule that drops such packets.
pub(super) const PREFIX: &str = "weft-deny-cut";

/// The packet may be of either direction of its flow: policies were asked about the other one if it
/// is the client that has the higher port.
pub(super) fn explain(compiled: &Compiled, logged: &Logged, seen: &Packet) -> Denial {
    let other = packet(&reversed(logged), |_| None);
    let is_answer = logged.headers.ports.is_some_and(|(from, to)| from < to);
    let order = if is_answer {
        [&other, seen]
    } else {
        [seen, &other]
    };
    let cause = order.into_iter().find_map(|packet| {
        let verdict = evaluate(&compiled.model, packet);
        let prefix = if !verdict.egress.is_allowed() {
            "weft-deny-egress"
        } else if !verdict.ingress.is_allowed() {
            "weft-deny-ingress"
        } else {
            return None;
        };
        super::explain(compiled, prefix, packet)
    });
    match cause {
        Some(denial) => Denial {
            reason: format!("its flow was allowed before and is cut: {}", denial.reason),
            ..denial
        },
        None => Denial {
            direction: Direction::Ingress,
            namespace: None,
            policies: Vec::new(),
            reason: "its flow was cut, by rules that have changed since".to_owned(),
        },
    }
}

/// The same packet the other way.
fn reversed(logged: &Logged) -> Logged {
    let headers = logged.headers;
    Logged {
        hook: match logged.hook {
            Some(Hook::Input) => Some(Hook::Output),
            Some(Hook::Output) => Some(Hook::Input),
            hook => hook,
        },
        phys_out: None,
        headers: Headers {
            source: headers.destination,
            destination: headers.source,
            ports: headers.ports.map(|(from, to)| (to, from)),
            ..headers
        },
        ..logged.clone()
    }
}
