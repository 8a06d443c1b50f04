//! npc when the WeftNetwork says `policy.enforcement: Disabled`: rules of an earlier start are
//! removed, and the router is answered that every pod may start.
//!
//! The container stays, so that turning enforcement on again is an ordinary roll-out and CNI ADD
//! asks the same question either way. Weave Net left its container out (`EXPECT_NPC=0`).

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;
use weft_runtime::{
    health::Health,
    http::{self, Listen},
    lines,
};
use weft_socket::{ErrorReply, NpcRequest, code};

use crate::{
    args::RunArgs,
    cleanup,
    server::{reply, request, status},
    snapshot,
};

/// Name of this backend in status.
const NAME: &str = "disabled";

/// Runs until `token` is cancelled.
///
/// # Errors
/// Rules or the last state of an earlier start cannot be removed: they would go on denying, or deny
/// again, what nobody sees. Or a socket cannot be made.
pub(crate) async fn run(args: &RunArgs, token: CancellationToken) -> anyhow::Result<()> {
    tracing::warn!("policy.enforcement is Disabled: no NetworkPolicy is enforced on this node");
    cleanup().await?;
    snapshot::forget(&args.state_dir)?;
    let run_dir = &args.sockets.run_dir;
    std::fs::create_dir_all(run_dir)?;
    let health = Health::new(&[]);
    let routes = http::routes(health, Arc::new(Registry::default()));
    let metrics = http::serve(Listen::Tcp(args.metrics_address), routes, token.clone());
    let path = run_dir.join("npc.sock");
    let socket = lines::serve(&path, token.clone(), |line| async move { answer(&line) });
    tokio::try_join!(
        async { metrics.await.map_err(anyhow::Error::from) },
        async { socket.await.map_err(anyhow::Error::from) },
    )?;
    Ok(())
}

fn answer(line: &[u8]) -> Vec<u8> {
    match request(line) {
        Ok(NpcRequest::Pod(_) | NpcRequest::PodGone(_) | NpcRequest::Blocks(_)) => reply(Ok(())),
        Ok(NpcRequest::Status) => reply(Ok(status(Vec::new(), NAME.to_owned()))),
        Ok(NpcRequest::Dump) => reply(Ok(
            "# policy.enforcement of the WeftNetwork is Disabled: npc has no rules\n".to_owned(),
        )),
        Ok(NpcRequest::Query(_)) => reply::<()>(Err(ErrorReply {
            code: code::PLUGIN_NOT_AVAILABLE,
            msg: "npc enforces nothing on this node: every packet passes".to_owned(),
            details: "set policy.enforcement of the WeftNetwork to Enabled".to_owned(),
        })),
        Err(answer) => answer,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_socket::encode;

    use super::*;

    fn asked(request: &NpcRequest) -> Value {
        serde_json::from_slice(&answer(&encode(request).unwrap())).unwrap()
    }

    #[test]
    fn a_query_says_that_nothing_is_enforced_and_what_to_do() {
        let reply = asked(&NpcRequest::Query(weft_socket::Query {
            from: "x/a".into(),
            to: "x/b".into(),
            protocol: "tcp".into(),
            port: Some("80".into()),
            compare: false,
        }));
        assert_eq!(
            reply["error"]["details"],
            "set policy.enforcement of the WeftNetwork to Enabled"
        );
    }

    #[test]
    fn status_is_ready_and_names_no_backend() {
        assert_eq!(
            asked(&NpcRequest::Status)["ok"],
            json!({"ready": true, "reasons": [], "backend": "disabled",
                   "version": env!("CARGO_PKG_VERSION")})
        );
    }
}
