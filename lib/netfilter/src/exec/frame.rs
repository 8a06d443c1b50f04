//! Frames of nfnetlink (linux/netlink.h, linux/netfilter/nfnetlink.h), as much as it takes to read
//! events and to ask small questions. Everything read is bounds-checked; what is cut short ends the
//! reading.

/// `NETLINK_NETFILTER`.
pub(super) const PROTOCOL: isize = 12;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const DUMP: u16 = 0x300;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Of `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
/// The rest of a type are flags (nested, network byte order).
const TYPE: u16 = 0x3fff;

/// What a datagram holds, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A message of a subsystem.
    Data(Data<'a>),
    /// End of a dump, or the answer to a request: 0, or a negative error number.
    End(i32),
}

/// A message of a subsystem.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Data<'a> {
    /// `NFNL_SUBSYS_*`.
    pub(super) subsystem: u8,
    /// Kind, as the subsystem counts them.
    pub(super) kind: u8,
    /// Port of the socket that asked for this; the process id of a program with one socket.
    pub(super) sender: u32,
    /// `NFPROTO_*`.
    pub(super) family: u8,
    attributes: &'a [u8],
}

impl<'a> Data<'a> {
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.attributes)
    }
}

/// The messages of a datagram.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|m| m.len() >= HEADER)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        let kind = u16_at(message, 4)?;
        Some(match kind {
            ERROR | DONE => Message::End(u32_at(message, HEADER)?.cast_signed()),
            _ => {
                let [subsystem, kind] = kind.to_be_bytes();
                Message::Data(Data {
                    subsystem,
                    kind,
                    sender: u32_at(message, 12)?,
                    family: *message.get(HEADER)?,
                    attributes: message.get(HEADER + FAMILY_HEADER..)?,
                })
            }
        })
    })
}

/// Attributes with their types, flags taken off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those inside a nested attribute.
    pub(super) fn inside(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// The payload of the first of a type.
    pub(super) fn get(self, wanted: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find_map(|(kind, payload)| (kind == wanted).then_some(payload))
    }

    /// The first of a type as text, without the zero at its end.
    pub(super) fn text(self, wanted: u16) -> Option<&'a str> {
        let payload = self.get(wanted)?;
        let end = payload.iter().position(|b| *b == 0);
        std::str::from_utf8(payload.get(..end.unwrap_or(payload.len()))?).ok()
    }

    /// The first of a type as a number in network byte order.
    pub(super) fn number(self, wanted: u16) -> Option<u32> {
        let payload = self.get(wanted)?;
        Some(u32::from_be_bytes(payload.try_into().ok()?))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A request in the making.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// `id` is what `nfgenmsg` calls the resource (a group of NFLOG; else 0).
    pub(super) fn new(subsystem: u8, kind: u8, flags: u16, id: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(u16::from_be_bytes([subsystem, kind]).to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        // Sequence number and port: one request at a time on a socket of its own.
        bytes.extend([0; 8]);
        // Family unspecified, version 0.
        bytes.extend([0; 2]);
        bytes.extend(id.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn with(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend((kind & !NESTED).to_ne_bytes());
        self.0.extend(payload);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    pub(super) fn bytes(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram() -> Vec<u8> {
        let first = Request::new(10, 6, ACK, 0)
            .with(1, b"filter\0")
            .with(2, b"FORWARD\0")
            .bytes();
        let second = Request::new(4, 0, 0, 86).with(9, &[1, 2, 3]).bytes();
        [first, second].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let datagram = datagram();
        let read: Vec<_> = messages(&datagram)
            .map(|message| match message {
                Message::Data(data) => (
                    data.subsystem,
                    data.kind,
                    data.attributes().collect::<Vec<_>>(),
                ),
                Message::End(_) => panic!("no end was written"),
            })
            .collect();
        assert_eq!(
            read,
            [
                (10, 6, vec![(1, &b"filter\0"[..]), (2, b"FORWARD\0")]),
                (4, 0, vec![(9, &[1_u8, 2, 3][..])]),
            ]
        );
    }

    #[test]
    fn what_is_cut_short_ends_the_reading() {
        let datagram = datagram();
        for end in 0..datagram.len() {
            let read = messages(&datagram[..end])
                .flat_map(|message| match message {
                    Message::Data(data) => data.attributes().collect::<Vec<_>>(),
                    Message::End(_) => Vec::new(),
                })
                .count();
            assert!(read < 3, "{read} attributes of {end} bytes");
        }
        // Lengths that lie.
        for byte in 0..datagram.len() {
            let mut lies = datagram.clone();
            lies[byte] = 0xff;
            for message in messages(&lies) {
                if let Message::Data(data) = message {
                    data.attributes().for_each(drop);
                }
            }
            lies[byte] = 0;
            assert!(messages(&lies).count() <= 2);
        }
    }
}
