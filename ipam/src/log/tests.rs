use super::{Chain, Damage, Decoded, Identity, Record, decode, encode};
use crate::node::{Attachment, Pod, Reservation};

fn records() -> Vec<Record> {
    vec![
        Record::Header {
            format: 1,
            identity: Identity {
                cluster: "c".into(),
                node: "n1".into(),
            },
            last_seq: 0,
        },
        Record::Reserve(Reservation {
            seq: 1,
            id: Attachment {
                container_id: "a".into(),
                ifname: "eth0".into(),
            },
            pod: Pod {
                namespace: "ns".into(),
                name: "web".into(),
                uid: "u".into(),
            },
            pool: "default".into(),
            addresses: vec!["10.32.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            at: 1000,
        }),
        Record::Release { seq: 1, at: 1010 },
        Record::Cold {
            address: "10.32.0.2".parse().unwrap(),
            at: 1010,
        },
        Record::Quarantine { at: 1020 },
    ]
}

fn log(records: &[Record]) -> Vec<u8> {
    let mut chain = Chain::default();
    records
        .iter()
        .flat_map(|r| encode(r, &mut chain).unwrap())
        .collect()
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, Damage> {
    decode(bytes).map(|d| d.records.into_iter().map(|(_, r)| r).collect())
}

#[test]
fn what_was_written_is_read() {
    let bytes = log(&records());
    let Decoded {
        records: read,
        length,
        ..
    } = decode(&bytes).unwrap();
    assert_eq!(
        read.into_iter().map(|(_, r)| r).collect::<Vec<_>>(),
        records()
    );
    assert_eq!(length, bytes.len());
    assert_eq!(decode(&[]).unwrap().records, vec![]);
}

#[test]
fn cut_at_any_byte_it_is_a_prefix() {
    let all = records();
    let bytes = log(&all);
    for cut in 0..bytes.len() {
        let read = read(&bytes[..cut]).unwrap();
        assert!(read.len() < all.len());
        assert_eq!(read, all[..read.len()], "cut at {cut}");
    }
}

#[test]
fn a_tail_of_zeros_is_cut() {
    let mut bytes = log(&records());
    let length = bytes.len();
    bytes.extend([0; 4096]);
    assert_eq!(decode(&bytes).unwrap().length, length);
}

#[test]
fn any_flipped_bit_is_noticed() {
    let bytes = log(&records());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(
                matches!(read(&flipped), Err(Damage::Corrupt(_))),
                "bit {bit} of byte {at}"
            );
        }
    }
}

#[test]
fn frames_that_were_lost_repeated_or_moved_are_noticed() {
    let mut chain = Chain::default();
    let frames: Vec<Vec<u8>> = records()
        .iter()
        .map(|r| encode(r, &mut chain).unwrap())
        .collect();
    let lost = [&frames[0], &frames[2]].map(Vec::as_slice).concat();
    let repeated = [&frames[0], &frames[1], &frames[1]]
        .map(Vec::as_slice)
        .concat();
    let moved = [&frames[0], &frames[2], &frames[1]]
        .map(Vec::as_slice)
        .concat();
    for bytes in [lost, repeated, moved] {
        assert!(matches!(read(&bytes), Err(Damage::Corrupt(_))));
    }
}

#[test]
fn text_is_corrupt_and_a_length_without_end_is_not_followed() {
    assert_eq!(
        read(b"hello, I am not a log of addresses"),
        Err(Damage::Corrupt(0))
    );
    assert_eq!(read(&[0xff; 64]), Err(Damage::Corrupt(0)));
}
