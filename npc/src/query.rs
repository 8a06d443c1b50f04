//! "Would A reach B on this port, and because of which policy and rule?" From the evaluator that
//! defines the rules, and on request from the rules that the kernel holds.

mod ask;
mod end;
mod way;

use std::{collections::BTreeSet, net::IpAddr};

use weft_netfilter::backend::Traced;
use weft_policy::{Judgement, Packet, Path, Payload, Protocol, State as FlowState, evaluate};
use weft_socket::{ErrorReply, Judged, KernelJudged, Query, QueryReply, code};

use self::end::{End, Here};
use crate::{
    state::State,
    sync::{Compiled, Journey},
};

pub use ask::query;

/// A flow that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    from: End,
    to: End,
    packet: Packet,
}

fn refused(code: u32, msg: String, details: &str) -> ErrorReply {
    ErrorReply {
        code,
        msg,
        details: details.to_owned(),
    }
}

impl Flow {
    /// Finds out who the ends are; `own` are the addresses of this node's devices.
    ///
    /// # Errors
    /// An end is not known or has no address, the ends have no family in common, or protocol and
    /// port make no packet. Each says what to do.
    pub(crate) fn find(
        state: &State,
        compiled: &Compiled,
        own: &BTreeSet<IpAddr>,
        query: &Query,
    ) -> Result<Self, ErrorReply> {
        let here = Here {
            state,
            compiled,
            own,
        };
        let from = here.ends(&query.from)?;
        let to = here.ends(&query.to)?;
        let is_v4 = |end: &End| end.shown.address.is_ipv4();
        let pair = from.iter().find_map(|from| {
            let to = to.iter().find(|to| is_v4(to) == is_v4(from))?;
            Some((from.clone(), to.clone()))
        });
        let Some((from, to)) = pair else {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!(
                    "{} and {} have no address of the same family",
                    query.from, query.to
                ),
                "name both by addresses of one family",
            ));
        };
        let path = match (from.is_node, to.is_node) {
            (true, true) => {
                return Err(refused(
                    code::UNSUPPORTED_FIELD,
                    format!("{} and {} are both this node", query.from, query.to),
                    "no policy is about that; one end must be a pod or another address",
                ));
            }
            (true, false) => Path::Output,
            (false, true) => Path::Input,
            (false, false) => Path::Forward { out_port: None },
        };
        Ok(Self {
            packet: Packet {
                source: from.shown.address,
                destination: to.shown.address,
                payload: payload(&here, query, &to)?,
                state: FlowState::New,
                path,
            },
            from,
            to,
        })
    }

    /// What the policies of this node say.
    pub(crate) fn judge(&self, compiled: &Compiled) -> QueryReply {
        let Compiled { model, view, .. } = compiled;
        let verdict = evaluate(model, &self.packet);
        let mut egress = judged(&verdict.egress, &self.from);
        let mut ingress = judged(&verdict.ingress, &self.to);
        let closed = view.closes(model, &self.packet);
        if closed {
            for (side, end) in [(&mut egress, &self.from), (&mut ingress, &self.to)] {
                let address = end.shown.address;
                if view.is_closed(model, address) {
                    side.allowed = false;
                    side.reason = format!(
                        "denied: no pod that npc knows has the address {address} of this node's \
                         blocks"
                    );
                }
            }
        }
        let (protocol, port) = match self.packet.payload {
            Payload::Port { protocol, port } => (protocol.to_string(), Some(port)),
            Payload::Icmp(_) | Payload::Other(_) => ("icmp".to_owned(), None),
        };
        QueryReply {
            allowed: verdict.is_allowed() && !closed,
            from: self.from.shown.clone(),
            to: self.to.shown.clone(),
            protocol: protocol.to_ascii_lowercase(),
            port,
            egress,
            ingress,
            kernel: None,
        }
    }

    /// The packet and its way, for the rules in the kernel.
    pub(crate) fn in_kernel(&self, compiled: &Compiled) -> Journey {
        way::journey(&compiled.model, &self.packet, self.to.has_policy)
    }
}

/// Holds the kernel's answer against the policies'.
pub(crate) fn compare(allowed: bool, traced: Traced) -> KernelJudged {
    let Traced {
        dropped,
        path,
        drift,
    } = traced;
    KernelJudged {
        allowed: dropped.map(|dropped| !dropped),
        agrees: dropped == Some(!allowed),
        path,
        drift,
    }
}

fn payload(here: &Here<'_>, query: &Query, to: &End) -> Result<Payload, ErrorReply> {
    let protocol = match query.protocol.to_ascii_lowercase().as_str() {
        "icmp" => {
            if query.port.is_some() {
                return Err(refused(
                    code::UNSUPPORTED_FIELD,
                    "ICMP has no ports".to_owned(),
                    "leave --port out",
                ));
            }
            // An echo request.
            let kind = if to.shown.address.is_ipv4() { 8 } else { 128 };
            return Ok(Payload::Icmp(kind));
        }
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!("protocol {other:?} is none that policies know"),
                "it is tcp, udp, sctp or icmp",
            ));
        }
    };
    let port = here.port(query.port.as_deref(), protocol, to)?;
    Ok(Payload::Port { protocol, port })
}

fn judged(judgement: &Judgement, end: &End) -> Judged {
    let mut judged = Judged {
        allowed: judgement.is_allowed(),
        reason: judgement.to_string(),
        policy: None,
        rule: None,
        isolated_by: Vec::new(),
    };
    match judgement {
        Judgement::NotHere => {
            let shown = &end.shown;
            judged.reason = match (&shown.pod, &shown.node) {
                _ if end.is_node => format!("not judged: {} is this node", shown.address),
                (Some(pod), Some(node)) if !end.has_policy => {
                    format!(
                        "not judged: {pod} is on the network of node {node}, no policy is about it"
                    )
                }
                (Some(pod), Some(node)) => {
                    format!("not judged here: {pod} is a pod of node {node}, ask npc there")
                }
                (Some(pod), None) => format!("not judged here: {pod} is on no node"),
                (None, _) => format!("not judged: {} is no pod", shown.address),
            };
        }
        Judgement::Allowed { policy, rule } => {
            judged.policy = Some(policy.to_string());
            judged.rule = Some(*rule);
        }
        Judgement::Denied { isolated_by } | Judgement::Invalid { isolated_by } => {
            judged.isolated_by = isolated_by.iter().map(ToString::to_string).collect();
        }
        Judgement::FromOwnNode
        | Judgement::Established
        | Judgement::NeighbourDiscovery
        | Judgement::Itself
        | Judgement::NotIsolated
        | Judgement::PodUnknown => {}
    }
    judged
}

#[cfg(test)]
mod tests;
