//! `weft-npc query`: asks the running npc and prints its answer.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the answer is this command's output"
)]

use std::{process::ExitCode, time::Duration};

use weft_socket::{
    CallError, ErrorReply, KernelJudged, NpcRequest, Query, QueryEnd, QueryReply, Reply, call, code,
};

use crate::args::{Output, QueryArgs};

/// Asks, and prints the answer. 0: allowed; 1: denied, or the kernel disagrees; 2: no answer.
pub async fn query(args: &QueryArgs) -> ExitCode {
    let socket = args.sockets.run_dir.join("npc.sock");
    let request = NpcRequest::Query(Query {
        from: args.from.clone(),
        to: args.to.clone(),
        protocol: args.protocol.clone(),
        port: args.port.clone(),
        compare: args.compare,
    });
    let asked = tokio::task::spawn_blocking(move || {
        call::<_, QueryReply>(&socket, &request, Duration::from_secs(30))
    });
    let answer = match asked.await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(CallError::Refused(error))) => Err(error),
        Ok(Err(error @ CallError::Io { .. })) => Err(ErrorReply {
            code: code::IO_FAILURE,
            msg: error.to_string(),
            details: "is npc running on this node, and is --run-dir right?".to_owned(),
        }),
        Ok(Err(error @ CallError::Decode { .. })) => Err(ErrorReply {
            code: code::DECODING_FAILURE,
            msg: error.to_string(),
            details: "is the npc that runs of another version?".to_owned(),
        }),
        Err(error) => Err(ErrorReply {
            code: code::INTERNAL,
            msg: error.to_string(),
            details: String::new(),
        }),
    };
    let status = match &answer {
        Ok(reply) => u8::from(!passes(reply)),
        Err(_) => 2,
    };
    match (args.output, answer) {
        (Output::Text, Ok(reply)) => print!("{}", text(&reply)),
        (Output::Text, Err(error)) => eprint!("{}", words(&error)),
        (Output::Json, answer) => println!("{}", json(answer)),
    }
    ExitCode::from(status)
}

fn passes(reply: &QueryReply) -> bool {
    reply.allowed && reply.kernel.as_ref().is_none_or(|kernel| kernel.agrees)
}

/// The answer itself, or `{"error": {...}}`.
pub(super) fn json(answer: Result<QueryReply, ErrorReply>) -> String {
    let value = match answer {
        Ok(reply) => serde_json::to_value(reply),
        Err(error) => serde_json::to_value(Reply::<()>::Error(error)),
    };
    // Our own types have string keys only.
    value.unwrap_or_default().to_string()
}

pub(super) fn words(error: &ErrorReply) -> String {
    let ErrorReply { msg, details, .. } = error;
    if details.is_empty() {
        format!("{msg}\n")
    } else {
        format!("{msg}\n  {details}\n")
    }
}

/// The answer for a person.
pub(super) fn text(reply: &QueryReply) -> String {
    let port = reply.port.map(|port| format!(" {port}"));
    let mut lines = vec![
        format!(
            "{}: {} -> {}, {}{}",
            word(reply.allowed),
            end(&reply.from),
            end(&reply.to),
            reply.protocol,
            port.unwrap_or_default(),
        ),
        format!("  egress:  {}", reply.egress.reason),
        format!("  ingress: {}", reply.ingress.reason),
    ];
    lines.extend(reply.kernel.iter().flat_map(kernel));
    lines.push(String::new());
    lines.join("\n")
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn end(end: &QueryEnd) -> String {
    match (&end.pod, &end.node) {
        (Some(pod), _) => format!("{pod} ({})", end.address),
        (None, Some(node)) => format!("node {node} ({})", end.address),
        (None, None) => end.address.to_string(),
    }
}

fn kernel(kernel: &KernelJudged) -> Vec<String> {
    let mut lines = vec![match kernel.allowed {
        Some(allowed) => {
            let agrees = if kernel.agrees { "agree" } else { "DISAGREE" };
            format!("  kernel:  {}; policies and rules {agrees}", word(allowed))
        }
        None => "  kernel:  unknown: there are rules among npc's, or before them, that npc did \
                 not write"
            .to_owned(),
    }];
    lines.extend(kernel.path.iter().map(|step| format!("    {step}")));
    if !kernel.drift.is_empty() {
        lines.push(
            "  drift:   the kernel does not hold what npc wants. npc repairs that within a second, \
             so ask again; if it stays, see the events of the Node"
                .to_owned(),
        );
        lines.extend(kernel.drift.iter().map(|line| format!("    {line}")));
    }
    lines
}
