//! Elements of nf_tables' sets: one batch, which the kernel takes as a whole or not at all; and the
//! number of batches that the kernel has taken.

use super::message::{ACK, CREATE, Data, EXCL, Writer, request};

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`, and the subsystem they name as their resource.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NF_TABLES: u16 = 10;
/// `NFT_MSG_NEWSETELEM`, `NFT_MSG_DELSETELEM`.
const NEW: u16 = NF_TABLES << 8 | 12;
const DELETE: u16 = NF_TABLES << 8 | 14;
/// `NFT_MSG_NEWGEN`, which answers `NFT_MSG_GETGEN`, and `NFTA_GEN_ID`.
const NEW_GENERATION: u8 = 15;
const GET_GENERATION: u16 = NF_TABLES << 8 | 16;
const GENERATION_ID: u16 = 1;
/// `NFTA_SET_ELEM_LIST_*`, `NFTA_LIST_ELEM`, `NFTA_SET_ELEM_KEY`, `NFTA_DATA_VALUE`.
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;

/// Most elements of one batch: it must fit into the buffer of a socket. More are for the tool.
const MOST: usize = 1000;

/// Elements that enter or leave one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementChange {
    /// Name of the set.
    pub set: &'static str,
    /// They enter it.
    pub add: bool,
    /// Keys, as they are in the kernel's registers (see [`concatenation`]).
    pub keys: Vec<Vec<u8>>,
}

/// A batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The messages.
    pub bytes: Vec<u8>,
    /// Sequence number of the message that is acknowledged: the last before the end.
    pub acknowledged: u32,
}

impl Transaction {
    /// Element changes of sets of one table; what is there already cannot be added. `None`: no
    /// element, or too many.
    #[must_use]
    pub fn new(family: u8, table: &str, changes: &[ElementChange]) -> Option<Self> {
        let elements: Vec<(&ElementChange, &Vec<u8>)> = changes
            .iter()
            .flat_map(|change| change.keys.iter().map(move |key| (change, key)))
            .collect();
        if elements.is_empty() || elements.len() > MOST {
            return None;
        }
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, 0, 0, 0, NF_TABLES, |_| {});
        let last = elements.len();
        let mut sequence = 0;
        for (number, (change, key)) in (1..).zip(elements) {
            sequence += 1;
            // Old kernels do not acknowledge the end of a batch, all do its messages.
            let ack = if number == last { ACK } else { 0 };
            let (kind, flags) = match change.add {
                true => (NEW, CREATE | EXCL),
                false => (DELETE, 0),
            };
            writer.message(kind, flags | ack, sequence, family, 0, |message| {
                message.text(LIST_TABLE, table);
                message.text(LIST_SET, change.set);
                message.nest(LIST_ELEMENTS, |list| {
                    list.nest(LIST_ELEMENT, |element| {
                        element.nest(ELEMENT_KEY, |data| data.attr(DATA_VALUE, key));
                    });
                });
            });
        }
        writer.message(BATCH_END, 0, sequence + 1, 0, NF_TABLES, |_| {});
        Some(Self {
            bytes: writer.finish(),
            acknowledged: sequence,
        })
    }
}

/// Asks for the generation of the ruleset.
#[must_use]
pub fn generation_request() -> Vec<u8> {
    request(GET_GENERATION, 0, 0, |_| {})
}

/// The generation that a message tells; `None`: it is about something else.
#[must_use]
pub fn generation(message: &Data<'_>) -> Option<u32> {
    let told = u16::from(message.subsystem) == NF_TABLES && message.kind == NEW_GENERATION;
    told.then(|| message.attributes().number(GENERATION_ID))?
}

/// The key of a set whose type is a concatenation: every field fills up registers of 4 bytes.
#[must_use]
pub fn concatenation(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for field in fields {
        key.extend(*field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// The name of an interface as a key: 16 bytes, padded with zeros.
#[must_use]
pub fn interface(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    for (place, byte) in key.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    key
}
