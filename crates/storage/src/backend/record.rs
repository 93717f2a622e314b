//! How a value is stored: its checksum, then itself.
//!
//! | bytes | content |
//! |---|---|
//! | 0–3 | CRC-32C of key and value, little-endian |
//! | 4– | value |

use std::fmt::Write;

use bytes::Bytes;

const SUM_BYTES: usize = 4;
/// What the engine's leaf pages add to a record: where its key and its value end.
const LEAF_ENTRY_BYTES: u64 = 8;
/// How much of a key a message shows.
const SHOWN_BYTES_MAX: usize = 32;

fn sum(key: &[u8], value: &[u8]) -> [u8; SUM_BYTES] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes()
}

/// Replaces `stored` by the stored form of `value`.
pub(super) fn encode(key: &[u8], value: &[u8], stored: &mut Vec<u8>) {
    stored.clear();
    stored.extend_from_slice(&sum(key, value));
    stored.extend_from_slice(value);
}

/// Returns the value, or nothing when the checksum does not fit.
pub(super) fn decode<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (stored_sum, value) = stored.split_first_chunk::<SUM_BYTES>()?;
    (*stored_sum == sum(key, value)).then_some(value)
}

/// Copies key and value into memory of their own, both into one piece.
pub(super) fn detach(key: &[u8], value: &[u8]) -> (Bytes, Bytes) {
    let mut joined = Vec::with_capacity(key.len() + value.len());
    joined.extend_from_slice(key);
    joined.extend_from_slice(value);
    let mut key_bytes = Bytes::from(joined);
    let value_bytes = key_bytes.split_off(key.len());
    (key_bytes, value_bytes)
}

/// Returns how many bytes of the file a record needs, without its share of branches and of space left over in pages.
pub(super) fn footprint(key_len: usize, stored_len: usize) -> u64 {
    (key_len + stored_len) as u64 + LEAF_ENTRY_BYTES
}

/// Describes a record whose checksum does not fit.
pub(super) fn mismatch(table: &str, key: &[u8]) -> String {
    let mut what = format!("checksum mismatch in table {table}, key ");
    for byte in key.iter().take(SHOWN_BYTES_MAX) {
        // Writing to a string cannot fail.
        let _ = write!(what, "{byte:02x}");
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_the_documented_one() {
        let mut stored = Vec::new();
        encode(b"1234", b"56789", &mut stored);
        // The check value of CRC-32C: the sum of "123456789".
        assert_eq!(stored, b"\x83\x92\x06\xe356789");
        assert_eq!(decode(b"1234", &stored), Some(&b"56789"[..]));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut stored = Vec::new();
        encode(b"k", b"value", &mut stored);
        for bit in 0..stored.len() * 8 {
            stored[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(b"k", &stored), None, "bit {bit}");
            stored[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(decode(b"j", &stored), None);
        assert_eq!(decode(b"k", b"123"), None);
    }
}
