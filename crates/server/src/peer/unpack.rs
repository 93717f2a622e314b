//! From bytes to a message of raft, without the surprise that it takes many times its bytes in memory: an entry of two bytes
//! becomes one of half a hundred, and a member may claim millions.

use bytes::Bytes;
use prost::DecodeError;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use proto::raftpb;

/// What a message may take in memory besides its bytes, which it shares: more than a million entries, of which raft sends a
/// megabyte at a time.
pub const UNPACKED_BYTES_MAX: usize = 64 << 20;

/// What an entry takes besides its bytes.
pub const ENTRY_BYTES: usize = size_of::<raftpb::Entry>();

/// Fields of a message, and of a snapshot in it.
const ENTRIES: u32 = 7;
const SNAPSHOT: u32 = 9;
const RESPONSES: u32 = 14;
const METADATA: u32 = 2;

/// Why bytes are no message that a member sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpackable {
    /// They do not decode.
    #[error("cannot decode: {0}")]
    Undecodable(#[from] DecodeError),
    /// It holds too many things.
    #[error("it has so many parts that it would take more than {UNPACKED_BYTES_MAX} bytes")]
    Swells,
    /// It holds other messages, as only those within a member do.
    #[error("it has messages within it")]
    Nested,
}

/// Decodes a message.
pub fn message(bytes: Bytes) -> Result<raftpb::Message, Unpackable> {
    weigh(&bytes)?;
    Ok(raftpb::Message::decode(bytes)?)
}

/// Passes over the fields of a message and counts what they will take.
fn weigh(mut bytes: &[u8]) -> Result<(), Unpackable> {
    let mut unpacked = 0;
    while let Some((tag, field)) = next_field(&mut bytes)? {
        unpacked += match tag {
            ENTRIES => ENTRY_BYTES,
            SNAPSHOT => weigh_snapshot(field)?,
            RESPONSES => return Err(Unpackable::Nested),
            _ => 0,
        };
        if unpacked > UNPACKED_BYTES_MAX {
            return Err(Unpackable::Swells);
        }
    }
    Ok(())
}

/// A snapshot's configuration is a list of numbers of a byte or more; its data stays what it is.
fn weigh_snapshot(mut bytes: &[u8]) -> Result<usize, Unpackable> {
    let mut unpacked = 0;
    while let Some((tag, field)) = next_field(&mut bytes)? {
        if tag == METADATA {
            unpacked += field.len() * size_of::<u64>();
        }
    }
    Ok(unpacked)
}

/// Takes the next field that says its length, passing over others.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
    while !bytes.is_empty() {
        let (tag, kind) = decode_key(bytes)?;
        if kind != WireType::LengthDelimited {
            skip_field(kind, tag, bytes, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(bytes)?;
        // What is cut short is found when it is decoded.
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
        let (field, rest) = bytes.split_at(length);
        *bytes = rest;
        return Ok(Some((tag, field)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_was_encoded() {
        let entries = vec![raftpb::Entry { index: 7, ..Default::default() }; 3];
        let snapshot = raftpb::Snapshot::default();
        let sent = raftpb::Message {
            entries,
            snapshot: Some(snapshot),
            context: Bytes::from_static(b"c"),
            ..Default::default()
        };
        assert_eq!(message(sent.encode_to_vec().into()), Ok(sent));
        assert!(matches!(message(Bytes::from_static(b"\xff")), Err(Unpackable::Undecodable(_))));
        assert!(matches!(
            message(Bytes::from_static(b"\x3a\x05")),
            Err(Unpackable::Undecodable(_))
        ));
    }

    #[test]
    fn little_that_becomes_much_is_refused_before_it_does() {
        let entries = [0x3a, 0].repeat(UNPACKED_BYTES_MAX / ENTRY_BYTES + 1);
        assert_eq!(message(entries.into()), Err(Unpackable::Swells));
        let response = raftpb::Message::default();
        let nested = raftpb::Message { responses: vec![response], ..Default::default() };
        assert_eq!(message(nested.encode_to_vec().into()), Err(Unpackable::Nested));
        let voters = vec![1; UNPACKED_BYTES_MAX / size_of::<u64>()];
        let conf_state = raftpb::ConfState { voters, ..Default::default() };
        let metadata = raftpb::SnapshotMetadata { conf_state, ..Default::default() };
        let snapshot = Some(raftpb::Snapshot { metadata, ..Default::default() });
        let swells = raftpb::Message { snapshot, ..Default::default() };
        assert_eq!(message(swells.encode_to_vec().into()), Err(Unpackable::Swells));
    }
}
