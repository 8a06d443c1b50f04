//! One packet, sent from the namespace of the calling thread.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use nix::errno::Errno;
use nix::sys::{
    socket::{
        self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage,
        setsockopt, sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};
use weft_policy::{Path, Payload, Protocol, State, cases::Expectation};

use crate::raw::{self, Ear};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp(u16),
    Udp(u16),
    Ping,
    /// A kernel without SCTP says so, which is an answer.
    Sctp(u16),
    /// A protocol that nobody speaks, which the receiver says.
    Other(u8),
    /// A segment that belongs to no flow; it is seen where it arrives.
    NoFlow(u16),
}

/// A packet to send.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    kind: Kind,
    /// Every probe is a flow of its own: conntrack must not know it.
    from: u16,
}

static PORT: AtomicU16 = AtomicU16::new(20_000);

/// How long to wait for an answer. One that must come may be slow on a busy machine; one that must
/// not come would come at once.
pub(crate) fn patience(expected: bool) -> Duration {
    Duration::from_millis(if expected { 2_000 } else { 120 })
}

impl Probe {
    /// The packet as a probe.
    ///
    /// # Errors
    /// Why the stage cannot send it.
    pub(crate) fn of(expectation: &Expectation) -> Result<Self, &'static str> {
        let packet = &expectation.packet;
        let echo = if packet.source.is_ipv4() { 8 } else { 128 };
        let kind = match (packet.payload, packet.state) {
            (_, State::Established | State::Related | State::Untracked) => {
                return Err("not the first packet of a flow (every answer to a probe is one)");
            }
            (
                Payload::Port {
                    protocol: Protocol::Tcp,
                    port,
                },
                State::Invalid,
            ) => Kind::NoFlow(port),
            (_, State::Invalid) => return Err("only TCP has packets of no flow"),
            (Payload::Port { protocol, port }, State::New) => match protocol {
                Protocol::Tcp => Kind::Tcp(port),
                Protocol::Udp => Kind::Udp(port),
                Protocol::Sctp => Kind::Sctp(port),
            },
            (Payload::Icmp(kind), State::New) if kind == echo => Kind::Ping,
            (Payload::Icmp(_), State::New) => return Err("an ICMP type that nobody answers"),
            (Payload::Other(protocol), State::New) => Kind::Other(protocol),
        };
        let group = packet.destination.is_multicast()
            || matches!(&packet.path, Path::Forward { out_port: Some(_) });
        if group {
            return Err("a copy of a frame to many (netns/group.rs sends those)");
        }
        let from = match expectation.source_port {
            40_000 => PORT.fetch_add(1, Ordering::Relaxed),
            chosen => chosen,
        };
        Ok(Self {
            source: packet.source,
            destination: packet.destination,
            kind,
            from,
        })
    }

    /// Where the packet is heard, if that is where it arrives. Call it in the receiver's namespace.
    pub(crate) fn ear(&self) -> Option<Ear> {
        matches!(self.kind, Kind::NoFlow(_)).then(|| Ear::of_tcp(self.source.is_ipv4()))
    }

    /// Sends it; does the receiver answer? If not: what came instead.
    pub(crate) fn arrives(&self, ear: Option<&Ear>, patience: Duration) -> Result<(), String> {
        match self.kind {
            Kind::Tcp(port) => self.tcp(port, patience),
            Kind::Udp(port) => self.udp(port, patience),
            Kind::Ping => self.ping(patience),
            Kind::Sctp(port) => self.refused(132, &raw::sctp_init(self.from, port), patience),
            Kind::Other(protocol) => {
                let payload = [self.from.to_be_bytes(), [0; 2], [0; 2], [0; 2]].concat();
                self.refused(protocol, &payload, patience)
            }
            Kind::NoFlow(port) => {
                let segment = raw::syn_ack(self.source, self.destination, self.from, port);
                raw::send(self.source, self.destination, 6, &segment);
                let heard = ear.is_some_and(|ear| {
                    ear.hears(patience, |segment| {
                        segment.starts_with(&self.from.to_be_bytes())
                    })
                });
                heard.then_some(()).ok_or_else(|| "not heard".to_owned())
            }
        }
    }

    fn refused(&self, protocol: u8, payload: &[u8], patience: Duration) -> Result<(), String> {
        let v4 = self.source.is_ipv4();
        let ear = Ear::of_errors(v4);
        raw::send(self.source, self.destination, protocol, payload);
        let heard = ear.hears(patience, |message| raw::refuses(v4, message, payload));
        heard.then_some(()).ok_or_else(|| "no answer".to_owned())
    }

    /// A reset is an answer.
    fn tcp(&self, port: u16, patience: Duration) -> Result<(), String> {
        let family = match self.source {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Stream, flags, None).expect("TCP socket");
        let local = SocketAddr::new(self.source, self.from);
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).expect("bind");
        let to = SocketAddr::new(self.destination, port);
        let started = socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
        assert_eq!(
            started,
            Err(Errno::EINPROGRESS),
            "connect to {to} from {local}"
        );
        let stream = TcpStream::from(fd);
        wait(patience, || {
            // Unconnected without an error: still trying.
            match (stream.take_error().expect("SO_ERROR"), stream.peer_addr()) {
                (Some(error), _) => Some(refused(error)),
                (None, Ok(_)) => Some(Ok(())),
                (None, Err(_)) => None,
            }
        })
    }

    /// "Port unreachable" is an answer.
    fn udp(&self, port: u16, patience: Duration) -> Result<(), String> {
        let socket = UdpSocket::bind((self.source, self.from)).expect("UDP socket");
        socket
            .connect((self.destination, port))
            .expect("a route to the destination");
        socket.set_read_timeout(Some(patience)).expect("timeout");
        socket.send(b"?").expect("send");
        match socket.recv(&mut [0; 16]) {
            Ok(_) => Ok(()),
            Err(error) => refused(error),
        }
    }

    fn ping(&self, patience: Duration) -> Result<(), String> {
        let (family, protocol, kind) = match self.source {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Datagram, flags, protocol).expect("ping socket");
        let timeout = TimeVal::new(
            i64::try_from(patience.as_secs()).expect("seconds"),
            i64::from(patience.subsec_micros()),
        );
        setsockopt(&fd, ReceiveTimeout, &timeout).expect("timeout");
        let raw = fd.as_raw_fd();
        let address = |ip, port| SockaddrStorage::from(SocketAddr::new(ip, port));
        // The "port" is the echo identifier: each probe its own flow.
        let id = self.from;
        socket::bind(raw, &address(self.source, id)).expect("bind");
        socket::connect(raw, &address(self.destination, 0)).expect("a route to the destination");
        socket::send(raw, &[kind, 0, 0, 0, 0, 0, 0, 1], MsgFlags::empty()).expect("send");
        match socket::recv(raw, &mut [0; 64], MsgFlags::empty()) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("ping {id}: {error}")),
        }
    }
}

/// "Nobody listens" is said by the receiver; everything else is said on the way.
fn refused(error: std::io::Error) -> Result<(), String> {
    if error.kind() == ErrorKind::ConnectionRefused {
        Ok(())
    } else {
        Err(error.to_string())
    }
}

/// Asks `done` until it knows, or `patience` is over.
#[allow(
    clippy::disallowed_methods,
    reason = "waits for the kernel, with a deadline"
)]
fn wait(patience: Duration, done: impl Fn() -> Option<Result<(), String>>) -> Result<(), String> {
    let start = std::time::Instant::now();
    loop {
        if let Some(answer) = done() {
            return answer;
        }
        if start.elapsed() > patience {
            return Err("no answer".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
