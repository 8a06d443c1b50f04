use super::*;
use crate::{Element, Protocol, SetName, plan::SetOp};

fn set(name: &str) -> SetName {
    SetName::new(name).expect("name")
}

fn addr(text: &str) -> Element {
    Element::Addr(text.parse().expect("address"))
}

/// Bytes of digits, blanks left out.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hex"))
        .collect()
}

/// What `ipset restore` 7.17 sends for the same three lines (taken with strace), but for the version
/// of the protocol.
#[test]
#[cfg(target_endian = "little")]
fn elements_are_sent_as_ipset_sends_them() {
    let net = |text: &str| text.parse().expect("net");
    let ops = [
        Element::NetPort(net("10.1.0.0/16"), Protocol::TCP, 80),
        Element::NetPort(net("10.2.0.0/16"), Protocol::SCTP, 81),
        Element::NetPort(net("10.3.0.1/32"), Protocol::UDP, 82),
    ]
    .map(|element| SetOp::Add(set("foo"), element));
    let expected = hex("b8000000 0906 0502 07000000 00000000 02 00 0000
         0500 0100 06 000000  0800 0200 666f6f00  0800 0940 00000001
         8c00 0880
         3000 0780 0c00 0180 0800 0140 0a010000 0500 0300 10 000000 0600 0440 0050 0000
                   0500 0700 06 000000 0800 0940 00000001
         3000 0780 0c00 0180 0800 0140 0a020000 0500 0300 10 000000 0600 0440 0051 0000
                   0500 0700 84 000000 0800 0940 00000002
         2800 0780 0c00 0180 0800 0140 0a030001 0600 0440 0052 0000
                   0500 0700 11 000000 0800 0940 00000003");
    let run = ElementRun {
        lines: 3,
        bytes: expected,
        sequence: 7,
    };
    assert_eq!(element_runs(&ops, 7), Some(vec![run]));
}

#[test]
fn a_run_is_of_one_set_and_one_verb_and_order_is_kept() {
    let (a, b) = (set("a"), set("b"));
    let ops = [
        SetOp::Del(a.clone(), addr("10.0.0.1")),
        SetOp::Del(a.clone(), addr("10.0.0.2")),
        SetOp::Add(a.clone(), addr("10.0.0.3")),
        SetOp::Add(b, addr("fd00::3")),
        SetOp::Add(a, addr("10.0.0.4")),
    ];
    let runs = element_runs(&ops, 1).expect("elements only");
    let shape: Vec<_> = runs.iter().map(|run| (run.lines, run.sequence)).collect();
    assert_eq!(shape, [(2, 1), (1, 2), (1, 3), (1, 4)]);
}

#[test]
fn what_is_no_element_is_left_to_the_tool() {
    let ops = [
        SetOp::Add(set("a"), addr("10.0.0.1")),
        SetOp::Flush(set("a")),
    ];
    assert_eq!(element_runs(&ops, 1), None);
}

#[test]
fn attributes_stay_below_their_limit() {
    let address = |n: u32| std::net::IpAddr::from(n.to_be_bytes());
    let ops: Vec<SetOp> = (0..1025)
        .map(|n| SetOp::Add(set("a"), Element::Addr(address(n))))
        .collect();
    let runs = element_runs(&ops, 1).expect("elements only");
    let lines: Vec<_> = runs.iter().map(|run| run.lines).collect();
    assert_eq!(lines, [512, 512, 1]);
    assert!(runs.iter().all(|run| run.bytes.len() < 1 << 16));
}

/// What `nft -f` 1.0.6 sends for `add element` and `delete element` (taken with strace), but for the
/// set's id, which it adds, EXCL, and the request for an acknowledgement.
#[test]
#[cfg(target_endian = "little")]
fn a_batch_is_what_nft_sends() {
    let key = concatenation(&[
        &interface("vethwepl0000001"),
        &[0x0a, 0x58, 0x0a, 0x20, 0, 5],
        &[10, 32, 0, 5],
    ]);
    let change = |add| ElementChange {
        set: "v4",
        add,
        keys: vec![key.clone()],
    };
    let key = "76657468 7765706c 30303030 30303100 0a580a20 00050000 0a200005";
    let element = format!(
        "0900 0100 7765667400 000000  0700 0200 763400 00
         2c00 0380 2800 0180 2400 0180 2000 0100 {key}"
    );
    let expected = hex(&format!(
        "14000000 1000 0100 00000000 00000000 00 00 000a
         54000000 0e0a 0100 01000000 00000000 07 00 0000 {element}
         54000000 0c0a 0506 02000000 00000000 07 00 0000 {element}
         14000000 1100 0100 03000000 00000000 00 00 000a"
    ));
    let transaction = Transaction {
        bytes: expected,
        acknowledged: 2,
    };
    assert_eq!(
        Transaction::new(7, "weft", &[change(false), change(true)]),
        Some(transaction)
    );
}

/// The answer is laid out as `nf_tables_fill_gen_info` does: generation, process id and name.
#[test]
#[cfg(target_endian = "little")]
fn the_generation_is_asked_for_and_read() {
    let asked = hex("14000000 100a 0100 00000000 00000000 00 00 0000");
    assert_eq!(generation_request(), asked);
    let answer = |kind: &str| {
        hex(&format!(
            "2c000000 {kind} 0000 00000000 67120000 00 00 0102
             0800 0100 00000102  0800 0200 00001267  0800 0300 6e667400"
        ))
    };
    let told = |bytes: &[u8]| match messages(bytes).next() {
        Some(Message::Data(data)) => generation(&data),
        Some(Message::End(_)) | None => None,
    };
    assert_eq!(told(&answer("0f0a")), Some(258));
    // A table, and generation 258 of something else.
    assert_eq!([told(&answer("000a")), told(&answer("0f06"))], [None; 2]);
}

#[test]
fn a_batch_of_nothing_and_one_that_is_too_large_are_none() {
    let change = |keys| ElementChange {
        set: "v4",
        add: true,
        keys,
    };
    assert_eq!(Transaction::new(7, "weft", &[change(vec![])]), None);
    let many = change(vec![vec![0; 28]; 1001]);
    assert_eq!(Transaction::new(7, "weft", &[many]), None);
}

#[test]
#[cfg(target_endian = "little")]
fn answers_are_read_and_garbage_ends_them() {
    let done = "24000000 0200 0001 05000000 00000000 00000000
                14000000 0906 0502 05000000 00000000";
    // EEXIST (17) for the second element, as ipset reports it.
    let refused = "38000000 0200 0000 06000000 00000000 efffffff
                   24000000 0906 0502 06000000 00000000 02 00 0000
                   0500 0100 06 000000  0800 0940 00000002";
    let mut datagram = hex(&format!("{done} {refused}"));
    datagram.extend([9, 0, 0, 0]);
    let found: Vec<Answer> = answers(&datagram).collect();
    let expected = [
        Answer {
            sequence: 5,
            error: 0,
            line: None,
        },
        Answer {
            sequence: 6,
            error: 17,
            line: Some(2),
        },
    ];
    assert_eq!(found, expected);
}

fn datagram() -> Vec<u8> {
    let first = request(kind(10, 6), ACK, 0, |message| {
        message.text(1, "filter");
        message.text(2, "FORWARD");
    });
    let second = request(kind(4, 0), 0, 86, |message| message.attr(9, &[1, 2, 3]));
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

#[test]
#[cfg(target_endian = "little")]
fn the_end_of_a_list_is_an_answer() {
    let done = hex("14000000 0300 0200 05000000 00000000 00000000");
    let end = Message::End(Answer {
        sequence: 5,
        error: 0,
        line: None,
    });
    assert_eq!(messages(&done).collect::<Vec<_>>(), [end]);
}
