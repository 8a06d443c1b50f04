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
use weft_policy::{Packet, Path, Payload, Protocol, State};

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp(u16),
    Udp(u16),
    Ping,
}

/// A packet to send.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    kind: Kind,
}

/// Every probe is a flow of its own: conntrack must not know it.
static PORT: AtomicU16 = AtomicU16::new(20_000);

/// How long to wait for an answer. One that must come may be slow on a busy machine; one that must
/// not come would come at once.
pub(crate) fn patience(expected: bool) -> Duration {
    Duration::from_millis(if expected { 2_000 } else { 120 })
}

impl Probe {
    /// The packet as a probe, if the stage can send it.
    pub(crate) fn of(packet: &Packet) -> Option<Self> {
        let echo = if packet.source.is_ipv4() { 8 } else { 128 };
        let kind = match packet.payload {
            Payload::Port {
                protocol: Protocol::Tcp,
                port,
            } => Kind::Tcp(port),
            Payload::Port {
                protocol: Protocol::Udp,
                port,
            } => Kind::Udp(port),
            Payload::Icmp(kind) if kind == echo => Kind::Ping,
            Payload::Port {
                protocol: Protocol::Sctp,
                ..
            }
            | Payload::Icmp(_)
            | Payload::Other(_) => return None,
        };
        // A copy of a frame to many (multicast, broadcast) is received by whoever it is for.
        let group = packet.destination.is_multicast()
            || matches!(&packet.path, Path::Forward { out_port: Some(_) });
        (packet.state == State::New && !group).then_some(Self {
            source: packet.source,
            destination: packet.destination,
            kind,
        })
    }

    /// Sends it; does the receiver answer? If not: what came instead.
    pub(crate) fn arrives(&self, patience: Duration) -> Result<(), String> {
        match self.kind {
            Kind::Tcp(port) => self.tcp(port, patience),
            Kind::Udp(port) => self.udp(port, patience),
            Kind::Ping => self.ping(patience),
        }
    }

    /// A reset is an answer.
    fn tcp(&self, port: u16, patience: Duration) -> Result<(), String> {
        let family = match self.source {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Stream, flags, None).expect("TCP socket");
        let local = SocketAddr::new(self.source, PORT.fetch_add(1, Ordering::Relaxed));
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
        let socket = UdpSocket::bind((self.source, PORT.fetch_add(1, Ordering::Relaxed)))
            .expect("UDP socket");
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
        let id = PORT.fetch_add(1, Ordering::Relaxed);
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
