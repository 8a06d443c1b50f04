//! `router.sock`.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use weft_socket::{
    Endpoints, ErrorReply, Reply, RouterRequest, RouterStatus, code, decode, encode,
};

use crate::{
    attach,
    shared::{Shared, endpoint},
};

/// Serves the socket until `token` is cancelled.
pub(crate) async fn serve(shared: Arc<Shared>, token: CancellationToken) -> std::io::Result<()> {
    let path = shared.args.paths.run_dir.join("router.sock");
    weft_runtime::lines::serve(&path, token, move |line| {
        let shared = Arc::clone(&shared);
        async move { answer(&shared, &line).await }
    })
    .await
}

async fn answer(shared: &Arc<Shared>, line: &[u8]) -> Vec<u8> {
    let request: RouterRequest = match decode(line) {
        Ok(request) => request,
        Err(error) => {
            return text::<()>(Err(ErrorReply {
                code: code::DECODING_FAILURE,
                msg: format!("the request cannot be read: {error}"),
                details: "plugin and router are of different versions".to_owned(),
            }));
        }
    };
    let start = tokio::time::Instant::now();
    let (op, answer) = match &request {
        RouterRequest::Add(add) => ("add", text(attach::add(shared, add).await)),
        RouterRequest::Enforce(id) => ("enforce", text(attach::enforce(shared, id).await)),
        RouterRequest::Del(id) => ("del", text(attach::del(shared, id).await)),
        RouterRequest::Check(id) => ("check", text(attach::check(shared, id))),
        RouterRequest::Gc(gc) => ("gc", text(Ok(attach::gc(shared, gc).await))),
        RouterRequest::Status => ("status", text(Ok(status(shared)))),
        RouterRequest::Endpoints => ("endpoints", text(Ok(endpoints(shared)))),
    };
    shared.metrics.request(op, start.elapsed());
    tracing::debug!(op, took = ?start.elapsed(), "Request answered");
    answer
}

fn text<T: Serialize>(result: Result<T, ErrorReply>) -> Vec<u8> {
    if let Err(error) = &result {
        tracing::info!(code = error.code, %error, "Request refused");
    }
    let reply = match result {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(error),
    };
    // Our own types have string keys only.
    encode(&reply).unwrap_or_default()
}

pub(crate) fn status(shared: &Shared) -> RouterStatus {
    let reasons = shared.view.borrow().obstacles();
    RouterStatus {
        ready: reasons.is_empty(),
        reasons,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Everything npc needs to know; before the first lists it is what the log had.
pub(crate) fn endpoints(shared: &Shared) -> Endpoints {
    let ipam = shared.ipam();
    Endpoints {
        endpoints: ipam.list().map(endpoint).collect(),
        blocks: ipam.blocks().iter().map(|b| b.cidr).collect(),
        gateways: ipam.gateways().to_vec(),
    }
}
