//! Gratuitous ARP and neighbour advertisements for pods of this node, sent out of `weave`.
//!
//! A MAC follows its address to another node while peers hold a learned entry: the plugin announces
//! when the port comes up, the router again after 1 and 3 seconds.

#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use weft_fabric::names::WEAVE;
use weft_netlink::MacAddr;

/// Announces now + 1 s and + 3 s, in the background.
pub(crate) fn repeat(mac: MacAddr, addresses: Vec<IpAddr>) {
    tokio::spawn(async move {
        for pause in [1, 2] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            if let Err(error) = announce(mac, &addresses) {
                tracing::debug!(%mac, %error, "Cannot announce a pod");
            }
        }
    });
}

fn announce(mac: MacAddr, addresses: &[IpAddr]) -> Result<(), Errno> {
    let to = link_address(WEAVE)?;
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    for address in addresses {
        sendto(
            fd.as_raw_fd(),
            &frame(mac, *address),
            &to,
            MsgFlags::empty(),
        )?;
    }
    Ok(())
}

/// The packet address of an interface, as the kernel lists it. Its protocol is 0: the kernel reads
/// the ethertype out of the frame.
fn link_address(ifname: &str) -> Result<LinkAddr, Errno> {
    getifaddrs()?
        .filter(|i| i.interface_name == ifname)
        .find_map(|i| i.address?.as_link_addr().copied())
        .ok_or(Errno::ENODEV)
}

fn frame(mac: MacAddr, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => gratuitous_arp(mac, a),
        IpAddr::V6(a) => neighbour_advertisement(mac, a),
    }
}

/// An ARP announcement (RFC 5227, 2.3): a request for the own address.
fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], mac, 0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac.0);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement with the override flag (RFC 4861, 7.2.6).
fn neighbour_advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut icmp = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    icmp.extend(address.octets());
    icmp.extend([2, 1]);
    icmp.extend(mac.0);
    let [high, low] = checksum(address, all_nodes, &icmp).to_be_bytes();
    icmp[2] = high;
    icmp[3] = low;
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((icmp.len() as u16).to_be_bytes());
    // Hop limit 255: what came from farther is no neighbour.
    frame.extend([58, 255]);
    frame.extend(address.octets());
    frame.extend(all_nodes.octets());
    frame.extend(icmp);
    frame
}

fn ethernet(to: [u8; 6], from: MacAddr, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(to);
    frame.extend(from.0);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// ICMPv6 checksum with its pseudo header (RFC 8200, 8.1).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, icmp: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend((icmp.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 58]);
    bytes.extend(icmp);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
