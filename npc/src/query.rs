//! "Would A reach B on this port, and because of which policy and rule?" From the evaluator that
//! defines the rules, and on request from the rules that the kernel holds.

mod way;

use std::{collections::BTreeSet, net::IpAddr, process::ExitCode, sync::Arc, time::Duration};

use weft_netfilter::backend::Traced;
use weft_policy::{
    Judgement, ObjectKey, Packet, Path, Payload, Protocol, State as FlowState, evaluate,
};
use weft_socket::{
    CallError, ErrorReply, Judged, KernelJudged, NpcRequest, Query, QueryEnd, QueryReply, call,
    code,
};

use crate::{
    args::QueryArgs,
    state::State,
    sync::{Compiled, Journey},
};

/// A flow that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    from: QueryEnd,
    to: QueryEnd,
    packet: Packet,
    /// The destination lies in the cluster: frames to it are not routed out.
    to_pod: bool,
}

fn refused(code: u32, msg: String) -> ErrorReply {
    ErrorReply {
        code,
        msg,
        details: String::new(),
    }
}

impl Flow {
    /// Finds out who the ends are.
    ///
    /// # Errors
    /// A pod is not known or has no address, the ends have no family in common, or protocol and
    /// port make no packet.
    pub(crate) fn find(
        state: &State,
        compiled: &Compiled,
        query: &Query,
    ) -> Result<Self, ErrorReply> {
        let from = ends(state, &query.from)?;
        let to = ends(state, &query.to)?;
        let pair = from.iter().find_map(|from| {
            let to = to
                .iter()
                .find(|to| to.address.is_ipv4() == from.address.is_ipv4())?;
            Some((from.clone(), to.clone()))
        });
        let Some((from, to)) = pair else {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!(
                    "{} and {} have no address of the same family",
                    query.from, query.to
                ),
            ));
        };
        let gateways = &compiled.view.gateways;
        let path = if gateways.contains(&from.address) {
            Path::Output
        } else if gateways.contains(&to.address) {
            Path::Input
        } else {
            Path::Forward { out_port: None }
        };
        Ok(Self {
            packet: Packet {
                source: from.address,
                destination: to.address,
                payload: payload(query, from.address)?,
                state: FlowState::New,
                path,
            },
            to_pod: to.pod.is_some(),
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
                if view.is_closed(model, end.address) {
                    side.allowed = false;
                    side.reason = format!(
                        "denied: no pod that npc knows has the address {} of this node's blocks",
                        end.address
                    );
                }
            }
        }
        QueryReply {
            allowed: verdict.is_allowed() && !closed,
            from: self.from.clone(),
            to: self.to.clone(),
            egress,
            ingress,
            kernel: None,
        }
    }

    /// The packet and its way, for the rules in the kernel.
    pub(crate) fn in_kernel(&self, compiled: &Compiled) -> Journey {
        way::journey(&compiled.model, &self.packet, self.to_pod)
    }
}

/// Holds the kernel's answer against the policies'.
///
/// # Errors
/// The kernel could not be asked.
pub(crate) fn compare(
    allowed: bool,
    traced: Result<Option<Traced>, String>,
) -> Result<KernelJudged, ErrorReply> {
    match traced {
        Ok(Some(traced)) => Ok(KernelJudged {
            allowed: !traced.dropped,
            agrees: allowed != traced.dropped,
            path: traced.path,
        }),
        Ok(None) => Err(refused(
            code::UNSUPPORTED_FIELD,
            "the rules of this backend cannot be traced".to_owned(),
        )),
        Err(why) => Err(refused(
            code::INTERNAL,
            format!("cannot read the rules back: {why}"),
        )),
    }
}

/// Every address that the words name.
fn ends(state: &State, words: &str) -> Result<Vec<QueryEnd>, ErrorReply> {
    let node = |node: Option<Arc<str>>| node.map(|node| node.to_string());
    if let Ok(address) = words.parse::<IpAddr>() {
        let found = state.look_up(|index| {
            let key = index.pod_at(address)?;
            let (_, node) = index.pod(&key)?;
            Some((key, node))
        });
        let (pod, at) = found.map_or((None, None), |(key, at)| (Some(key.to_string()), at));
        return Ok(vec![QueryEnd {
            address,
            pod,
            node: node(at),
        }]);
    }
    let Some((namespace, name)) = words.split_once('/') else {
        return Err(refused(
            code::UNSUPPORTED_FIELD,
            format!("{words:?} is neither an address nor NAMESPACE/POD"),
        ));
    };
    let key = ObjectKey::new(namespace, name);
    let found: Option<(BTreeSet<IpAddr>, _)> = state.look_up(|index| index.pod(&key));
    match found {
        Some((addresses, at)) if !addresses.is_empty() => Ok(addresses
            .into_iter()
            .map(|address| QueryEnd {
                address,
                pod: Some(key.to_string()),
                node: node(at.clone()),
            })
            .collect()),
        Some(_) => Err(refused(
            code::UNKNOWN_CONTAINER,
            format!("pod {key} has no address yet"),
        )),
        None => Err(refused(
            code::UNKNOWN_CONTAINER,
            format!("npc knows no pod {key}"),
        )),
    }
}

fn payload(query: &Query, source: IpAddr) -> Result<Payload, ErrorReply> {
    let protocol = match query.protocol.to_ascii_lowercase().as_str() {
        "icmp" => {
            // An echo request.
            let kind = if source.is_ipv4() { 8 } else { 128 };
            return Ok(Payload::Icmp(kind));
        }
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!("protocol {other:?} is none of tcp, udp, sctp and icmp"),
            ));
        }
    };
    let port = query.port.ok_or_else(|| {
        refused(
            code::UNSUPPORTED_FIELD,
            format!("a port must be given for {protocol}"),
        )
    })?;
    Ok(Payload::Port { protocol, port })
}

fn judged(judgement: &Judgement, end: &QueryEnd) -> Judged {
    let mut judged = Judged {
        allowed: judgement.is_allowed(),
        reason: judgement.to_string(),
        policy: None,
        rule: None,
        isolated_by: Vec::new(),
    };
    match judgement {
        Judgement::NotHere => {
            judged.reason = match (&end.pod, &end.node) {
                (Some(pod), Some(node)) => {
                    format!("not judged here: {pod} is a pod of node {node}, ask npc there")
                }
                (Some(pod), None) => format!("not judged here: {pod} is on no node"),
                (None, _) => format!("not judged: {} is no pod", end.address),
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

/// `weft-npc query`: asks the running npc and prints its answer.
#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answer is this command's output"
)]
pub async fn query(args: &QueryArgs) -> ExitCode {
    let socket = args.sockets.run_dir.join("npc.sock");
    let request = NpcRequest::Query(Query {
        from: args.from.clone(),
        to: args.to.clone(),
        protocol: args.protocol.clone(),
        port: args.port,
        compare: args.compare,
    });
    let asked = tokio::task::spawn_blocking(move || {
        call::<_, QueryReply>(&socket, &request, Duration::from_secs(30))
    });
    let why = match asked.await {
        Ok(Ok(reply)) => {
            print!("{}", text(&reply));
            let agrees = reply.kernel.as_ref().is_none_or(|kernel| kernel.agrees);
            return ExitCode::from(u8::from(!reply.allowed || !agrees));
        }
        Ok(Err(error @ CallError::Io { .. })) => format!("is npc running? {error}"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    eprintln!("{why}");
    ExitCode::from(2)
}

fn text(reply: &QueryReply) -> String {
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    let end = |end: &QueryEnd| match &end.pod {
        Some(pod) => format!("{pod} ({})", end.address),
        None => end.address.to_string(),
    };
    let mut lines = vec![
        format!(
            "{}: {} -> {}",
            word(reply.allowed),
            end(&reply.from),
            end(&reply.to)
        ),
        format!("  egress:  {}", reply.egress.reason),
        format!("  ingress: {}", reply.ingress.reason),
    ];
    if let Some(kernel) = &reply.kernel {
        let agrees = if kernel.agrees { "agree" } else { "DISAGREE" };
        lines.push(format!(
            "  kernel:  {}; policies and rules {agrees}",
            word(kernel.allowed)
        ));
        lines.extend(kernel.path.iter().map(|step| format!("    {step}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests;
