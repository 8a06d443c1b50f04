//! The router, asked over its socket for what is attached to this node.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weft_policy::{Endpoint, EndpointId, ObjectKey};
use weft_runtime::backoff::{Backoff, random};
use weft_socket::{CallError, Endpoints, RouterRequest, call};

use crate::{
    config::Place,
    state::{List, State},
};

/// How long the router may take to list its attachments.
const TIMEOUT: Duration = Duration::from_secs(5);
/// It tells npc of every change; this finds what was lost while npc could not be reached.
const AGAIN: Duration = Duration::from_secs(60);

/// Names an attachment as the index does.
pub(crate) fn endpoint(endpoint: weft_socket::Endpoint) -> (EndpointId, Endpoint) {
    let id = EndpointId::new(&endpoint.id.container_id, &endpoint.id.ifname);
    let pod = endpoint.pod;
    let endpoint = Endpoint {
        pod: ObjectKey::new(&pod.namespace, &pod.name),
        uid: pod.uid.as_str().into(),
        addresses: endpoint.addresses.into_iter().collect(),
        host_ifname: endpoint.host_ifname,
    };
    (id, endpoint)
}

/// Blocks and gateways of an answer.
pub(crate) fn place(endpoints: &Endpoints) -> Place {
    Place {
        blocks: endpoints.blocks.iter().map(ipnet::IpNet::trunc).collect(),
        gateways: endpoints.gateways.iter().copied().collect(),
    }
}

/// Asks until there is an answer, then again from time to time.
pub(crate) async fn run(state: Arc<State>, socket: PathBuf, token: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let mut failing_since: Option<Instant> = None;
    loop {
        let before = state.asking();
        let socket = socket.clone();
        let asked = tokio::task::spawn_blocking(move || {
            call::<_, Endpoints>(&socket, &RouterRequest::Endpoints, TIMEOUT)
        });
        let pause = match flatten(asked.await) {
            Ok(answer) => {
                let place = place(&answer);
                let listed = answer.endpoints.into_iter().map(endpoint).collect();
                state.answered(&before, listed, place);
                state.arrived(List::Endpoints);
                backoff.reset();
                failing_since = None;
                AGAIN.mul_f64(0.9 + random() / 5.0)
            }
            Err(why) => {
                if failing_since.is_none() {
                    tracing::warn!(why, "cannot ask the router what is attached; trying again");
                    failing_since = Some(Instant::now());
                }
                state.trouble(List::Endpoints, why);
                backoff.next(random())
            }
        };
        tokio::select! {
            () = token.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

fn flatten(
    asked: Result<Result<Endpoints, CallError>, tokio::task::JoinError>,
) -> Result<Endpoints, String> {
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("the asking task failed: {error}")),
    }
}
