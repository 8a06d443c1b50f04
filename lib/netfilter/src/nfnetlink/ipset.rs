//! Elements of ipset's sets, as `ipset restore` sends them: several of one set in a message, each
//! with the number of its line.

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{ACK, BIG_ENDIAN, EXCL, Writer};
use crate::{Element, SetName, plan::SetOp};

/// `NFNL_SUBSYS_IPSET << 8`, with `IPSET_CMD_ADD` and `IPSET_CMD_DEL`.
const ADD: u16 = 6 << 8 | 9;
const DEL: u16 = 6 << 8 | 10;
/// `IPSET_PROTOCOL_MIN`: the oldest that kernels since 2.6.39 take; nothing newer is needed.
const PROTOCOL: u8 = 6;

/// `IPSET_ATTR_*` of a command.
const ATTR_PROTOCOL: u16 = 1;
const ATTR_SETNAME: u16 = 2;
const ATTR_DATA: u16 = 7;
const ATTR_ADT: u16 = 8;
const ATTR_LINENO: u16 = 9;
/// `IPSET_ATTR_*` of an element.
const ATTR_IP: u16 = 1;
const ATTR_CIDR: u16 = 3;
const ATTR_PORT: u16 = 4;
const ATTR_PROTO: u16 = 7;
/// `IPSET_ATTR_IPADDR_*`.
const ATTR_IPV4: u16 = 1;
const ATTR_IPV6: u16 = 2;

/// Most elements of one message: an attribute that holds them must stay below 64 KiB.
const MOST: usize = 512;

/// Changes of one set in one message. The kernel makes them one by one and stops at the first that
/// it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementRun {
    /// How many lines of `ipset restore` it stands for.
    pub lines: usize,
    /// The message.
    pub bytes: Vec<u8>,
    /// Its sequence number.
    pub sequence: u32,
}

/// The operations as messages in their order, numbered from `sequence` on; `None` if one of them
/// is none of elements.
#[must_use]
pub fn element_runs(ops: &[SetOp], sequence: u32) -> Option<Vec<ElementRun>> {
    let changes: Option<Vec<(u16, &SetName, Element)>> = ops
        .iter()
        .map(|op| match op {
            SetOp::Add(set, element) => Some((ADD, set, *element)),
            SetOp::Del(set, element) => Some((DEL, set, *element)),
            SetOp::Create(..) | SetOp::Flush(_) | SetOp::Destroy(_) => None,
        })
        .collect();
    let changes = changes?;
    let same =
        |a: &(u16, &SetName, Element), b: &(u16, &SetName, Element)| (a.0, a.1) == (b.0, b.1);
    let runs = changes
        .chunk_by(same)
        .flat_map(|run| run.chunks(MOST))
        .zip(sequence..)
        .map(|(run, sequence)| ElementRun {
            lines: run.len(),
            bytes: message(run, sequence),
            sequence,
        });
    Some(runs.collect())
}

fn message(run: &[(u16, &SetName, Element)], sequence: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    if let Some((command, set, _)) = run.first() {
        // EXCL: as without `-exist`, what is there already cannot be added.
        writer.message(*command, ACK | EXCL, sequence, INET, 0, |message| {
            message.attr(ATTR_PROTOCOL, &[PROTOCOL]);
            message.text(ATTR_SETNAME, set.as_str());
            line(message, 1);
            message.nest(ATTR_ADT, |list| {
                for ((.., element), number) in run.iter().zip(1..) {
                    list.nest(ATTR_DATA, |data| {
                        fill(data, element);
                        line(data, number);
                    });
                }
            });
        });
    }
    writer.finish()
}

/// `AF_INET` in the header, whatever the family of the set is: the tool does so too.
const INET: u8 = 2;

fn line(writer: &mut Writer, number: u32) {
    writer.attr(ATTR_LINENO | BIG_ENDIAN, &number.to_be_bytes());
}

fn fill(data: &mut Writer, element: &Element) {
    let port = match *element {
        Element::Addr(address) => {
            ip(data, address);
            None
        }
        Element::AddrPort(address, protocol, port) => {
            ip(data, address);
            Some((protocol, port))
        }
        Element::Net(net) => {
            network(data, net);
            None
        }
        Element::NetPort(net, protocol, port) => {
            network(data, net);
            Some((protocol, port))
        }
    };
    if let Some((protocol, port)) = port {
        data.attr(ATTR_PORT | BIG_ENDIAN, &port.to_be_bytes());
        data.attr(ATTR_PROTO, &[protocol.0]);
    }
}

fn ip(data: &mut Writer, address: IpAddr) {
    data.nest(ATTR_IP, |nest| match address {
        IpAddr::V4(a) => nest.attr(ATTR_IPV4 | BIG_ENDIAN, &a.octets()),
        IpAddr::V6(a) => nest.attr(ATTR_IPV6 | BIG_ENDIAN, &a.octets()),
    });
}

/// Without a prefix length the kernel takes the longest.
fn network(data: &mut Writer, net: IpNet) {
    ip(data, net.network());
    if net.prefix_len() < net.max_prefix_len() {
        data.attr(ATTR_CIDR, &[net.prefix_len()]);
    }
}
