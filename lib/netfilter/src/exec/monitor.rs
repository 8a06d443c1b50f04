//! Tells at once when somebody else changes rules that matter.
//!
//! nf_tables announces every change (`NFNLGRP_NFTABLES`), also those of iptables-nft. An event
//! carries the netlink port of the program that made the change, which is the process id of the
//! tools: so our own changes are told apart ([`super::run::is_ours`], [`Interest::but_of`]) and cost
//! nothing. What cannot be announced (iptables-legacy, ipset) is for [`super::Probe`].

use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::{PROTOCOL, run::is_ours};
use crate::{
    Hook,
    nfnetlink::{Data, Message, messages},
    plan::Owner,
};

/// `NFNL_SUBSYS_NFTABLES` and its multicast group `NFNLGRP_NFTABLES`.
const NFTABLES: u8 = 10;
const GROUP: u32 = 7;
/// `ENOBUFS`: the kernel dropped events.
const NO_BUFFER_SPACE: i32 = 105;
/// A big restore is an event per rule.
const BUFFER: usize = 1 << 20;

/// Families of nf_tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NftFamily {
    /// Both IP families.
    Inet,
    /// IPv4: also iptables-nft.
    Ip,
    /// IPv6: also ip6tables-nft.
    Ip6,
    /// Frames on bridges.
    Bridge,
    /// Frames as devices get them.
    Netdev,
}

impl NftFamily {
    /// `NFPROTO_*`.
    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }
}

/// Whose changes matter.
#[derive(Debug, Clone, Default)]
pub struct Interest {
    owners: Vec<Owner>,
    tables: Vec<(u8, String)>,
    /// Port of a netlink socket of ours.
    own: Option<u32>,
}

impl Interest {
    /// Also the owner's chains, and the built-in chains of its tables: our jumps stand there.
    #[must_use]
    pub fn in_iptables(mut self, owner: Owner) -> Self {
        self.owners.push(owner);
        self
    }

    /// Also everything in a table.
    #[must_use]
    pub fn in_table(mut self, family: NftFamily, name: &str) -> Self {
        self.tables.push((family.number(), name.to_owned()));
        self
    }

    /// But nothing that the netlink socket of this port does ([`super::NfSocket::port`]).
    #[must_use]
    pub fn but_of(mut self, port: Option<u32>) -> Self {
        self.own = port;
        self
    }

    fn covers(&self, change: &Change<'_>) -> bool {
        let ip = [NftFamily::Ip.number(), NftFamily::Ip6.number()].contains(&change.family);
        let table =
            |(family, name): &(u8, String)| *family == change.family && name == change.table;
        self.tables.iter().any(table)
            || ip
                && self.owners.iter().any(|owner| {
                    let here = owner.tables().iter().any(|t| t.as_str() == change.table);
                    here && change.chain.is_none_or(|chain| {
                        owner.owns_chain(chain) || Hook::from_chain(chain).is_some()
                    })
                })
    }
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change<'a> {
    family: u8,
    table: &'a str,
    /// `None`: the table itself, or something in it that is no chain or rule.
    chain: Option<&'a str>,
}

impl<'a> Change<'a> {
    fn read(event: &Data<'a>) -> Option<Self> {
        let attributes = event.attributes();
        // `NFT_MSG_*`; attribute 1 is the table of each, `NFTA_TABLE_NAME` of a table.
        let chain = match event.kind {
            // Chains: NFTA_CHAIN_NAME.
            3..=5 => attributes.text(3),
            // Rules: NFTA_RULE_CHAIN.
            6..=8 => attributes.text(2),
            // The generation has no table, and neither has what a question or a trace is answered.
            15..=17 => return None,
            // Tables and what is in them, also of kinds that later kernels have.
            _ => None,
        };
        Some(Self {
            family: event.family,
            table: attributes.text(1)?,
            chain,
        })
    }
}

/// A subscription.
pub struct Monitor {
    socket: TokioSocket,
    interest: Interest,
}

impl Monitor {
    /// Subscribes; must be called inside a tokio runtime, before the look at what is there.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn subscribe(interest: Interest) -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(PROTOCOL)?;
        // A default buffer only loses more, and a loss counts as a change.
        let _ = socket.socket_mut().set_rx_buf_sz(BUFFER);
        socket
            .socket_mut()
            .bind(&SocketAddr::new(0, 1 << (GROUP - 1)))?;
        Ok(Self { socket, interest })
    }

    /// Subscribes to the same once more.
    ///
    /// # Errors
    /// The socket could not be opened.
    pub fn again(&self) -> std::io::Result<Self> {
        Self::subscribe(self.interest.clone())
    }

    /// Waits until somebody else has changed something that matters; may be dropped and called
    /// again. `false`: the subscription ended (look at what is there and subscribe again).
    pub async fn changed(&mut self) -> bool {
        loop {
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) if !concerns(&self.interest, &datagram, is_ours) => {}
                Ok(_) => return true,
                Err(error) => return error.raw_os_error() == Some(NO_BUFFER_SPACE),
            }
        }
    }
}

/// Does the datagram announce a change of somebody else that matters? One that cannot be read may.
fn concerns(interest: &Interest, datagram: &[u8], is_ours: impl Fn(u32) -> bool) -> bool {
    let mut messages = messages(datagram).peekable();
    messages.peek().is_none()
        || messages.any(|message| match message {
            Message::Data(event) => {
                event.subsystem == NFTABLES
                    && Change::read(&event).is_some_and(|change| interest.covers(&change))
                    && interest.own != Some(event.sender)
                    && !is_ours(event.sender)
            }
            Message::End(_) => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        TableName,
        nfnetlink::{kind, request},
    };

    fn interest() -> Interest {
        Interest::default()
            .in_iptables(Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter]))
            .in_table(NftFamily::Inet, "weft")
            .in_table(NftFamily::Netdev, "short")
    }

    fn matters(family: NftFamily, message: u8, attributes: &[(u16, &str)]) -> bool {
        let mut bytes = request(kind(NFTABLES, message), 0, 0, |event| {
            for (kind, text) in attributes {
                event.text(*kind, text);
            }
        });
        bytes[16] = family.number();
        concerns(&interest(), &bytes, |_| false)
    }

    #[test]
    fn rules_beside_and_in_our_chains_matter_and_others_do_not() {
        use NftFamily::{Bridge, Inet, Ip, Ip6, Netdev};
        for (family, kind, attributes, expected) in [
            (Ip, 6, &[(1, "filter"), (2, "FORWARD")][..], true),
            (Ip6, 8, &[(1, "filter"), (2, "WEFT-NPC-PASS")], true),
            (Ip, 8, &[(1, "filter"), (2, "KUBE-SERVICES")], false),
            (Ip, 8, &[(1, "nat"), (2, "FORWARD")], false),
            (Ip, 5, &[(1, "filter"), (2, "7"), (3, "WEFT-NPC")], true),
            (Ip, 5, &[(1, "filter"), (2, "7"), (3, "DOCKER")], false),
            (Ip, 2, &[(1, "filter")], true),
            (Inet, 14, &[(1, "weft"), (2, "known")], true),
            (Inet, 12, &[(1, "kube-proxy"), (2, "service-ips")], false),
            (Bridge, 2, &[(1, "weft")], false),
            (Netdev, 8, &[(1, "short"), (2, "ends")], true),
            (Inet, 15, &[], false),
            // NFT_MSG_DESTROYTABLE, of Linux 6.3.
            (Inet, 26, &[(1, "weft")], true),
        ] {
            assert_eq!(
                matters(family, kind, attributes),
                expected,
                "{family:?} {kind} {attributes:?}"
            );
        }
    }

    #[test]
    fn our_own_changes_do_not_matter() {
        let mut bytes = request(kind(NFTABLES, 2), 0, 0, |event| event.text(1, "weft"));
        bytes[16] = NftFamily::Inet.number();
        bytes[12..16].copy_from_slice(&4711_u32.to_ne_bytes());
        assert!(concerns(&interest(), &bytes, |pid| pid == 4712));
        assert!(!concerns(&interest(), &bytes, |pid| pid == 4711));
        // A socket of ours, in one datagram with somebody else.
        let but_of = |port| interest().but_of(Some(port));
        assert!(concerns(&but_of(4712), &bytes, |_| false));
        assert!(!concerns(&but_of(4711), &bytes, |_| false));
        let mut both = bytes.clone();
        bytes[12..16].copy_from_slice(&43_u32.to_ne_bytes());
        both.extend(bytes);
        assert!(concerns(&but_of(4711), &both, |_| false));
    }

    #[test]
    fn what_cannot_be_read_matters() {
        for garbage in [&[1, 2, 3][..], &0_u32.to_ne_bytes()] {
            assert!(concerns(&interest(), garbage, |_| true), "{garbage:?}");
        }
    }
}
