use super::*;
use crate::nfnetlink::{Message, messages, tests::hex};

fn address(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A connection of 10.32.0.2 to 10.96.0.10:80, which is 10.32.0.3:8080 behind it.
const ORIGINAL: &str = "14000180 08000100 0a200002 08000200 0a60000a
    1c000280 05000100 06000000 06000200 9c400000 06000300 00500000";
const REPLY: &str = "14000180 08000100 0a200003 08000200 0a200002
    1c000280 05000100 06000000 06000200 1f900000 06000300 9c400000";

/// What Linux 6.18 says of it (taken with strace from `conntrack -L`), with this `CTA_PROTOINFO_TCP_STATE`
/// and these further attributes.
fn tcp(state: &str, more: &str) -> Vec<u8> {
    let body = hex(&format!(
        "02 00 0000  34000180 {ORIGINAL} 34000280 {REPLY}
         08000300 00000008  08000800 00000005  08000c00 72ebc5e1  08000b00 00000001
         08000700 00000257
         30000480 2c000180 05000100 {state}000000 05000200 00000000 05000300 00000000
         06000400 0a000000 06000500 0a000000 {more}"
    ));
    framed(&body)
}

/// A message of the list.
fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(hex("0001 0200 00000000 00000000"));
    bytes.extend(body);
    bytes
}

fn read(datagram: &[u8]) -> Option<Flow<'_>> {
    match messages(datagram).next()? {
        Message::Data(data) => Flow::read(&data),
        Message::End(_) => None,
    }
}

#[test]
#[cfg(target_endian = "little")]
fn a_flow_is_read_as_the_kernel_writes_it() {
    let datagram = tcp("03", "");
    assert_eq!(
        read(&datagram),
        Some(Flow {
            original: Tuple {
                source: address("10.32.0.2"),
                destination: address("10.96.0.10"),
                protocol: Protocol::TCP,
                ports: Some((40_000, 80)),
                icmp_type: None,
            },
            reply: Tuple {
                source: address("10.32.0.3"),
                destination: address("10.32.0.2"),
                protocol: Protocol::TCP,
                ports: Some((8080, 40_000)),
                icmp_type: None,
            },
            mark: 5,
            is_over: false,
            family: 2,
            name: &hex(ORIGINAL),
        })
    );
}

#[test]
#[cfg(target_endian = "little")]
fn an_echo_of_ipv6_has_a_type_and_no_ports() {
    let [two, three] = ["2", "3"].map(|n| format!("fd00 000000000000000000000000 000{n}"));
    let tuple = |from: &str, to: &str, kind: &str| {
        format!(
            "2c000180 14000300 {from} 14000400 {to}
             24000280 05000100 3a000000 06000700 00070000 05000800 {kind}000000 05000900 00000000"
        )
    };
    let (original, reply) = (tuple(&two, &three, "80"), tuple(&three, &two, "81"));
    let body = hex(&format!("0a 00 0000 54000180 {original} 54000280 {reply}"));
    let expected = |source, destination, kind| Tuple {
        source: address(source),
        destination: address(destination),
        protocol: Protocol::ICMP6,
        ports: None,
        icmp_type: Some(kind),
    };
    assert_eq!(
        read(&framed(&body)),
        Some(Flow {
            original: expected("fd00::2", "fd00::3", 128),
            reply: expected("fd00::3", "fd00::2", 129),
            mark: 0,
            is_over: false,
            family: 10,
            name: &hex(&original),
        })
    );
}

#[test]
#[cfg(target_endian = "little")]
fn a_connection_in_time_wait_is_over_and_one_that_was_reset_is_not() {
    for (state, expected) in [("06", false), ("07", true), ("08", false), ("02", false)] {
        let over = read(&tcp(state, "")).map(|flow| flow.is_over);
        assert_eq!(over, Some(expected), "{state}");
    }
}

#[test]
#[cfg(target_endian = "little")]
fn flows_of_zones_are_somebody_s_own() {
    assert!(read(&tcp("03", "06001200 00000000")).is_some());
    assert_eq!(read(&tcp("03", "06001200 00070000")), None);
}

/// As `conntrack -U -m` does, but for the mask: only its bits change, whoever changes others meanwhile.
#[test]
#[cfg(target_endian = "little")]
fn a_mark_is_changed_under_its_mask_in_the_flow_that_was_read() {
    let datagram = tcp("03", "");
    let flow = read(&datagram).expect("a flow");
    let mut writer = Writer::default();
    flow.set_mark(&mut writer, 7, 0x0800_0000, 0x0800_0000);
    let expected = hex(&format!(
        "58000000 0001 0500 07000000 00000000 02 00 0000
         34000180 {ORIGINAL} 08000800 08000000 08001500 08000000"
    ));
    assert_eq!(writer.finish(), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn everything_is_asked_for_at_once() {
    assert_eq!(
        list(),
        hex("14000000 0101 0103 00000000 00000000 00 00 0000")
    );
}

#[test]
fn what_is_cut_short_is_no_flow_and_lies_do_no_harm() {
    let datagram = tcp("03", "");
    for end in 0..datagram.len() {
        assert_eq!(read(&datagram[..end]), None, "{end}");
    }
    for byte in 0..datagram.len() {
        for value in [0, 1, 5, 0xff] {
            let mut lies = datagram.clone();
            lies[byte] = value;
            // Whatever it reads: it ends.
            let _ = read(&lies);
        }
    }
}
