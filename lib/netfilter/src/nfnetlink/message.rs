//! Framing: messages, attributes, answers.

/// `NLM_F_*`.
pub(super) const REQUEST: u16 = 1;
pub(super) const ACK: u16 = 4;
pub(super) const EXCL: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
/// `NLMSG_ERROR`, which is also the acknowledgement.
const ERROR: u16 = 2;
/// `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`.
const NESTED: u16 = 0x8000;
pub(super) const BIG_ENDIAN: u16 = 0x4000;

const HEADER: usize = 16;

/// Messages that are sent together.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A message with `struct nfgenmsg` of this family and resource; `fill` adds attributes.
    pub(super) fn message(
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
    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) {
        self.nest_raw(kind, |writer| writer.bytes.extend(value));
    }

    /// A text attribute, with the closing zero.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.nest_raw(kind, |writer| {
            writer.bytes.extend(value.as_bytes());
            writer.bytes.push(0);
        });
    }

    /// An attribute that holds attributes. Those who call keep it below 64 KiB.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nest_raw(kind | NESTED, fill);
    }

    fn nest_raw(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.put(start, &length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
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

/// Acknowledgements and errors in a datagram; other messages are left out, garbage ends it.
pub fn answers(datagram: &[u8]) -> impl Iterator<Item = Answer> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(u32_at(rest, 0)?).ok()?;
            let message = rest.get(..length).filter(|m| m.len() >= HEADER)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if u16_at(message, 4)? == ERROR {
                return Some(Answer {
                    sequence: u32_at(message, 8)?,
                    error: u32_at(message, HEADER)?.cast_signed().wrapping_neg(),
                    line: line(message),
                });
            }
        }
    })
}

/// `IPSET_ATTR_LINENO` of the request that an error carries, which ipset sets to the element that
/// it refused. Errors that carry no attributes have none.
fn line(message: &[u8]) -> Option<u32> {
    const LINENO: u16 = 9;
    // The error number, then the request: its header and `struct nfgenmsg`.
    let mut rest = message.get(HEADER + 4 + HEADER + 4..)?;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        if u16_at(rest, 2)? & !(NESTED | BIG_ENDIAN) == LINENO {
            return value.try_into().ok().map(u32::from_be_bytes);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let two = bytes.get(at..at + 2)?;
    two.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}
