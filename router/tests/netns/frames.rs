//! Ethernet frames made by hand, with a marker at the end.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
            socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};
use weft_netlink::MacAddr;
use weft_testkit::netns::Netns;

const MARKER: &[u8] = b"weft-test-marker-0123456789";

/// Sends `frame` out of `from`'s eth0; does it arrive at `to`'s?
pub(crate) fn arrives(from: &Netns, to: &Netns, frame: Vec<u8>) -> bool {
    let ear = to.run(|| {
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .unwrap();
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(0, 50_000)).unwrap();
        fd
    });
    let sent = frame.clone();
    from.run(move || {
        let to = getifaddrs()
            .unwrap()
            .filter(|i| i.interface_name == "eth0")
            .find_map(|i| i.address?.as_link_addr().copied())
            .unwrap();
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        sendto(fd.as_raw_fd(), &frame, &to, MsgFlags::empty()).unwrap();
    });
    to.run(move || {
        let start = Instant::now();
        let mut buffer = [0; 2048];
        while start.elapsed() < Duration::from_millis(300) {
            match recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(n) if buffer[..n].ends_with(MARKER) => return true,
                // br_netfilter cuts what stands behind an IPv6 packet.
                Ok(n) if n >= 42 && sent.starts_with(&buffer[..n]) => return true,
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(e) => panic!("recv: {e}"),
            }
        }
        false
    })
}

pub(crate) fn ethernet(to: MacAddr, from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame.extend(MARKER);
    frame
}

/// The same frame with an 802.1Q tag.
pub(crate) fn tagged(frame: &[u8], tpid: u16) -> Vec<u8> {
    let mut out = frame[..12].to_vec();
    out.extend(tpid.to_be_bytes());
    out.extend([0, 7]);
    out.extend(&frame[12..]);
    out
}

pub(crate) fn udp4(from: Ipv4Addr, to: Ipv4Addr, sport: u16, dport: u16) -> Vec<u8> {
    let length = (28 + MARKER.len()) as u16;
    let mut p = vec![0x45, 0];
    p.extend(length.to_be_bytes());
    p.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    p.extend(from.octets());
    p.extend(to.octets());
    let sum = p
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    p[10..12].copy_from_slice(&sum.to_be_bytes());
    p.extend(sport.to_be_bytes());
    p.extend(dport.to_be_bytes());
    p.extend((length - 20).to_be_bytes());
    p.extend([0, 0]);
    p
}

pub(crate) fn arp(op: u8, hw: MacAddr, ip: IpAddr, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(ip), IpAddr::V4(target)) = (ip, target) else {
        panic!("ARP is of IPv4")
    };
    let mut p = vec![0, 1, 8, 0, 6, 4, 0, op];
    p.extend(hw.0);
    p.extend(ip.octets());
    p.extend([0; 6]);
    p.extend(target.octets());
    p
}

/// An IPv6 packet that carries nothing (next header 59).
pub(crate) fn empty6(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else {
        panic!("both are of IPv6")
    };
    let mut p = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
    p.extend(from.octets());
    p.extend(to.octets());
    p
}

/// An ICMPv6 message of neighbour discovery with one option; the marker counts as trailer.
pub(crate) fn ndp(from: IpAddr, kind: u8, target: IpAddr, option: u8, hw: MacAddr) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(target)) = (from, target) else {
        panic!("NDP is of IPv6")
    };
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut icmp = vec![kind, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([option, 1]);
    icmp.extend(hw.0);
    let mut pseudo = [from.octets(), all_nodes.octets()].concat();
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&icmp);
    let mut sum: u32 = pseudo
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    icmp[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut p = vec![0x60, 0, 0, 0, 0, 32, 58, 255];
    p.extend(from.octets());
    p.extend(all_nodes.octets());
    p.extend(icmp);
    p
}
