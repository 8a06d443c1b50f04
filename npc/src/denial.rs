//! Says why a packet was denied: one line per pair of pods and ten seconds, and metrics.
//!
//! ```text
//! deny chain -> NFLOG group 86 (at most 500 a second) -> read here -> evaluator -> line, metrics
//! ```
//!
//! The rule that dropped the packet says the direction by its prefix; who the ends are and why
//! nothing allowed it is asked of the model that the rules were compiled from, by the same
//! evaluator that defines them.

mod cut;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
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

use crate::{
    metrics::Metrics,
    state::State,
    sync::{Compiled, Wanted},
};

/// Weave Net's NFLOG group.
pub(crate) const GROUP: u16 = 86;
/// A pair of pods gets one line in this time.
const QUIET: Duration = Duration::from_secs(10);
/// Pairs that are remembered.
const PAIRS: usize = 4096;
/// Lines a second, of all pairs together: one pod that scans is many pairs.
const LINES: u32 = 50;

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

/// Explains a packet that a rule of ours dropped; `None`: the rule is not ours.
pub(crate) fn explain(compiled: &Compiled, prefix: &str, packet: &Packet) -> Option<Denial> {
    let Compiled { model, view, .. } = compiled;
    let named = |address| {
        let (key, _) = model.subject_at(address)?;
        Some(Arc::clone(&key.pod.namespace))
    };
    let direction = match prefix {
        "weft-deny-ingress" => Direction::Ingress,
        "weft-deny-egress" => Direction::Egress,
        "weft-deny-closed" => {
            let (direction, address) = if view.is_closed(model, packet.source) {
                (Direction::Egress, packet.source)
            } else {
                (Direction::Ingress, packet.destination)
            };
            let namespace = named(address);
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
        _ => return None,
    };
    let side = |verdict: Verdict| match direction {
        Direction::Ingress => verdict.ingress,
        Direction::Egress => verdict.egress,
    };
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
    let policies: Vec<ObjectKey> = match &judgement {
        Judgement::Denied { isolated_by } | Judgement::Invalid { isolated_by } => {
            isolated_by.iter().cloned().collect()
        }
        Judgement::NotHere
        | Judgement::FromOwnNode
        | Judgement::Established
        | Judgement::NeighbourDiscovery
        | Judgement::Itself
        | Judgement::NotIsolated
        | Judgement::Allowed { .. }
        | Judgement::PodUnknown => Vec::new(),
    };
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
    let receiver = || match &packet.path {
        Path::Forward {
            out_port: Some(port),
        } => {
            let (key, _) = model.subject_behind(port)?;
            Some(Arc::clone(&key.pod.namespace))
        }
        Path::Forward { .. } | Path::Input | Path::Output => None,
    };
    Some(Denial {
        direction,
        namespace: match direction {
            Direction::Ingress => named(packet.destination).or_else(receiver),
            Direction::Egress => named(packet.source),
        },
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

/// Source, destination, and who denied.
type Pair = (IpAddr, IpAddr, Direction);

/// Decides which denials get a line. Time is an argument; memory is bounded.
#[derive(Debug, Default)]
struct Limiter {
    pairs: BTreeMap<Pair, Told>,
    second: Option<Instant>,
    lines: u32,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Limiter {
    /// `Some`: write a line, and so many packets of the pair were passed over since its last one.
    fn admit(&mut self, now: Instant, pair: Pair) -> Option<u64> {
        if let Some(told) = self.pairs.get_mut(&pair)
            && now.saturating_duration_since(told.at) < QUIET
        {
            told.since += 1;
            return None;
        }
        if !self.has_line(now) {
            return None;
        }
        if let Some(told) = self.pairs.get_mut(&pair) {
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if self.pairs.len() >= PAIRS {
            self.pairs
                .retain(|_, told| now.saturating_duration_since(told.at) < QUIET);
        }
        if self.pairs.len() >= PAIRS {
            return None;
        }
        self.pairs.insert(pair, Told { at: now, since: 0 });
        Some(0)
    }

    fn has_line(&mut self, now: Instant) -> bool {
        let same = self
            .second
            .is_some_and(|begin| now.saturating_duration_since(begin) < Duration::from_secs(1));
        if !same {
            self.second = Some(now);
            self.lines = 0;
        }
        self.lines += 1;
        self.lines <= LINES
    }
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
        let mut limiter = Limiter::default();
        loop {
            let failure = tokio::select! {
                () = token.cancelled() => return,
                failure = self.read(&mut limiter, &mut backoff) => failure,
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

    async fn read(&self, limiter: &mut Limiter, backoff: &mut Backoff) -> std::io::Error {
        let mut log = match Nflog::bind(GROUP).await {
            Ok(log) => log,
            Err(error) => return error,
        };
        backoff.reset();
        loop {
            match log.next().await {
                Ok(Some(packets)) => {
                    for logged in packets {
                        self.one(limiter, &logged);
                    }
                }
                Ok(None) => tracing::debug!("more packets are denied than can be read"),
                Err(error) => return error,
            }
        }
    }

    fn one(&self, limiter: &mut Limiter, logged: &Logged) {
        let Some(compiled) = self.wanted.get() else {
            return;
        };
        let packet = packet(logged, |index| {
            if_indextoname(index).ok()?.into_string().ok()
        });
        let denial = match logged.prefix.as_str() {
            cut::PREFIX => Some(cut::explain(&compiled, logged, &packet)),
            prefix => explain(&compiled, prefix, &packet),
        };
        let Some(denial) = denial else {
            return;
        };
        let Headers {
            source,
            destination,
            protocol,
            ports,
            icmp_type,
        } = logged.headers;
        let protocol = protocol_name(protocol.0);
        self.metrics.denied(
            denial.namespace.as_deref().unwrap_or_default(),
            &denial.direction.to_string(),
        );
        if let ("tcp" | "udp", Some((_, port))) = (protocol.as_str(), ports) {
            self.metrics.blocked(&protocol, port);
        }
        let pair = (source, destination, denial.direction);
        let Some(suppressed) = limiter.admit(Instant::now(), pair) else {
            return;
        };
        let pod = |address| {
            let pod = self.state.look_up(|index| index.pod_at(address));
            pod.map(|key| key.to_string())
        };
        tracing::info!(
            target: "weft_npc::denied",
            direction = %denial.direction,
            protocol,
            source = %source,
            source_pod = pod(source),
            source_port = ports.map(|(port, _)| port),
            destination = %destination,
            destination_pod = pod(destination),
            destination_port = ports.map(|(_, port)| port),
            icmp_type,
            policies = %List(&denial.policies),
            reason = denial.reason,
            suppressed,
            "denied"
        );
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
