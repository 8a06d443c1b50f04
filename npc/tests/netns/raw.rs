//! Packets that no socket sends: their headers are written here.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::sys::{
    socket::{
        self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage,
        setsockopt, sockopt::ReceiveTimeout,
    },
    time::TimeVal,
};

fn open(v4: bool, protocol: SockProtocol) -> OwnedFd {
    let family = if v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("raw socket")
}

/// Sends a packet with an IP header of its own.
pub(crate) fn send(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) {
    let length = |extra: usize| u16::try_from(payload.len() + extra).expect("short");
    let mut packet = Vec::new();
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend(length(20).to_be_bytes());
            // The kernel fills in identification and checksum.
            packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length(0).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        _ => unreachable!("the ends of a packet are of one family"),
    }
    packet.extend(payload);
    let socket = open(source.is_ipv4(), SockProtocol::Raw);
    let to = SockaddrStorage::from(SocketAddr::new(destination, 0));
    socket::sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty()).expect("sent");
}

/// Hears every packet of a kind that the namespace gets.
pub(crate) struct Ear {
    socket: OwnedFd,
    v4: bool,
}

impl Ear {
    /// For errors of ICMP.
    pub(crate) fn of_errors(v4: bool) -> Self {
        let protocol = if v4 {
            SockProtocol::Icmp
        } else {
            SockProtocol::IcmpV6
        };
        Self {
            socket: open(v4, protocol),
            v4,
        }
    }

    /// For segments of TCP.
    pub(crate) fn of_tcp(v4: bool) -> Self {
        Self {
            socket: open(v4, SockProtocol::Tcp),
            v4,
        }
    }

    /// Whether a packet comes that is meant; it is given without its IP header.
    pub(crate) fn hears(&self, patience: Duration, meant: impl Fn(&[u8]) -> bool) -> bool {
        let start = Instant::now();
        let mut buffer = [0; 2048];
        loop {
            let Some(left) = patience.checked_sub(start.elapsed()) else {
                return false;
            };
            let micros = i64::from(left.subsec_micros()).max(1);
            let seconds = i64::try_from(left.as_secs()).expect("seconds");
            let timeout = TimeVal::new(seconds, micros);
            setsockopt(&self.socket, ReceiveTimeout, &timeout).expect("timeout");
            let Ok(length) = socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
            else {
                continue;
            };
            let header = if self.v4 {
                usize::from(buffer[0] & 15) * 4
            } else {
                0
            };
            if buffer.get(header..length).is_some_and(&meant) {
                return true;
            }
        }
    }
}

/// Whether an ICMP message says that the receiver does not speak the protocol of a packet that
/// began like this. (That it is the receiver who speaks: nobody else looks at it.)
pub(crate) fn refuses(v4: bool, message: &[u8], payload: &[u8]) -> bool {
    let (wanted, inner) = if v4 { ([3, 2], 20) } else { ([4, 1], 40) };
    let quoted = message.get(8 + inner..8 + inner + 8);
    message.starts_with(&wanted) && quoted == payload.get(..8)
}

/// The first chunk of an SCTP association: INIT.
pub(crate) fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend([0; 8]);
    // INIT of 20 bytes: tag, window, streams out and in, first number.
    packet.extend([
        1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 1, 0, 1, 0, 0, 0, 1,
    ]);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let byte = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, byte)
}

/// The second segment of a TCP handshake, of which nobody has seen the first.
pub(crate) fn syn_ack(source: IpAddr, destination: IpAddr, from: u16, to: u16) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0]);
    let ends = match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [&from.octets()[..], &to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [&from.octets()[..], &to.octets()].concat(),
        _ => unreachable!("the ends of a packet are of one family"),
    };
    // The pseudo-header's other words: protocol and length.
    let words = [&ends[..], &[0, 6, 0, 20], &segment].concat();
    let sum: u32 = words
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    segment[16..18].copy_from_slice(&(!folded).to_be_bytes());
    segment
}
