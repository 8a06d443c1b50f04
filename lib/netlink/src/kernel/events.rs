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
    of: Filter,
}

/// Which events of nf_tables count.
#[derive(Debug, Clone, Copy)]
struct Filter {
    families: &'static [u8],
    own: Option<u32>,
}

/// `NETLINK_NETFILTER` and its group `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NETLINK_NETFILTER: isize = 12;
const NFNLGRP_NFTABLES: u32 = 7;

impl RuleEvents {
    /// Subscribes to changes of tables of these families (`NFPROTO_*`), but for those that the
    /// netlink socket `own` makes; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn subscribe(families: &'static [u8], own: Option<u32>) -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
        let of = Filter { families, own };
        Ok(Self { socket, of })
    }

    /// Subscribes to the same once more.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn again(&self) -> std::io::Result<Self> {
        Self::subscribe(self.of.families, self.of.own)
    }

    /// Waits for a change. `false`: the subscription ended (read back and subscribe again). Losing
    /// events to a full buffer counts as a change.
    pub async fn changed(&mut self) -> bool {
        loop {
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) if self.of.counts(&datagram) => return true,
                Ok(_) => {}
                Err(e) => return e.raw_os_error() == Some(NO_BUFFER_SPACE),
            }
        }
    }
}

impl Filter {
    /// Does a datagram tell of a change that counts? The end of a transaction (`NFT_MSG_NEWGEN`) has
    /// no family and tells of none; what cannot be read counts.
    fn counts(self, datagram: &[u8]) -> bool {
        /// `struct nlmsghdr`: length, type, flags, sequence, port; then the family.
        const PORT: usize = 12;
        const FAMILY: usize = 16;
        let number = |bytes: &[u8], at: usize| {
            let four = bytes.get(at..at + 4)?;
            four.try_into().ok().map(u32::from_ne_bytes)
        };
        let mut rest = datagram;
        while !rest.is_empty() {
            let length = number(rest, 0).and_then(|length| usize::try_from(length).ok());
            let message = length.and_then(|length| rest.get(..length));
            let Some((port, family)) =
                message.and_then(|m| Some((number(m, PORT)?, *m.get(FAMILY)?)))
            else {
                return true;
            };
            if self.families.contains(&family) && self.own != Some(port) {
                return true;
            }
            let next = length.unwrap_or_default().next_multiple_of(4);
            rest = rest.get(next..).unwrap_or_default();
        }
        false
    }
}

/// `ENOBUFS`: the kernel dropped events.
const NO_BUFFER_SPACE: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(port: u32, family: u8) -> Vec<u8> {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend([12, 10, 0, 0, 0, 0, 0, 0]);
        bytes.extend(port.to_ne_bytes());
        bytes.extend([family, 0, 0, 0]);
        bytes
    }

    #[test]
    fn events_of_other_families_and_own_ones_do_not_count() {
        let of = Filter {
            families: &[7],
            own: Some(42),
        };
        assert!(of.counts(&event(43, 7)));
        assert!(!of.counts(&event(42, 7)));
        assert!(!of.counts(&event(43, 2)));
        assert!(of.counts(&[event(42, 7), event(43, 0), event(44, 7)].concat()));
    }

    #[test]
    fn what_cannot_be_read_counts() {
        let of = Filter {
            families: &[7],
            own: None,
        };
        assert!(of.counts(&[1, 2, 3]));
        assert!(of.counts(&0_u32.to_ne_bytes()));
    }
}
