//! Telling the network where an address lives now: gratuitous ARP, unsolicited neighbour
//! advertisement. Sent from the pod's namespace; the router repeats it later.

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

use crate::netlink::Mac;

/// Announces addresses on an interface of the current network namespace.
pub(crate) fn announce(ifname: &str, mac: Mac, addresses: &[IpAddr]) -> Result<(), Errno> {
    let to = link_address(ifname)?;
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    for address in addresses {
        let frame = match address {
            IpAddr::V4(a) => gratuitous_arp(mac, *a),
            IpAddr::V6(a) => neighbour_advertisement(mac, *a),
        };
        sendto(fd.as_raw_fd(), &frame, &to, MsgFlags::empty())?;
    }
    Ok(())
}

/// The packet address of an interface. There is no safe way to make one up, but the kernel hands
/// them out; its protocol is 0, and the kernel (>= 5.2) reads the ethertype out of the frame.
fn link_address(ifname: &str) -> Result<LinkAddr, Errno> {
    getifaddrs()?
        .filter(|i| i.interface_name == ifname)
        .find_map(|i| i.address?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)
}

/// An ARP announcement (RFC 5227 section 2.3): a request for the own address.
fn gratuitous_arp(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement with the override flag (RFC 4861 section 7.2.6).
fn neighbour_advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(address.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac);
    let [high, low] = checksum(address, ALL_NODES, &icmp).to_be_bytes();
    if let Some(sum) = icmp.get_mut(2..4) {
        sum.copy_from_slice(&[high, low]);
    }
    let length = u16::try_from(icmp.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length);
    frame.extend([58, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// ICMPv6 checksum with its pseudo header (RFC 4443 section 2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let length = u32::try_from(icmp.len()).unwrap_or(u32::MAX);
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
                [high] => u32::from(*high) << 8,
                _ => 0,
            })
            .sum()
    };
    let mut sum = words(&from.octets()) + words(&to.octets()) + words(icmp) + length + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}
