//! Frames and their checksums.

use super::{Damage, MAX_RECORD, Record};

/// Payload checksum of the last frame; zero before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain(u32);

/// Records of a log and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Records with the offset of their frame.
    pub records: Vec<(usize, Record)>,
    /// Bytes that hold whole records. What is behind is a torn tail and must be cut.
    pub length: usize,
    /// Chain to append with.
    pub chain: Chain,
}

/// Frames one record; advances the chain.
///
/// # Errors
/// The record is larger than [`MAX_RECORD`] (it would not be read back).
pub fn encode(record: &Record, chain: &mut Chain) -> std::io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)?;
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|l| *l as usize <= MAX_RECORD)
        .ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("record of {} bytes, limit {MAX_RECORD}", payload.len()),
            )
        })?;
    let mut frame = Vec::with_capacity(payload.len() + 12);
    frame.extend(length.to_le_bytes());
    frame.extend(header_sum(*chain, length).to_le_bytes());
    frame.extend(&payload);
    *chain = Chain(crc32fast::hash(&payload));
    frame.extend(chain.0.to_le_bytes());
    Ok(frame)
}

/// Reads frames up to the end or a torn tail.
///
/// # Errors
/// [`Damage::Corrupt`] with the offset of the first frame that is neither whole nor torn.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Damage> {
    let mut records = Vec::new();
    let mut chain = Chain::default();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let corrupt = || Damage::Corrupt(at);
        if rest.iter().all(|b| *b == 0) {
            break;
        }
        let (Some(length), Some(sum)) = (word(rest, 0), word(rest, 4)) else {
            break;
        };
        if sum != header_sum(chain, length) || length as usize > MAX_RECORD {
            return Err(corrupt());
        }
        // The length is proven, so a frame that is not all there was cut, not garbled.
        let length = length as usize;
        let (Some(payload), Some(sum)) = (rest.get(8..8 + length), word(rest, 8 + length)) else {
            break;
        };
        if sum != crc32fast::hash(payload) {
            return Err(corrupt());
        }
        let record = serde_json::from_slice(payload).map_err(|_| corrupt())?;
        records.push((at, record));
        chain = Chain(sum);
        at += length + 12;
    }
    Ok(Decoded {
        records,
        length: at,
        chain,
    })
}

fn header_sum(chain: Chain, length: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.0.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_le_bytes)
}
