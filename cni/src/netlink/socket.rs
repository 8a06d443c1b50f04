//! The socket: requests, dumps and link events of the current thread's network namespace.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use ipnet::IpNet;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            send, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

use super::{
    Error, Link, Message, Route,
    message::{
        ACK, CREATE, DONE, DUMP, ERROR, EXCL, REPLACE, Received, attrs, messages, text, u32_at,
    },
};

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

/// `RTMGRP_LINK`.
const GROUP_LINK: u32 = 1;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IF_OPER_UP`.
const OPERSTATE_UP: u8 = 6;
/// `RTEXT_FILTER_SKIP_STATS`: counters are most of a link's dump.
const SKIP_STATS: u32 = 8;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u8 = 254;
/// `IFA_F_NODAD`: the address is ours by allocation, nobody else can have it.
const NO_DAD: u32 = 2;

/// Size of the fixed parts `ifinfomsg`, `ifaddrmsg`, `rtmsg`.
const LINK_FIXED: usize = 16;
const ADDRESS_FIXED: usize = 8;
const ROUTE_FIXED: usize = 12;

/// A blocking rtnetlink socket of the network namespace it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: open(0, 10)?,
            sequence: 0,
            buffer: vec![0; 64 << 10],
        })
    }

    /// A link by name; `None` if there is none.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let message = Message::new(GET_LINK, 0, &[0; LINK_FIXED])
            .text(3, name)
            .number(29, SKIP_STATS);
        match self.ask(message, &format!("look up link {name}"), link) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(e) if e.source == Errno::ENODEV => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Every link.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>, Error> {
        let message = Message::new(GET_LINK, DUMP, &[0; LINK_FIXED]).number(29, SKIP_STATS);
        self.ask(message, "list links", link)
    }

    /// Creates or changes a link with a message built by [`super::Veth`].
    pub(crate) fn send_link(&mut self, message: Message, what: &str) -> Result<(), Error> {
        self.command(message, what)
    }

    /// Sets a link up.
    pub(crate) fn set_up(&mut self, link: u32, name: &str) -> Result<(), Error> {
        let message = Message::new(NEW_LINK, ACK, &link_fixed(link, UP, UP));
        self.command(message, &format!("set link {name} up"))
    }

    /// Deletes a link; gone already is success.
    pub(crate) fn delete(&mut self, link: u32, name: &str) -> Result<(), Error> {
        let message = Message::new(DEL_LINK, ACK, &link_fixed(link, 0, 0));
        match self.command(message, &format!("delete link {name}")) {
            Err(e) if e.source == Errno::ENODEV => Ok(()),
            other => other,
        }
    }

    /// Addresses of a link.
    pub(crate) fn addresses(&mut self, link: u32) -> Result<Vec<IpNet>, Error> {
        let message = Message::new(GET_ADDRESS, DUMP, &[0; ADDRESS_FIXED]);
        let all = self.ask(message, "list addresses", address)?;
        Ok(all
            .into_iter()
            .filter(|(on, _)| *on == link)
            .map(|(_, a)| a)
            .collect())
    }

    /// Adds an address, or confirms it.
    pub(crate) fn add_address(&mut self, link: u32, net: IpNet) -> Result<(), Error> {
        let mut fixed = vec![family(net.addr()), net.prefix_len(), 0, 0];
        fixed.extend(link.to_ne_bytes());
        let bytes = octets(net.addr());
        let mut message = Message::new(NEW_ADDRESS, ACK | CREATE | REPLACE, &fixed)
            .attr(2, &bytes)
            .attr(1, &bytes);
        match net {
            IpNet::V4(v4) if v4.prefix_len() < 31 => {
                message = message.attr(4, &v4.broadcast().octets());
            }
            IpNet::V6(_) => message = message.number(8, NO_DAD),
            IpNet::V4(_) => {}
        }
        self.command(message, &format!("add address {net}"))
    }

    /// Routes of the main table, with the links they go through.
    pub(crate) fn routes(&mut self) -> Result<Vec<(u32, Route)>, Error> {
        let message = Message::new(GET_ROUTE, DUMP, &[0; ROUTE_FIXED]);
        self.ask(message, "list routes", route)
    }

    /// Adds a route. One to the same destination stays as it is, whatever link it goes through: the
    /// default route of a pod with several interfaces is that of the first.
    pub(crate) fn add_route(&mut self, link: u32, route: Route) -> Result<(), Error> {
        /// `RTPROT_BOOT`, `RT_SCOPE_LINK`, `RTN_UNICAST`.
        const BOOT: u8 = 3;
        const SCOPE_LINK: u8 = 253;
        const UNICAST: u8 = 1;
        let v4 = route.dst.addr().is_ipv4();
        let scope = if route.gateway.is_none() && v4 {
            SCOPE_LINK
        } else {
            0
        };
        let mut fixed = vec![family(route.dst.addr()), route.dst.prefix_len(), 0, 0];
        fixed.extend([TABLE_MAIN, BOOT, scope, UNICAST, 0, 0, 0, 0]);
        let mut message = Message::new(NEW_ROUTE, ACK | CREATE | EXCL, &fixed).number(4, link);
        if route.dst.prefix_len() > 0 {
            message = message.attr(1, &octets(route.dst.network()));
        }
        if let Some(gateway) = route.gateway {
            message = message.attr(5, &octets(gateway));
        }
        match self.command(message, &format!("add route to {}", route.dst)) {
            Err(e) if e.source == Errno::EEXIST => Ok(()),
            other => other,
        }
    }

    fn command(&mut self, message: Message, what: &str) -> Result<(), Error> {
        self.ask(message, what, |_| None::<()>).map(|_| ())
    }

    /// Sends a request and reads its answers up to the acknowledgement or the end of the dump. A get
    /// of one object has neither: its one answer ends it.
    fn ask<T>(
        &mut self,
        message: Message,
        what: &str,
        parse: impl Fn(Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let fail = |source| Error {
            what: what.to_owned(),
            source,
        };
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        let dump = super::message::u16_at(&bytes, 6).is_some_and(|flags| flags & DUMP == DUMP);
        let fd = self.socket.as_raw_fd();
        send(fd, &bytes, MsgFlags::empty()).map_err(fail)?;
        let mut found = Vec::new();
        loop {
            let length = match recv(fd, &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(fail)?,
            };
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for received in messages(datagram) {
                if received.sequence != self.sequence {
                    continue;
                }
                match received.kind {
                    DONE => return Ok(found),
                    ERROR => {
                        return match u32_at(received.payload, 0).map(u32::cast_signed) {
                            Some(0) => Ok(found),
                            Some(code) => Err(fail(Errno::from_raw(-code))),
                            None => Err(fail(Errno::EBADMSG)),
                        };
                    }
                    _ => {
                        found.extend(parse(received));
                        if !dump && !found.is_empty() {
                            return Ok(found);
                        }
                    }
                }
            }
        }
    }
}

/// Link events of the current network namespace, from the moment it was opened.
#[derive(Debug)]
pub(crate) struct LinkEvents(OwnedFd);

impl LinkEvents {
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self(open(GROUP_LINK, 2)?))
    }

    /// Waits until a link is running. Returns whether it came so far within two seconds without an
    /// event.
    pub(crate) fn wait_running(&self, index: u32) -> bool {
        let mut buffer = vec![0; 32 << 10];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(length) => {
                    let datagram = buffer.get(..length).unwrap_or_default();
                    if messages(datagram)
                        .filter_map(link)
                        .any(|l| l.index == index && l.running)
                    {
                        return true;
                    }
                }
            }
        }
    }
}

/// The fixed part of a link message.
pub(super) fn link_fixed(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut fixed = vec![0; 4];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    fixed.extend(change.to_ne_bytes());
    fixed
}

/// A new link, and nothing that exists.
pub(super) fn new_link() -> Message {
    Message::new(NEW_LINK, ACK | CREATE | EXCL, &link_fixed(0, 0, 0))
}

/// A change of a link.
pub(super) fn change_link(index: u32) -> Message {
    Message::new(NEW_LINK, ACK, &link_fixed(index, 0, 0))
}

fn open(groups: u32, seconds: i64) -> Result<OwnedFd, Error> {
    let fail = |source| Error {
        what: "open a netlink socket".to_owned(),
        source,
    };
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .map_err(fail)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(fail)?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(seconds, 0)).map_err(fail)?;
    Ok(fd)
}

fn link(received: Received<'_>) -> Option<Link> {
    if received.kind != NEW_LINK {
        return None;
    }
    // AF_BRIDGE events carry the same index with less in them.
    if received.payload.first() != Some(&0) {
        return None;
    }
    let mut link = Link {
        index: u32_at(received.payload, 4)?,
        up: u32_at(received.payload, 8)? & UP != 0,
        ..Link::default()
    };
    for (kind, value) in attrs(received.payload, LINK_FIXED) {
        match kind {
            1 => link.mac = value.try_into().ok(),
            3 => link.name = text(value),
            4 => link.mtu = u32_at(value, 0)?,
            5 => link.peer = u32_at(value, 0),
            10 => link.master = u32_at(value, 0),
            16 => link.running = value == [OPERSTATE_UP],
            18 => {
                link.kind = attrs(value, 0)
                    .find(|(kind, _)| *kind == 1)
                    .map(|(_, v)| text(v))
                    .unwrap_or_default();
            }
            20 => link.alias = text(value),
            _ => {}
        }
    }
    Some(link)
}

fn address(received: Received<'_>) -> Option<(u32, IpNet)> {
    if received.kind != NEW_ADDRESS {
        return None;
    }
    let prefix = *received.payload.get(1)?;
    let index = u32_at(received.payload, 4)?;
    let find = |wanted| attrs(received.payload, ADDRESS_FIXED).find(|(kind, _)| *kind == wanted);
    // IPv4 has both, IPv6 without a peer has IFA_ADDRESS alone.
    let (_, bytes) = find(2).or_else(|| find(1))?;
    Some((index, IpNet::new(ip(bytes)?, prefix).ok()?))
}

fn route(received: Received<'_>) -> Option<(u32, Route)> {
    if received.kind != NEW_ROUTE || received.payload.get(4) != Some(&TABLE_MAIN) {
        return None;
    }
    let prefix = *received.payload.get(1)?;
    let unspecified: IpAddr = match received.payload.first()? {
        2 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        10 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let find = |wanted| attrs(received.payload, ROUTE_FIXED).find(|(kind, _)| *kind == wanted);
    let dst = match find(1) {
        Some((_, bytes)) => ip(bytes)?,
        None => unspecified,
    };
    let gateway = find(5).and_then(|(_, bytes)| ip(bytes));
    let (_, link) = find(4)?;
    Some((
        u32_at(link, 0)?,
        Route {
            dst: IpNet::new(dst, prefix).ok()?,
            gateway,
        },
    ))
}

/// `AF_INET`, `AF_INET6`.
fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
