//! Reads what NFLOG rules hand to user space (linux/netfilter/nfnetlink_log.h).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};

use super::{PROTOCOL, refusal};
use crate::{
    Hook, Protocol,
    nfnetlink::{ACK, Data, Message, kind, messages, request},
};

/// `NFNL_SUBSYS_ULOG`.
const ULOG: u8 = 4;
/// `NFULNL_MSG_PACKET`, `NFULNL_MSG_CONFIG`.
const PACKET: u8 = 0;
const CONFIG: u8 = 1;
/// `NFULA_CFG_CMD` with `NFULNL_CFG_CMD_BIND`.
const CFG_CMD: u16 = 1;
const BIND: u8 = 1;
/// `NFULA_CFG_MODE` with `NFULNL_COPY_PACKET`.
const CFG_MODE: u16 = 2;
const COPY_PACKET: u8 = 2;
/// `NFULA_CFG_QTHRESH`: 1, or packets come in late batches.
const CFG_QTHRESH: u16 = 5;
/// `NFULA_*` of a packet.
const PACKET_HDR: u16 = 1;
const IFINDEX_PHYSOUTDEV: u16 = 7;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
/// Bytes of a packet that are copied: IPv6 with a few extension headers and the ports.
const COPY: u32 = 128;
/// `ENOBUFS`: packets were lost.
const NO_BUFFER_SPACE: i32 = 105;

/// A listener of one group. A group has at most one.
pub struct Nflog {
    socket: TokioSocket,
}

/// A packet that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Prefix of the rule.
    pub prefix: String,
    /// The hook.
    pub hook: Option<Hook>,
    /// Index of the bridge port it leaves by; bridged packets only.
    pub phys_out: Option<u32>,
    /// What could be read of it.
    pub headers: Headers,
}

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// Source.
    pub source: IpAddr,
    /// Destination, after DNAT.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: Protocol,
    /// Source and destination port, for protocols with ports and not in later fragments.
    pub ports: Option<(u16, u16)>,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
}

impl Nflog {
    /// Listens to a group of the network namespace of the calling thread; must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// The kernel refused: `PermissionDenied` means that another process listens to this group.
    pub async fn bind(group: u16) -> io::Result<Self> {
        let mut socket = TokioSocket::new(PROTOCOL)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().connect(&SocketAddr::new(0, 0))?;
        let [a, b, c, d] = COPY.to_be_bytes();
        let request = request(kind(ULOG, CONFIG), ACK, group, |message| {
            message.attr(CFG_CMD, &[BIND]);
            message.attr(CFG_MODE, &[a, b, c, d, COPY_PACKET, 0]);
            message.attr(CFG_QTHRESH, &1_u32.to_be_bytes());
        });
        socket.send(&request).await?;
        loop {
            let (datagram, _) = socket.recv_from_full().await?;
            for message in messages(&datagram) {
                match message {
                    Message::End(answer) => {
                        return refusal(answer).map_or(Ok(Self { socket }), Err);
                    }
                    // A packet may overtake the answer.
                    Message::Data(_) => {}
                }
            }
        }
    }

    /// The next packets; `None`: some were lost. May be dropped and called again.
    ///
    /// # Errors
    /// The socket is broken: bind again.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Logged>>> {
        match self.socket.recv_from_full().await {
            Ok((datagram, _)) => Ok(Some(read(&datagram))),
            Err(error) if error.raw_os_error() == Some(NO_BUFFER_SPACE) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read(datagram: &[u8]) -> Vec<Logged> {
    messages(datagram)
        .filter_map(|message| match message {
            Message::Data(data) if (data.subsystem, data.kind) == (ULOG, PACKET) => logged(&data),
            Message::Data(_) | Message::End(_) => None,
        })
        .collect()
}

fn logged(data: &Data<'_>) -> Option<Logged> {
    let attributes = data.attributes();
    // `NF_INET_*`, in the order of the packet's way.
    let hook = match attributes.get(PACKET_HDR)?.get(2)? {
        0 => Some(Hook::Prerouting),
        1 => Some(Hook::Input),
        2 => Some(Hook::Forward),
        3 => Some(Hook::Output),
        4 => Some(Hook::Postrouting),
        _ => None,
    };
    Some(Logged {
        prefix: attributes.text(PREFIX).unwrap_or_default().to_owned(),
        hook,
        phys_out: attributes.number(IFINDEX_PHYSOUTDEV),
        headers: Headers::read(attributes.get(PAYLOAD)?)?,
    })
}

impl Headers {
    /// Reads the start of an IP packet; `None` if it is none.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    fn v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0xf) * 4;
        let first = be16(packet, 6)? & 0x1fff == 0;
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        };
        let payload = packet.get(header.max(20)..).filter(|_| first);
        Some(Self::with(
            address(12)?,
            address(16)?,
            *packet.get(9)?,
            payload.unwrap_or_default(),
        ))
    }

    fn v6(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        };
        let (mut next, mut rest) = (*packet.get(6)?, packet.get(40..)?);
        // Each round takes at least 8 bytes off.
        while let (0 | 43 | 44 | 51 | 60, Some((following, length))) = (
            next,
            rest.get(..2).map(|head| (head[0], usize::from(head[1]))),
        ) {
            let length = match next {
                // A fragment; a later one has no ports.
                44 if be16(rest, 2).is_none_or(|offset| offset & 0xfff8 != 0) => {
                    rest = &[];
                    next = following;
                    break;
                }
                44 => 8,
                51 => (length + 2) * 4,
                _ => (length + 1) * 8,
            };
            next = following;
            rest = rest.get(length..).unwrap_or_default();
        }
        Some(Self::with(address(8)?, address(24)?, next, rest))
    }

    fn with(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Self {
        let protocol = Protocol(protocol);
        let has_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol);
        let is_icmp = [Protocol::ICMP, Protocol::ICMP6].contains(&protocol);
        let ports = || Some((be16(payload, 0)?, be16(payload, 2)?));
        Self {
            source,
            destination,
            protocol,
            ports: has_ports.then(ports).flatten(),
            icmp_type: payload.first().copied().filter(|_| is_icmp),
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.32.0.2 to 10.32.0.3, first bytes of a segment from port 40000 to 80.
    fn v4(protocol: u8, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend([10, 32, 0, 2, 10, 32, 0, 3]);
        packet.extend([0x9c, 0x40, 0, 80, 1, 2, 3, 4]);
        packet
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend("fd10:32::2".parse::<Ipv6Addr>().expect("address").octets());
        packet.extend("fd10:32::3".parse::<Ipv6Addr>().expect("address").octets());
        packet.extend(rest);
        packet
    }

    fn headers(protocol: Protocol, ports: Option<(u16, u16)>, icmp_type: Option<u8>) -> Headers {
        Headers {
            source: "10.32.0.2".parse().expect("address"),
            destination: "10.32.0.3".parse().expect("address"),
            protocol,
            ports,
            icmp_type,
        }
    }

    #[test]
    fn ports_and_icmp_types_are_read_where_they_are() {
        let ports = Some((40_000, 80));
        for (packet, expected) in [
            (v4(6, 0), headers(Protocol::TCP, ports, None)),
            (v4(17, 0x2000), headers(Protocol::UDP, ports, None)),
            // A later fragment.
            (v4(17, 0x2001), headers(Protocol::UDP, None, None)),
            (v4(1, 0), headers(Protocol::ICMP, None, Some(0x9c))),
            (v4(47, 0), headers(Protocol(47), None, None)),
        ] {
            assert_eq!(Headers::read(&packet), Some(expected));
        }
    }

    #[test]
    fn extension_headers_are_skipped() {
        let segment = [0x9c, 0x40, 0, 80];
        let hop_by_hop = [&[6, 0, 0, 0, 0, 0, 0, 0][..], &segment].concat();
        let fragment = |offset: u8| [&[17, 0, 0, offset, 0, 0, 0, 1][..], &segment].concat();
        let read = |packet: Vec<u8>| {
            let headers = Headers::read(&packet).expect("a packet");
            (headers.protocol, headers.ports, headers.icmp_type)
        };
        let ports = Some((40_000, 80));
        assert_eq!(read(v6(6, &segment)), (Protocol::TCP, ports, None));
        assert_eq!(read(v6(0, &hop_by_hop)), (Protocol::TCP, ports, None));
        assert_eq!(read(v6(44, &fragment(0))), (Protocol::UDP, ports, None));
        assert_eq!(read(v6(44, &fragment(8))), (Protocol::UDP, None, None));
        assert_eq!(read(v6(58, &[128, 0])), (Protocol::ICMP6, None, Some(128)));
    }

    #[test]
    fn what_is_cut_short_is_read_as_far_as_it_goes() {
        let (four, six) = (v4(6, 0), v6(0, &[6, 200, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]));
        for packet in [four, six] {
            for end in 0..packet.len() {
                if let Some(headers) = Headers::read(&packet[..end]) {
                    assert!(headers.ports.is_none() || end >= 24, "{end}: {headers:?}");
                }
            }
        }
    }

    #[test]
    fn a_logged_packet_tells_prefix_hook_and_port_of_departure() {
        let datagram = request(kind(ULOG, PACKET), 0, 86, |message| {
            message.attr(PACKET_HDR, &[8, 0, 2, 0]);
            message.text(PREFIX, "weft-deny-ingress");
            message.attr(IFINDEX_PHYSOUTDEV, &7_u32.to_be_bytes());
            message.attr(PAYLOAD, &v4(6, 0));
        });
        assert_eq!(
            read(&datagram),
            [Logged {
                prefix: "weft-deny-ingress".to_owned(),
                hook: Some(Hook::Forward),
                phys_out: Some(7),
                headers: headers(Protocol::TCP, Some((40_000, 80)), None),
            }]
        );
    }
}
