use std::{fs::File, os::fd::AsFd};

use super::{Veth, format_mac, message, parse_mac};

#[test]
fn macs_are_read_and_written() {
    let mac = [0x0a, 0x58, 0x0a, 0x20, 0x00, 0xff];
    assert_eq!(parse_mac("0a:58:0a:20:00:ff"), Some(mac));
    assert_eq!(format_mac(mac), "0a:58:0a:20:00:ff");
    for bad in [
        "",
        "0a:58:0a:20:00",
        "0a:58:0a:20:00:ff:01",
        "a:58:0a:20:00:ff",
        "0g:58:0a:20:00:ff",
    ] {
        assert_eq!(parse_mac(bad), None, "{bad}");
    }
}

#[test]
fn a_message_reads_back_as_it_was_built() {
    let null = File::open("/dev/null").unwrap();
    let veth = Veth {
        host_name: "vethwepl1a2b3c4",
        pod_name: "eth0",
        pod_mac: [1, 2, 3, 4, 5, 6],
        mtu: 1450,
        bridge: 7,
        netns: null.as_fd(),
    };
    let bytes = veth.create().finish(42);
    let all: Vec<_> = message::messages(&bytes).collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].kind, all[0].sequence), (16, 42));
    let top: Vec<_> = message::attrs(all[0].payload, 16).collect();
    assert_eq!(top[0], (3, b"vethwepl1a2b3c4\0".as_slice()));
    assert_eq!(top[1], (4, 1450_u32.to_ne_bytes().as_slice()));
    assert_eq!(top[2], (10, 7_u32.to_ne_bytes().as_slice()));
    let info: Vec<_> = message::attrs(top[3].1, 0).collect();
    assert_eq!(info[0], (1, b"veth\0".as_slice()));
    let (_, peer) = message::attrs(info[1].1, 0).next().unwrap();
    let peer: Vec<_> = message::attrs(peer, 16).map(|(kind, _)| kind).collect();
    assert_eq!(peer, [3, 1, 4, 28]);
}

#[test]
fn garbage_ends_the_iteration_and_never_panics() {
    let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
    for start in 0..bytes.len() {
        for received in message::messages(&bytes[start..]) {
            let _ = message::attrs(received.payload, 16).count();
        }
        let _ = message::attrs(&bytes[start..], 0).count();
    }
    assert_eq!(message::messages(&[0; 64]).count(), 0);
}
