//! Flows of connection tracking, as far as their marks go: one request shows them all, one message
//! each changes bits of a mark.
//!
//! Constants are those of `linux/netfilter/nfnetlink_conntrack.h` and `nf_conntrack_tcp.h`.

use std::net::IpAddr;

use super::message::{ACK, Attributes, DUMP, Data, Writer, kind, request};
use crate::Protocol;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_NEW`, `IPCTNL_MSG_CT_GET`.
const SUBSYSTEM: u8 = 1;
const NEW: u8 = 0;
const GET: u8 = 1;

/// `CTA_*`.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOINFO: u16 = 4;
const MARK: u16 = 8;
const ZONE: u16 = 18;
const MARK_MASK: u16 = 21;
/// `CTA_TUPLE_*`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const TUPLE_ZONE: u16 = 3;
/// `CTA_IP_*`: source and destination.
const IP_V4: [u16; 2] = [1, 2];
const IP_V6: [u16; 2] = [3, 4];
/// `CTA_PROTO_*`.
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const PROTO_ICMP_TYPE: u16 = 5;
const PROTO_ICMPV6_TYPE: u16 = 8;
/// `CTA_PROTOINFO_TCP`, in it `CTA_PROTOINFO_TCP_STATE`, and of that `TCP_CONNTRACK_TIME_WAIT`.
const PROTOINFO_TCP: u16 = 1;
const PROTOINFO_TCP_STATE: u16 = 1;
const TIME_WAIT: u8 = 7;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Source and destination port, for protocols with ports.
    pub ports: Option<(u16, u16)>,
    /// Type of the ICMP or ICMPv6 message.
    pub icmp_type: Option<u8>,
}

/// A flow that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow<'a> {
    /// The direction of its first packet, before translation.
    pub original: Tuple,
    /// The other direction: what answers look like before they are translated back.
    pub reply: Tuple,
    /// Its mark.
    pub mark: u32,
    /// A TCP connection of which both ends have seen the end (TIME_WAIT): nothing but repetitions can
    /// come, and a SYN of the same ports begins a new flow. Not so one that its client has reset
    /// (CLOSE): for ten seconds the kernel lets such a SYN pass as a packet of the old flow
    /// (`nf_conntrack_proto_tcp.c`, `nf_conntrack_tcp_packet`, case `TCP_CONNTRACK_SYN_SENT`).
    pub is_over: bool,
    family: u8,
    /// `CTA_TUPLE_ORIG` as it came: it is the name of the flow.
    name: &'a [u8],
}

/// Asks for every flow, of both families.
#[must_use]
pub fn list() -> Vec<u8> {
    request(kind(SUBSYSTEM, GET), DUMP, 0, |_| {})
}

impl<'a> Flow<'a> {
    /// Reads an entry of the list; `None`: it is none, or one of a zone of somebody's own (their
    /// flows are not the ones that the filter sees).
    #[must_use]
    pub fn read(data: &Data<'a>) -> Option<Self> {
        if (data.subsystem, data.kind) != (SUBSYSTEM, NEW) {
            return None;
        }
        let (mut original, mut reply, mut mark, mut is_over) = (None, None, 0, false);
        for (kind, payload) in data.attributes() {
            match kind {
                TUPLE_ORIG => original = Some(payload),
                TUPLE_REPLY => reply = Some(payload),
                MARK => mark = u32::from_be_bytes(payload.try_into().ok()?),
                PROTOINFO => is_over = closed(payload),
                ZONE if payload != [0, 0] => return None,
                _ => {}
            }
        }
        let name = original?;
        Some(Self {
            original: Tuple::read(name)?,
            reply: Tuple::read(reply?)?,
            mark,
            is_over,
            family: data.family,
            name,
        })
    }

    /// Asks the kernel to make the bits of the flow's mark under `mask` those of `value`, and to say
    /// so. Without `NLM_F_CREATE`: a flow that is gone stays so.
    pub fn set_mark(&self, writer: &mut Writer, sequence: u32, value: u32, mask: u32) {
        let kind = kind(SUBSYSTEM, NEW);
        writer.message(kind, ACK, sequence, self.family, 0, |message| {
            message.nest_bytes(TUPLE_ORIG, self.name);
            message.attr(MARK, &value.to_be_bytes());
            message.attr(MARK_MASK, &mask.to_be_bytes());
        });
    }
}

impl Tuple {
    fn read(payload: &[u8]) -> Option<Self> {
        let tuple = Attributes::inside(payload);
        if tuple.get(TUPLE_ZONE).is_some_and(|zone| zone != [0, 0]) {
            return None;
        }
        let ip = Attributes::inside(tuple.get(TUPLE_IP)?);
        let [source, destination] = match ip.get(IP_V4[0]) {
            Some(_) => IP_V4.map(|kind| v4(ip.get(kind)?)),
            None => IP_V6.map(|kind| v6(ip.get(kind)?)),
        };
        let carried = Attributes::inside(tuple.get(TUPLE_PROTO)?);
        let byte = |kind| carried.get(kind)?.first().copied();
        let port = |kind| {
            let bytes = carried.get(kind)?;
            Some(u16::from_be_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            source: source?,
            destination: destination?,
            protocol: Protocol(byte(PROTO_NUM)?),
            ports: port(PROTO_SRC_PORT).zip(port(PROTO_DST_PORT)),
            icmp_type: byte(PROTO_ICMP_TYPE).or_else(|| byte(PROTO_ICMPV6_TYPE)),
        })
    }
}

fn v4(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    Some(octets.into())
}

fn v6(bytes: &[u8]) -> Option<IpAddr> {
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(octets.into())
}

fn closed(protoinfo: &[u8]) -> bool {
    let state = || {
        let tcp = Attributes::inside(protoinfo).get(PROTOINFO_TCP)?;
        Attributes::inside(tcp)
            .get(PROTOINFO_TCP_STATE)?
            .first()
            .copied()
    };
    state() == Some(TIME_WAIT)
}

#[cfg(test)]
mod tests;
