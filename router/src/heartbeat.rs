//! Which peers answer, on the control port: a datagram a second to each; five unanswered ones make
//! a peer unreachable.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

const EVERY: Duration = Duration::from_secs(1);
const MISSES: u32 = 5;
const PING: &str = "weft1 ping";
const PONG: &str = "weft1 pong";

/// Sends, answers and counts until `token` is cancelled.
pub(crate) async fn run(shared: Arc<Shared>, token: CancellationToken) -> anyhow::Result<()> {
    let mut view = shared.view.subscribe();
    // The family of the socket is that of the underlay, known after the first sync.
    let underlay = tokio::select! {
        () = token.cancelled() => return Ok(()),
        seen = view.wait_for(|v| !v.underlay.is_empty()) => seen?.underlay.first().copied(),
    };
    let any = match underlay {
        Some(IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V4(_)) | None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let port = shared.config.network.fabric.control_port;
    let cluster = shared.config.cluster_id.clone();
    let socket = UdpSocket::bind((any, port)).await.map_err(|e| {
        anyhow::anyhow!("cannot listen on UDP port {port} for heartbeats: {e}; is Weave Net or another router running?")
    })?;
    let mut misses: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = tick.tick() => {
                let peers = shared.view.borrow().peers.clone();
                let targets = targets(&peers, any.is_ipv4());
                misses.retain(|a, _| targets.contains_key(a));
                for address in targets.keys() {
                    *misses.entry(*address).or_default() += 1;
                    let ping = format!("{PING} {cluster}");
                    // An error (no route, say) is a miss as well.
                    let _ = socket.send_to(ping.as_bytes(), SocketAddr::new(*address, port)).await;
                }
                let lost: BTreeSet<String> = targets
                    .iter()
                    .filter(|(address, _)| misses.get(address).is_some_and(|n| *n > MISSES))
                    .map(|(_, node)| node.clone())
                    .collect();
                shared.metrics.unreachable(lost.len());
                shared.update(|v| v.unreachable = lost);
            }
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, from)) = received else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text == format!("{PING} {cluster}") {
                    let _ = socket.send_to(format!("{PONG} {cluster}").as_bytes(), from).await;
                }
                // A ping from a peer proves nothing about the way there; a pong does.
                if text == format!("{PONG} {cluster}")
                    && let Some(n) = misses.get_mut(&from.ip().to_canonical())
                {
                    *n = 0;
                }
            }
        }
    }
}

fn targets(peers: &BTreeMap<String, BTreeSet<IpAddr>>, v4: bool) -> BTreeMap<IpAddr, String> {
    peers
        .iter()
        .filter_map(|(node, addresses)| {
            let address = addresses.iter().find(|a| a.is_ipv4() == v4)?;
            Some((*address, node.clone()))
        })
        .collect()
}
