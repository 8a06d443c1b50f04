//! Changes that somebody made to links, addresses, routes and FDB entries.

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage, neighbour::NeighbourState},
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket},
};

use super::dump::has;

/// A stream of "something changed": what, the next dump tells.
pub struct Events {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    task: tokio::task::JoinHandle<()>,
}

impl Events {
    /// Subscribes; must be called inside a tokio runtime, before the dump whose changes matter.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn subscribe() -> std::io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        Ok(Self {
            messages,
            task: tokio::spawn(connection),
        })
    }

    /// Waits for a change that can matter; everything that is already queued counts as one.
    /// `false`: the subscription ended (dump and subscribe again).
    pub async fn changed(&mut self) -> bool {
        loop {
            let Some((message, _)) = self.messages.next().await else {
                return false;
            };
            let mut matters = matters(&message);
            while let Ok((message, _)) = self.messages.try_recv() {
                matters |= self::matters(&message);
            }
            if matters {
                return true;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Learned FDB entries and ARP come and go by themselves; only static ones are made by somebody.
fn matters(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewNeighbour(n) | RouteNetlinkMessage::DelNeighbour(n),
        ) => {
            n.header.family == AddressFamily::Bridge
                && (has(n, NeighbourState::Permanent) || has(n, NeighbourState::Noarp))
        }
        _ => true,
    }
}

/// A stream of "rules of nf_tables changed" (also those of iptables-nft; the legacy variant gives no
/// events).
pub struct RuleEvents {
    socket: TokioSocket,
}

/// `NETLINK_NETFILTER` and its group `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NETLINK_NETFILTER: isize = 12;
const NFNLGRP_NFTABLES: u32 = 7;

impl RuleEvents {
    /// Subscribes; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn subscribe() -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
        Ok(Self { socket })
    }

    /// Waits for a change. `false`: the subscription ended (read back and subscribe again). Losing
    /// events to a full buffer counts as a change.
    pub async fn changed(&mut self) -> bool {
        match self.socket.recv_from_full().await {
            Ok(_) => true,
            Err(e) => e.raw_os_error() == Some(NO_BUFFER_SPACE),
        }
    }
}

/// `ENOBUFS`: the kernel dropped events.
const NO_BUFFER_SPACE: i32 = 105;
