use super::{checksum, gratuitous_arp, neighbour_advertisement};

const MAC: [u8; 6] = [0x0a, 0x58, 0x0a, 0x20, 0x00, 0x05];

#[test]
fn gratuitous_arp_is_a_broadcast_request_for_the_own_address() {
    let frame = gratuitous_arp(MAC, [10, 32, 0, 5].into());
    #[rustfmt::skip]
    let expected = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0a, 0x58, 0x0a, 0x20, 0x00, 0x05, 0x08, 0x06,
        0, 1, 8, 0, 6, 4, 0, 1,
        0x0a, 0x58, 0x0a, 0x20, 0x00, 0x05, 10, 32, 0, 5,
        0, 0, 0, 0, 0, 0, 10, 32, 0, 5,
    ];
    assert_eq!(frame, expected);
}

#[test]
fn neighbour_advertisement_is_to_all_nodes_with_override_and_a_right_checksum() {
    let address = "fd00:10::5".parse().unwrap();
    let frame = neighbour_advertisement(MAC, address);
    assert_eq!(frame.len(), 14 + 40 + 32);
    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(frame[12..14], [0x86, 0xdd]);
    // Payload length 32, ICMPv6, hop limit 255.
    assert_eq!(frame[18..22], [0, 32, 58, 255]);
    let icmp = &frame[54..];
    assert_eq!((icmp[0], icmp[1], icmp[4]), (136, 0, 0x20));
    assert_eq!(icmp[24..32], [2, 1, 0x0a, 0x58, 0x0a, 0x20, 0x00, 0x05]);
    // Summed with its checksum, a right message gives zero.
    assert_eq!(checksum(address, "ff02::1".parse().unwrap(), icmp), 0);
}
