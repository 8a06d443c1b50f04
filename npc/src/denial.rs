//! Says why a packet was denied: one line per pair of pods and ten seconds, and metrics. The same
//! for connections that are allowed, of namespaces that ask for it.
//!
//! ```text
//! deny chain (at most 500 a second) --+-> NFLOG group 86 -> metrics (what is denied)
//! log chain (at most 100 a second) ---+       -> at most one line per pair -> evaluator -> line
//! ```
//!
//! The rule that copied the packet says the direction by its prefix; who the ends are, why nothing
//! allowed it, or what did, is asked of the model that the rules were compiled from, by the same
//! evaluator that defines them. It is asked for packets that get a line, not for the others.

mod cut;
mod limiter;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::net::if_::if_indextoname;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_netfilter::{
    Hook,
    exec::{Headers, Logged, Nflog},
};
use weft_policy::{
    Direction, Judgement, ObjectKey, Packet, Path, Payload, Protocol, State as Flow, Verdict,
    evaluate,
};
use weft_runtime::backoff::{Backoff, random};

use self::limiter::Limiter;
use crate::{
    metrics::Metrics,
    state::State,
    sync::{Compiled, Wanted},
};

/// Weave Net's NFLOG group.
pub(crate) const GROUP: u16 = 86;

/// Why a packet was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    /// As the pod that is protected or confined sees it.
    pub(crate) direction: Direction,
    /// Its namespace, where it is known.
    pub(crate) namespace: Option<Arc<str>>,
    /// Policies that isolate it.
    pub(crate) policies: Vec<ObjectKey>,
    /// Why nothing allowed it.
    pub(crate) reason: String,
}

/// Which rule of ours copied a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied {
    /// It was dropped by the policies of a pod.
    Denied(Direction),
    /// It was dropped because an end of it is nobody's.
    Closed,
    /// It is the first of a connection that the policies of a pod allow.
    Allowed(Direction),
}

impl Copied {
    /// By the prefix of the rule; `None`: it is not ours.
    fn by(prefix: &str) -> Option<Self> {
        match prefix {
            "weft-deny-ingress" => Some(Self::Denied(Direction::Ingress)),
            "weft-deny-egress" => Some(Self::Denied(Direction::Egress)),
            "weft-deny-closed" => Some(Self::Closed),
            "weft-allow-ingress" => Some(Self::Allowed(Direction::Ingress)),
            "weft-allow-egress" => Some(Self::Allowed(Direction::Egress)),
            _ => None,
        }
    }
}

/// Whose policies decided, as they see it: the direction, and the pod's namespace where the pod is
/// known.
fn decider(compiled: &Compiled, copied: Copied, packet: &Packet) -> (Direction, Option<Arc<str>>) {
    let Compiled { model, view, .. } = compiled;
    let named = |address| {
        let (key, _) = model.subject_at(address)?;
        Some(Arc::clone(&key.pod.namespace))
    };
    let receiver = || match &packet.path {
        Path::Forward {
            out_port: Some(port),
        } => {
            let (key, _) = model.subject_behind(port)?;
            Some(Arc::clone(&key.pod.namespace))
        }
        Path::Forward { .. } | Path::Input | Path::Output => None,
    };
    match copied {
        Copied::Closed if view.is_closed(model, packet.source) => {
            (Direction::Egress, named(packet.source))
        }
        Copied::Closed => (Direction::Ingress, named(packet.destination)),
        Copied::Denied(Direction::Egress) | Copied::Allowed(Direction::Egress) => {
            (Direction::Egress, named(packet.source))
        }
        Copied::Denied(Direction::Ingress) | Copied::Allowed(Direction::Ingress) => (
            Direction::Ingress,
            named(packet.destination).or_else(receiver),
        ),
    }
}

fn side(verdict: Verdict, direction: Direction) -> Judgement {
    match direction {
        Direction::Ingress => verdict.ingress,
        Direction::Egress => verdict.egress,
    }
}

/// Says what allowed the first packet of a connection: the policy, if it was one, and why.
fn why_allowed(
    compiled: &Compiled,
    direction: Direction,
    packet: &Packet,
) -> (Option<ObjectKey>, String) {
    let judgement = side(evaluate(&compiled.model, packet), direction);
    let reason = if judgement.is_allowed() {
        judgement.to_string()
    } else {
        "allowed by rules that have changed since".to_owned()
    };
    let Judgement::Allowed { policy, .. } = judgement else {
        return (None, reason);
    };
    (Some(policy), reason)
}

/// Explains a packet that a rule of ours dropped; `None`: the rule is not ours, or drops nothing.
pub(crate) fn explain(compiled: &Compiled, prefix: &str, packet: &Packet) -> Option<Denial> {
    let model = &compiled.model;
    let copied = Copied::by(prefix)?;
    let (direction, namespace) = decider(compiled, copied, packet);
    match copied {
        Copied::Denied(_) => {}
        Copied::Closed => {
            let address = match direction {
                Direction::Egress => packet.source,
                Direction::Ingress => packet.destination,
            };
            let reason = if namespace.is_some() {
                Judgement::PodUnknown.to_string()
            } else {
                format!("denied: no known pod has the address {address} of this node's blocks")
            };
            return Some(Denial {
                direction,
                namespace,
                policies: Vec::new(),
                reason,
            });
        }
        Copied::Allowed(_) => return None,
    }
    let side = |verdict| side(verdict, direction);
    let mut judgement = side(evaluate(model, packet));
    if judgement.is_allowed() {
        // Then it was no first packet of a flow, or the rules have changed since.
        judgement = side(evaluate(
            model,
            &Packet {
                state: Flow::Invalid,
                ..packet.clone()
            },
        ));
    }
    let mut policies = Vec::new();
    if let Judgement::Denied { isolated_by } | Judgement::Invalid { isolated_by } = &judgement {
        policies.extend(isolated_by.iter().cloned());
    }
    let problem = model
        .problems
        .iter()
        .find(|problem| policies.contains(&problem.policy));
    let reason = match (&judgement, problem) {
        (judgement, _) if judgement.is_allowed() => {
            "denied by rules that have changed since".to_owned()
        }
        (Judgement::Denied { .. }, Some(problem)) => {
            format!("no rule matched, and {problem}")
        }
        (Judgement::Denied { .. }, None) => "no rule matched".to_owned(),
        (Judgement::Invalid { .. }, _) => "it belongs to no flow (conntrack: invalid)".to_owned(),
        (judgement, _) => judgement.to_string(),
    };
    Some(Denial {
        direction,
        namespace,
        policies,
        reason,
    })
}

/// A logged packet in the evaluator's words.
fn packet(logged: &Logged, port_name: impl Fn(u32) -> Option<String>) -> Packet {
    let Headers {
        source,
        destination,
        protocol,
        ports,
        icmp_type,
    } = logged.headers;
    let of_policy = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
        .into_iter()
        .find(|known| known.number() == protocol.0);
    let payload = match (of_policy, ports, icmp_type) {
        (Some(protocol), Some((_, port)), _) => Payload::Port { protocol, port },
        (_, _, Some(kind)) => Payload::Icmp(kind),
        _ => Payload::Other(protocol.0),
    };
    let path = match logged.hook {
        Some(Hook::Input) => Path::Input,
        Some(Hook::Output) => Path::Output,
        _ => Path::Forward {
            out_port: logged.phys_out.and_then(port_name),
        },
    };
    Packet {
        source,
        destination,
        payload,
        state: Flow::New,
        path,
    }
}

/// Name of a protocol, for people and labels.
fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// Lines about what is allowed take none from those about what is denied.
#[derive(Debug, Default)]
struct Limits {
    denied: Limiter,
    allowed: Limiter,
}

/// What the reader works with.
pub(crate) struct Reader {
    pub(crate) state: Arc<State>,
    pub(crate) wanted: Wanted,
    pub(crate) metrics: Metrics,
}

impl Reader {
    /// Reads until `token` is cancelled. A group that somebody else reads (an npc that is being
    /// replaced, Weave Net's) is waited for.
    pub(crate) async fn run(self, token: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        let mut limits = Limits::default();
        loop {
            let failure = tokio::select! {
                () = token.cancelled() => return,
                failure = self.read(&mut limits, &mut backoff) => failure,
            };
            if backoff.failures() == 0 {
                tracing::warn!(
                    error = %failure,
                    group = GROUP,
                    "cannot read denied packets (does another process listen to this NFLOG group?); \
                     policies are enforced, but denials are not logged; trying again"
                );
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = sleep(backoff.next(random())) => {}
            }
        }
    }

    async fn read(&self, limits: &mut Limits, backoff: &mut Backoff) -> std::io::Error {
        let mut log = match Nflog::bind(GROUP).await {
            Ok(log) => log,
            Err(error) => return error,
        };
        backoff.reset();
        loop {
            match log.next().await {
                Ok(Some(packets)) => {
                    for logged in packets {
                        self.one(limits, &logged);
                    }
                }
                Ok(None) => tracing::debug!("more packets are denied than can be read"),
                Err(error) => return error,
            }
        }
    }

    fn one(&self, limits: &mut Limits, logged: &Logged) {
        let Some(compiled) = self.wanted.get() else {
            return;
        };
        let packet = packet(logged, |index| {
            if_indextoname(index).ok()?.into_string().ok()
        });
        let cut = (logged.prefix == cut::PREFIX).then(|| cut::explain(&compiled, logged, &packet));
        let (direction, namespace, is_denied) = match (&cut, Copied::by(&logged.prefix)) {
            (Some(denial), _) => (denial.direction, denial.namespace.clone(), true),
            (None, Some(copied)) => {
                let (direction, namespace) = decider(&compiled, copied, &packet);
                let is_denied = !matches!(copied, Copied::Allowed(_));
                (direction, namespace, is_denied)
            }
            (None, None) => return,
        };
        let Headers {
            source,
            destination,
            protocol,
            ports,
            icmp_type,
        } = logged.headers;
        let protocol = protocol_name(protocol.0);
        let limiter = if is_denied {
            self.metrics.denied(
                namespace.as_deref().unwrap_or_default(),
                &direction.to_string(),
            );
            if let ("tcp" | "udp", Some((_, port))) = (protocol.as_str(), ports) {
                self.metrics.blocked(&protocol, port);
            }
            &mut limits.denied
        } else {
            &mut limits.allowed
        };
        let pair = (source, destination, direction);
        let Some(suppressed) = limiter.admit(Instant::now(), pair) else {
            return;
        };
        let pod = |address| {
            let pod = self.state.look_up(|index| index.pod_at(address));
            pod.map(|key| key.to_string())
        };
        // The name of the target is a constant to `tracing`.
        macro_rules! line {
            ($target:literal, $policies:expr, $reason:expr, $message:literal) => {
                tracing::info!(
                    target: $target,
                    direction = %direction,
                    protocol,
                    source = %source,
                    source_pod = pod(source),
                    source_port = ports.map(|(port, _)| port),
                    destination = %destination,
                    destination_pod = pod(destination),
                    destination_port = ports.map(|(_, port)| port),
                    icmp_type,
                    policies = %List($policies),
                    reason = $reason,
                    suppressed,
                    $message
                )
            };
        }
        if is_denied {
            let denial = cut.or_else(|| explain(&compiled, &logged.prefix, &packet));
            let Some(denial) = denial else {
                return;
            };
            line!(
                "weft_npc::denied",
                &denial.policies,
                denial.reason,
                "denied"
            );
        } else {
            let (policy, reason) = why_allowed(&compiled, direction, &packet);
            line!("weft_npc::allowed", policy.as_slice(), reason, "allowed");
        }
    }
}

struct List<'a>(&'a [ObjectKey]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, key) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{key}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
