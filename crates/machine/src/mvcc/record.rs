//! Records: encoded `mvccpb.KeyValue`s, made once when a change is applied and then shared by tail,
//! cache, engine, watchers and replies.
//!
//! The encoding is canonical (fields ascending, defaults omitted), since the store's hash covers
//! these bytes. Parsing is our own, without copies: values stay slices of the record.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::Record;

const KEY: u8 = 0x0a;
const CREATE_REVISION: u8 = 0x10;
const MOD_REVISION: u8 = 0x18;
const VERSION: u8 = 0x20;
const VALUE: u8 = 0x2a;
const LEASE: u8 = 0x30;

/// The fields of a record.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision that created the key; 0 in a tombstone.
    pub create_revision: i64,
    /// The revision of this change; 0 in a tombstone.
    pub mod_revision: i64,
    /// Changes since creation, from 1; 0 in a tombstone.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The attached lease, or 0.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Encodes into a record of exactly the needed size.
    pub fn encode(&self) -> Record {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        put_bytes(&mut out, KEY, self.key);
        put_number(&mut out, CREATE_REVISION, self.create_revision);
        put_number(&mut out, MOD_REVISION, self.mod_revision);
        put_number(&mut out, VERSION, self.version);
        put_bytes(&mut out, VALUE, self.value);
        put_number(&mut out, LEASE, self.lease);
        out.freeze()
    }

    /// Returns the bytes that [`KeyValue::encode`] makes.
    pub fn encoded_len(&self) -> usize {
        bytes_len(self.key)
            + number_len(self.create_revision)
            + number_len(self.mod_revision)
            + number_len(self.version)
            + bytes_len(self.value)
            + number_len(self.lease)
    }

    /// Decodes a record; `None` if it is not a valid encoding. Unknown fields are skipped.
    pub fn decode(mut input: &'a [u8]) -> Option<Self> {
        let mut out = Self::default();
        while !input.is_empty() {
            let tag = take_varint(&mut input)?;
            match u8::try_from(tag) {
                Ok(KEY) => out.key = take_bytes(&mut input)?,
                Ok(CREATE_REVISION) => out.create_revision = take_number(&mut input)?,
                Ok(MOD_REVISION) => out.mod_revision = take_number(&mut input)?,
                Ok(VERSION) => out.version = take_number(&mut input)?,
                Ok(VALUE) => out.value = take_bytes(&mut input)?,
                Ok(LEASE) => out.lease = take_number(&mut input)?,
                _ => skip_field(&mut input, tag)?,
            }
        }
        Some(out)
    }
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number.cast_unsigned());
    }
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.put_u8(number.to_le_bytes()[0]);
}

fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() }
}

fn number_len(number: i64) -> usize {
    if number == 0 { 0 } else { 1 + varint_len(number.cast_unsigned()) }
}

fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Takes a base-128 number off the front of `input`.
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for position in 0..10 {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        if position == 9 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take_number(input: &mut &[u8]) -> Option<i64> {
    Some(take_varint(input)?.cast_signed())
}

/// Takes a length-delimited field off the front of `input`.
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(input)?).ok()?;
    let (bytes, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(bytes)
}

/// Skips the field whose tag was just taken; `None` when its wire type is unknown or it is cut
/// short.
pub(crate) fn skip_field(input: &mut &[u8], tag: u64) -> Option<()> {
    match tag & 7 {
        0 => take_varint(input).map(|_| ()),
        1 => take_fixed(input, 8),
        2 => take_bytes(input).map(|_| ()),
        5 => take_fixed(input, 4),
        _ => None,
    }
}

fn take_fixed(input: &mut &[u8], len: usize) -> Option<()> {
    *input = input.split_at_checked(len)?.1;
    Some(())
}

/// Returns where `key` lies in its record.
pub(crate) fn key_span(key: &[u8]) -> Range<usize> {
    let end = bytes_len(key);
    end - key.len()..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn encoding_equals_the_generated_one(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            numbers in any::<[i64; 4]>(),
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let ours = KeyValue { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let generated = proto::mvccpb::KeyValue {
                key: key.clone().into(), create_revision, mod_revision, version, value: value.clone().into(), lease,
            };
            let record = ours.encode();
            prop_assert_eq!(&record[..], &generated.encode_to_vec()[..]);
            prop_assert_eq!(record.len(), ours.encoded_len());
            prop_assert_eq!(KeyValue::decode(&record), Some(ours));
        }

        #[test]
        fn decoding_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = KeyValue::decode(&bytes);
        }
    }

    #[test]
    fn the_known_record_has_the_known_bytes() {
        let record = KeyValue {
            key: b"a",
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            value: b"1",
            lease: 0,
        }
        .encode();
        assert_eq!(&record[..], b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x011");
    }
}
