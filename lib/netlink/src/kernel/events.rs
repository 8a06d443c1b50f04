//! Changes that somebody made to links, addresses, routes and FDB entries.

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{AddressFamily, RouteNetlinkMessage, neighbour::NeighbourState},
    sys::SocketAddr,
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
