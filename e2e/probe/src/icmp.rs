//! ICMP echo messages (RFC 792, RFC 4443) as bytes. No I/O here.

/// Length of the echo header.
pub(crate) const HEADER: usize = 8;

/// Kind of echo message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// ICMP.
    V4,
    /// ICMPv6.
    V6,
}

impl Family {
    fn request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }

    fn reply(self) -> u8 {
        match self {
            Self::V4 => 0,
            Self::V6 => 129,
        }
    }
}

/// An echo request with `size` bytes of payload. The checksum is right for ICMP on a raw socket;
/// the kernel computes it itself for ICMPv6 and for unprivileged sockets.
pub(crate) fn request(family: Family, identifier: u16, sequence: u16, size: usize) -> Vec<u8> {
    let mut message = vec![0; HEADER + size];
    message[0] = family.request();
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    for (index, byte) in message[HEADER..].iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// Sequence number and payload of an echo reply; `None` for any other message.
pub(crate) fn reply(family: Family, message: &[u8]) -> Option<(u16, &[u8])> {
    let (header, payload) = message.split_at_checked(HEADER)?;
    (header[0] == family.reply()).then(|| (u16::from_be_bytes([header[6], header[7]]), payload))
}

/// What follows the IPv4 header (raw IPv4 sockets deliver it).
pub(crate) fn after_ipv4_header(packet: &[u8]) -> &[u8] {
    let length = packet
        .first()
        .map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    packet.get(length..).unwrap_or_default()
}

/// Internet checksum (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_carries_its_sequence_and_a_right_checksum() {
        let message = request(Family::V4, 0x1234, 7, 3);
        assert_eq!(message, [8, 0, 0xe3, 0xc3, 0x12, 0x34, 0, 7, 0, 1, 2]);
        // A message with its checksum in place sums up to nothing.
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn only_replies_of_the_family_are_replies() {
        assert_eq!(
            reply(Family::V4, &[0, 0, 0, 0, 0, 0, 0, 9, 1, 2]),
            Some((9, &[1, 2][..]))
        );
        assert_eq!(reply(Family::V4, &[3, 4, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(reply(Family::V6, &[0, 0, 0, 0, 0, 0, 0, 9]), None);
        assert_eq!(reply(Family::V4, &[0, 0]), None);
    }

    #[test]
    fn ipv4_header_is_skipped_by_its_own_length() {
        let mut packet = vec![0x46; 24];
        packet.push(42);
        assert_eq!(after_ipv4_header(&packet), [42]);
        assert_eq!(after_ipv4_header(&[]), [0_u8; 0]);
    }
}
