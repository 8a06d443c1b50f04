use super::*;

const MAC: MacAddr = MacAddr([0x0a, 0x58, 10, 32, 0, 5]);

#[test]
fn an_arp_announcement_asks_for_the_own_address() {
    let frame = frame(MAC, "10.32.0.5".parse().unwrap());
    assert_eq!(frame.len(), 42);
    assert_eq!(
        frame[..14],
        [255, 255, 255, 255, 255, 255, 0x0a, 0x58, 10, 32, 0, 5, 8, 6]
    );
    assert_eq!(frame[28..32], [10, 32, 0, 5]);
    assert_eq!(frame[38..], [10, 32, 0, 5]);
}

#[test]
fn a_neighbour_advertisement_sums_to_zero() {
    let address: Ipv6Addr = "fd00:10::5".parse().unwrap();
    let frame = frame(MAC, address.into());
    assert_eq!(frame.len(), 14 + 40 + 32);
    let all_nodes = "ff02::1".parse().unwrap();
    // Over a message that carries its checksum the sum is 0.
    assert_eq!(checksum(address, all_nodes, &frame[54..]), 0);
}
