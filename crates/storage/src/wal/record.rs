//! One record of the log: its frame, its bytes, its link in the checksum chain.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length word, little-endian: low 56 bits the body's length; the top byte is 0x80 + padding when there is padding |
//! | n | body: `walpb.Record` {1 type, 2 checksum, 3 data} |
//! | 0–7 | zeros, up to a multiple of eight, so that no length word straddles two sectors |
//!
//! The checksum is CRC-32C over the data of all records so far, across segments. A checksum record has no data and
//! repeats the running value at the start of a segment. A length word of zero ends a segment.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use proto::{raftpb, walpb};

use crate::length;

/// Length of the word in front of a body.
pub(super) const WORD_BYTES: usize = 8;

/// No writer makes a longer body; a longer length is damage, not a record.
pub(super) const BODY_BYTES_MAX: u64 = 512 << 20;

const ALIGNMENT: u64 = 8;
const BODY_BITS: u32 = 56;
const PADDED: u8 = 0x80;

/// Protobuf keys of `walpb.Record`.
pub(super) const KEY_TYPE: u8 = 0x08;
pub(super) const KEY_CHECKSUM: u8 = 0x10;
pub(super) const KEY_DATA: u8 = 0x1a;

/// The longest checksum as a varint; fifteen of sixteen are that long.
const CHECKSUM_BYTES_MAX: usize = 5;

/// What a length word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameLength {
    pub(super) body: u64,
    pub(super) padding: u64,
}

impl FrameLength {
    /// The frame of a body of `body` bytes.
    pub(super) fn of(body: u64) -> Self {
        Self { body, padding: body.wrapping_neg() % ALIGNMENT }
    }

    /// The word to write.
    pub(super) fn encode(self) -> u64 {
        match u8::try_from(self.padding) {
            Ok(padding) if padding > 0 => self.body | u64::from(PADDED | padding) << BODY_BITS,
            _ => self.body,
        }
    }

    /// Reads a word; `None` when no writer writes it. Early etcd wrote no padding, so a bare length is always fine.
    pub(super) fn decode(word: u64) -> Option<Self> {
        let body = word & ((1 << BODY_BITS) - 1);
        let padded = Self::of(body);
        if word == body {
            Some(Self { body, padding: 0 })
        } else if word == padded.encode() {
            Some(padded)
        } else {
            None
        }
    }

    /// Body and padding together.
    pub(super) fn rest(self) -> u64 {
        self.body + self.padding
    }
}

/// The type of a record, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Checksum = 4,
    Snapshot = 5,
}

impl Kind {
    pub(super) fn decode(kind: i64) -> Option<Self> {
        match kind {
            1 => Some(Self::Metadata),
            2 => Some(Self::Entry),
            3 => Some(Self::State),
            4 => Some(Self::Checksum),
            5 => Some(Self::Snapshot),
            _ => None,
        }
    }
}

/// A record whose checksum was right.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// An encoded `etcdserverpb.Metadata`; kept as bytes because every segment repeats the same ones.
    Metadata(Bytes),
    Entry(raftpb::Entry),
    State(raftpb::HardState),
    /// The chain's value at the end of the segment before.
    Checksum(u32),
    Snapshot(walpb::Snapshot),
}

impl Record {
    /// Reads a stored record whose checksum was compared already; the error says what is wrong with it.
    pub(super) fn decode(stored: walpb::Record) -> Result<Self, String> {
        let Some(kind) = Kind::decode(stored.r#type) else {
            return Err(format!("unknown record type {}", stored.r#type));
        };
        match kind {
            Kind::Metadata => Ok(Self::Metadata(stored.data)),
            Kind::Entry => decode_entry(stored.data).map(Self::Entry),
            Kind::State => decode_state(stored.data).map(Self::State),
            Kind::Checksum => Ok(Self::Checksum(stored.crc)),
            Kind::Snapshot => walpb::Snapshot::decode(stored.data)
                .map(Self::Snapshot)
                .map_err(|error| format!("a snapshot mark does not decode: {error}")),
        }
    }
}

// The checksum does not cover the type of a record. So both of these look whether they were given the other's data.

fn decode_entry(data: Bytes) -> Result<raftpb::Entry, String> {
    let entry = raftpb::Entry::decode(data)
        .map_err(|error| format!("an entry does not decode: {error}"))?;
    match raftpb::EntryType::try_from(entry.r#type) {
        Err(_) => Err(format!("entry {} has unknown type {}", entry.index, entry.r#type)),
        Ok(raftpb::EntryType::EntryConfChange) if entry.data.is_empty() => {
            Err(format!("entry {} is a configuration change without a change", entry.index))
        }
        Ok(_) => Ok(entry),
    }
}

fn decode_state(data: Bytes) -> Result<raftpb::HardState, String> {
    let len = data.len();
    let state = raftpb::HardState::decode(data)
        .map_err(|error| format!("a hard state does not decode: {error}"))?;
    if len > state.encoded_len() {
        return Err("a hard state has more fields than it should".to_owned());
    }
    Ok(state)
}

/// Encodes records one after another into one buffer that is used again and again.
#[derive(Debug)]
pub(super) struct Encoder {
    buffer: Vec<u8>,
    /// The running checksum.
    chain: u32,
}

impl Encoder {
    /// An encoder that continues the chain after `chain`.
    pub(super) fn new(chain: u32) -> Self {
        Self { buffer: Vec::new(), chain }
    }

    /// What is encoded and not yet cleared.
    pub(super) fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Forgets what is pending; keeps at most `capacity` bytes for the next use.
    pub(super) fn clear(&mut self, capacity: usize) {
        self.buffer.clear();
        self.buffer.shrink_to(capacity);
    }

    /// Adds an entry.
    pub(super) fn entry(&mut self, entry: &raftpb::Entry) {
        self.message(Kind::Entry, entry);
    }

    /// Adds a hard state.
    pub(super) fn state(&mut self, state: &raftpb::HardState) {
        self.message(Kind::State, state);
    }

    /// Adds a snapshot mark.
    pub(super) fn snapshot(&mut self, mark: &walpb::Snapshot) {
        self.message(Kind::Snapshot, mark);
    }

    /// Adds the log's identity.
    pub(super) fn metadata(&mut self, encoded: &[u8]) {
        self.data(Kind::Metadata, encoded.len(), |buffer| buffer.extend_from_slice(encoded));
    }

    /// Adds the running checksum itself, as every segment begins.
    pub(super) fn checksum(&mut self) {
        let frame = self.begin(Kind::Checksum);
        encode_varint(u64::from(self.chain), &mut self.buffer);
        self.end(frame);
    }

    fn message(&mut self, kind: Kind, message: &impl Message) {
        self.data(kind, message.encoded_len(), |buffer| message.encode_raw(buffer));
    }

    /// Adds a record of `data_len` bytes of data.
    ///
    /// The checksum stands before the data it covers: the data is written behind room for the longest checksum, and
    /// moved up in the rare case of a shorter one, instead of being encoded elsewhere and copied.
    pub(super) fn data(&mut self, kind: Kind, data_len: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.buffer.reserve(data_len + 4 * WORD_BYTES);
        let frame = self.begin(kind);
        let checksum_at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; CHECKSUM_BYTES_MAX]);
        self.buffer.push(KEY_DATA);
        encode_varint(data_len as u64, &mut self.buffer);
        let data_at = self.buffer.len();
        write(&mut self.buffer);
        debug_assert_eq!(self.buffer.len() - data_at, data_len, "data is as long as announced");
        self.chain = crc32c::crc32c_append(self.chain, &self.buffer[data_at..]);

        let checksum = u64::from(self.chain);
        let checksum_len = encoded_len_varint(checksum);
        if checksum_len < CHECKSUM_BYTES_MAX {
            let room_end = checksum_at + CHECKSUM_BYTES_MAX;
            self.buffer.copy_within(room_end.., checksum_at + checksum_len);
            self.buffer.truncate(self.buffer.len() - (CHECKSUM_BYTES_MAX - checksum_len));
        }
        encode_varint(checksum, &mut &mut self.buffer[checksum_at..]);
        self.end(frame);
    }

    fn begin(&mut self, kind: Kind) -> usize {
        let frame = self.buffer.len();
        self.buffer.extend_from_slice(&[0; WORD_BYTES]);
        self.buffer.extend_from_slice(&[KEY_TYPE, kind as u8, KEY_CHECKSUM]);
        frame
    }

    fn end(&mut self, at: usize) {
        let body = self.buffer.len() - at - WORD_BYTES;
        let frame = FrameLength::of(body as u64);
        self.buffer[at..at + WORD_BYTES].copy_from_slice(&frame.encode().to_le_bytes());
        self.buffer.resize(self.buffer.len() + length(frame.padding), 0);
    }
}
