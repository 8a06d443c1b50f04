//! `npc.sock`: the router asks here before a pod's interface is set up.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use weft_runtime::{health::Health, lines};
use weft_socket::{
    ErrorReply, NpcRequest, NpcStatus, Query, QueryReply, Reply, code, decode, encode,
};

use crate::{
    flows::own_addresses,
    kernel::InUse,
    query,
    router::{endpoint, place},
    state::State,
    sync::{Tracer, Wanted},
};

/// How long a pod waits for its rules before the router is told to try again. The router itself
/// waits a little longer.
const GATE: Duration = Duration::from_secs(10);

/// How often a question is begun anew because policies changed meanwhile.
const COMPARISONS: usize = 20;

/// What the server answers from.
pub(crate) struct Server {
    pub(crate) state: Arc<State>,
    pub(crate) health: Health,
    /// Name of the backend.
    pub(crate) backend: InUse,
    /// The rules of the last sync.
    pub(crate) wanted: Wanted,
    /// What the kernel holds.
    pub(crate) kernel: Tracer,
}

/// Serves until `token` is cancelled.
///
/// # Errors
/// The socket cannot be made.
pub(crate) async fn serve(
    path: &Path,
    server: Arc<Server>,
    token: CancellationToken,
) -> std::io::Result<()> {
    lines::serve(path, token, move |line| {
        let server = Arc::clone(&server);
        async move { server.answer(&line).await }
    })
    .await
}

/// The line that answers a request.
pub(crate) fn reply<T: Serialize>(result: Result<T, ErrorReply>) -> Vec<u8> {
    let reply = match result {
        Ok(answer) => Reply::Ok(answer),
        Err(error) => Reply::Error(error),
    };
    // Our own types have string keys only.
    encode(&reply).unwrap_or_default()
}

/// Reads a request.
///
/// # Errors
/// It is none; the answer that says so.
pub(crate) fn request(line: &[u8]) -> Result<NpcRequest, Vec<u8>> {
    decode(line).map_err(|error| {
        reply::<()>(Err(ErrorReply {
            code: code::DECODING_FAILURE,
            msg: format!("npc does not understand the request: {error}"),
            details: "router and npc must be of the same version".to_owned(),
        }))
    })
}

/// What npc says of itself; it is ready if nothing speaks against it.
pub(crate) fn status(reasons: Vec<String>, backend: String) -> NpcStatus {
    NpcStatus {
        ready: reasons.is_empty(),
        reasons,
        backend,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl Server {
    async fn answer(&self, line: &[u8]) -> Vec<u8> {
        let request = match request(line) {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match request {
            NpcRequest::Pod(pod) => reply(self.pod(pod, GATE).await),
            NpcRequest::PodGone(id) => {
                let id = weft_policy::EndpointId::new(&id.container_id, &id.ifname);
                self.state.detach(&id);
                reply(Ok(()))
            }
            NpcRequest::Blocks(endpoints) => {
                self.state.place(place(&endpoints));
                reply(Ok(()))
            }
            NpcRequest::Status => reply(Ok(status(self.health.unready(), self.backend.get()))),
            NpcRequest::Dump => reply(Ok(self.wanted.text(&self.backend.get()))),
            NpcRequest::Query(query) => reply(self.query(&query).await),
        }
    }

    async fn query(&self, query: &Query) -> Result<QueryReply, ErrorReply> {
        let own = own_addresses()
            .inspect_err(|error| tracing::debug!(%error, "cannot list the node's addresses"))
            .unwrap_or_default();
        for _ in 0..COMPARISONS {
            let Some(compiled) = self.wanted.get() else {
                let details = [self.state.missing(), self.state.troubles()].concat();
                return Err(ErrorReply {
                    code: code::TRY_AGAIN_LATER,
                    msg: "npc does not know the policies yet".to_owned(),
                    details: details.join("; "),
                });
            };
            let flow = query::Flow::find(&self.state, &compiled, &own, query)?;
            let mut answer = flow.judge(&compiled);
            if !query.compare {
                return Ok(answer);
            }
            let traced = self.kernel.trace(flow.in_kernel(&compiled)).await;
            let (wanted, traced) = traced.map_err(|why| ErrorReply {
                code: code::INTERNAL,
                msg: format!("cannot read the rules back: {why}"),
                details: "see npc's log".to_owned(),
            })?;
            // Else policies changed between the two answers.
            if Arc::ptr_eq(&wanted, &compiled) {
                answer.kernel = Some(query::compare(answer.allowed, traced));
                return Ok(answer);
            }
        }
        Err(ErrorReply {
            code: code::TRY_AGAIN_LATER,
            msg: "policies change faster than the kernel can be compared with them".to_owned(),
            details: "ask again, or without --compare".to_owned(),
        })
    }

    /// Takes the endpoint in and waits until the kernel judges its packets.
    async fn pod(&self, pod: weft_socket::Endpoint, gate: Duration) -> Result<(), ErrorReply> {
        let name = format!(
            "pod {}/{} (UID {})",
            pod.pod.namespace, pod.pod.name, pod.pod.uid
        );
        let is_static = is_static(&pod.pod.uid);
        let (id, endpoint) = endpoint(pod);
        let mut changed = self.state.watch_changed();
        let mut applied = self.state.watch_applied();
        self.state.attach(id.clone(), endpoint);
        self.state.wake.notify_one();
        let deadline = Instant::now() + gate;

        // Its Pod object decides which policies select it. The API shows a static pod only after
        // its first container runs: that one starts closed, except from its own node.
        let version = loop {
            changed.borrow_and_update();
            let at = self.state.is_known(&id);
            if at.known || is_static {
                break at.version;
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(self.unknown(&name, gate));
            }
        };
        while *applied.borrow_and_update() < version {
            if timeout_at(deadline, applied.changed()).await.is_err() {
                return Err(self.not_applied(&name, gate));
            }
        }
        Ok(())
    }

    fn unknown(&self, name: &str, gate: Duration) -> ErrorReply {
        let missing = [self.state.missing(), self.state.troubles()].concat();
        let details = if missing.is_empty() {
            "the API has no such Pod: it was deleted or recreated meanwhile, or the watch is late; \
             the kubelet will try again"
                .to_owned()
        } else {
            missing.join("; ")
        };
        ErrorReply {
            code: code::TRY_AGAIN_LATER,
            msg: format!(
                "{name} stays closed: npc did not see it in the API within {} s",
                gate.as_secs()
            ),
            details,
        }
    }

    fn not_applied(&self, name: &str, gate: Duration) -> ErrorReply {
        let missing = self.state.missing();
        let details = match (missing.is_empty(), self.state.failure()) {
            (false, _) => missing.join("; "),
            (true, Some(failure)) => format!("the last try to write them failed: {failure}"),
            (true, None) => "writing them takes longer than usual; see npc's log".to_owned(),
        };
        ErrorReply {
            code: code::TRY_AGAIN_LATER,
            msg: format!(
                "{name} stays closed: its rules did not get into the kernel within {} s",
                gate.as_secs()
            ),
            details,
        }
    }
}

/// The runtime knows a static pod by a hash: 32 hex digits without dashes.
fn is_static(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
