//! Framing: messages, attributes, answers. Everything read is bounds-checked; what is cut short ends
//! the reading.

/// `NLM_F_*`.
const REQUEST: u16 = 1;
/// The kernel answers also when all is well.
pub const ACK: u16 = 4;
/// Everything there is, in many messages.
pub const DUMP: u16 = 0x300;
pub(super) const EXCL: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
/// `NLMSG_ERROR`, which is also the acknowledgement, and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`; the rest of an attribute's type is what it is.
const NESTED: u16 = 0x8000;
pub(super) const BIG_ENDIAN: u16 = 0x4000;
const TYPE: u16 = 0x3fff;

/// Of `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16;
const FAMILY_HEADER: usize = 4;

/// The type of a message: `NFNL_SUBSYS_*` and the subsystem's own number.
#[must_use]
pub const fn kind(subsystem: u8, message: u8) -> u16 {
    u16::from_be_bytes([subsystem, message])
}

/// One message of its own, for a socket that asks one thing at a time: `resource` is a group of
/// NFLOG, else 0; `fill` adds attributes.
#[must_use]
pub fn request(kind: u16, flags: u16, resource: u16, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(kind, flags, 0, 0, resource, fill);
    writer.finish()
}

/// Messages that are sent together.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A message with `struct nfgenmsg` of this family and resource; `fill` adds attributes.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        // Version 0; the resource is in network order.
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.put(start, &length.to_ne_bytes());
    }

    /// An attribute.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        self.nest_raw(kind, |writer| writer.bytes.extend(value));
    }

    /// A text attribute, with the closing zero.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.nest_raw(kind, |writer| {
            writer.bytes.extend(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// An attribute that holds attributes. Those who call keep it below 64 KiB.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nest_raw(kind | NESTED, fill);
    }

    /// An attribute that holds these, as they were read.
    pub fn nest_bytes(&mut self, kind: u16, attributes: &[u8]) {
        self.nest(kind, |writer| writer.bytes.extend(attributes));
    }

    fn nest_raw(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.put(start, &length.to_ne_bytes());
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// What a datagram holds, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A message of a subsystem.
    Data(Data<'a>),
    /// End of a dump, or the answer to a request.
    End(Answer),
}

/// A message of a subsystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// `NFNL_SUBSYS_*`.
    pub subsystem: u8,
    /// Kind, as the subsystem counts them.
    pub kind: u8,
    /// Port of the socket that asked for this; the process id of a program with one socket.
    pub sender: u32,
    /// `NFPROTO_*`.
    pub family: u8,
    attributes: &'a [u8],
}

impl<'a> Data<'a> {
    /// What it says.
    #[must_use]
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.attributes)
    }
}

/// What the kernel says to one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Sequence number of the message.
    pub sequence: u32,
    /// Error number, positive; 0: done. Subsystems have numbers of their own above 4095.
    pub error: i32,
    /// For an error in a message of ipset: number of the element, from 1, that was refused.
    pub line: Option<u32>,
}

/// The messages of a datagram; garbage ends it.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let message = rest.get(..length).filter(|m| m.len() >= HEADER)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        let kind = u16_at(message, 4)?;
        Some(match kind {
            ERROR | DONE => Message::End(Answer {
                sequence: u32_at(message, 8)?,
                error: u32_at(message, HEADER)?.cast_signed().wrapping_neg(),
                line: line(message),
            }),
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

/// Acknowledgements and errors in a datagram; other messages are left out.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer> + '_ {
    messages(datagram).filter_map(|message| match message {
        Message::End(answer) => Some(answer),
        Message::Data(_) => None,
    })
}

/// `IPSET_ATTR_LINENO` of the request that an error carries, which ipset sets to the element that
/// it refused. Errors that carry no attributes have none.
fn line(message: &[u8]) -> Option<u32> {
    const LINENO: u16 = 9;
    // The error number, then the request: its header and `struct nfgenmsg`.
    let request = message.get(HEADER + 4 + HEADER + FAMILY_HEADER..)?;
    Attributes(request).number(LINENO)
}

/// Attributes with their types, flags taken off.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those inside a nested attribute.
    #[must_use]
    pub fn inside(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// The payload of the first of a type.
    #[must_use]
    pub fn get(self, wanted: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find_map(|(kind, payload)| (kind == wanted).then_some(payload))
    }

    /// The first of a type as text, without the zero at its end.
    #[must_use]
    pub fn text(self, wanted: u16) -> Option<&'a str> {
        let payload = self.get(wanted)?;
        let end = payload.iter().position(|b| *b == 0);
        std::str::from_utf8(payload.get(..end.unwrap_or(payload.len()))?).ok()
    }

    /// The first of a type as a number in network byte order.
    #[must_use]
    pub fn number(self, wanted: u16) -> Option<u32> {
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

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    two.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}
