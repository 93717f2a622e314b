//! Reads records in order through all segments, in bounded memory, and tells a torn tail from damage.
//!
//! A crash can leave the last write in any mixture of old and new sectors, old ones being zero. So a record of the last
//! segment that does not check counts as *torn* when one of its sectors is all zeros, or the file ends inside it; it
//! and what follows was never acknowledged. Any other mismatch is *damage*: bytes changed after they were durable.
//!
//! Length words get a closer look than etcd gives them. A word is aligned, so it is never torn; a wrong one would hide
//! all acknowledged entries after it. When the record behind a wrong word is intact, the word was damaged.

use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost::encoding::decode_varint;
use proto::walpb;

use super::record::{
    BODY_BYTES_MAX, FrameLength, KEY_CHECKSUM, KEY_DATA, KEY_TYPE, Kind, Record, WORD_BYTES,
};
use super::segment::Segment;
use crate::disk::File;
use crate::fault::{Fault, OrFault};
use crate::length;

/// Bytes read at a time; an entry keeps the piece it was read in alive.
const PIECE_BYTES: u64 = 256 << 10;

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

const WORD: u64 = WORD_BYTES as u64;

const REMEDY: &str = "entries from there on may have been acknowledged, so they are not cut: restore the file, or \
                      remove this member from the cluster and add it again with an empty data directory";

/// What came next.
#[derive(Debug)]
pub(super) enum Next {
    Record(Record),
    /// The log ends here in good order.
    End,
    /// The log ends with a record that was never wholly written.
    Torn,
}

/// Reads the records of consecutive segments.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    segments: &'a [Segment],
    window: Window<'a>,
    /// The running checksum.
    chain: u32,
    /// Where the record that was read last begins.
    record_offset: u64,
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of the first of `segments`, of which there must be one.
    pub(super) fn new(segments: &'a [Segment]) -> Result<Self, Fault> {
        let window = Window::new(&segments[0])?;
        Ok(Self { segments, window, chain: 0, record_offset: 0 })
    }

    /// Reads the next record.
    pub(super) fn next(&mut self) -> Result<Next, Fault> {
        loop {
            self.record_offset = self.window.offset;
            match self.frame()? {
                Frame::Record(frame, bytes) => return self.record(frame, &bytes),
                Frame::Torn if self.in_last_segment() => return Ok(Next::Torn),
                Frame::Torn => return Err(self.damaged("the segment ends inside a record")),
                Frame::End => {}
            }
            match self.segments {
                [_, rest @ ..] if !rest.is_empty() => {
                    self.window = Window::new(&rest[0])?;
                    self.segments = rest;
                }
                _ => return Ok(Next::End),
            }
        }
    }

    /// Where the record that was read last begins; after the end, where the next one has to be written.
    pub(super) fn record_offset(&self) -> u64 {
        self.record_offset
    }

    /// The running checksum.
    pub(super) fn chain(&self) -> u32 {
        self.chain
    }

    /// Says that the record read last is damaged.
    pub(super) fn damaged(&self, what: impl Into<String>) -> Fault {
        Fault::damaged(self.window.path, self.record_offset, what, REMEDY)
    }

    fn in_last_segment(&self) -> bool {
        self.segments.len() == 1
    }

    /// Reads one frame without judging its body.
    fn frame(&mut self) -> Result<Frame, Fault> {
        let available = self.window.fill(WORD_BYTES)?;
        if available < WORD_BYTES {
            return Ok(if available == 0 { Frame::End } else { Frame::Torn });
        }
        let word = self.window.bytes.get_u64_le();
        self.window.offset += WORD;
        let body_offset = self.window.offset;
        if word == 0 {
            // The sector of a word is written with it: a record can only follow a lost word in the next sector.
            if !body_offset.is_multiple_of(SECTOR_BYTES) {
                self.check_length(body_offset, 0)?;
            }
            return Ok(Frame::End);
        }
        let Some(frame) = FrameLength::decode(word) else {
            return Err(self.damaged(format!("{word:#018x} is no length of a record")));
        };
        if frame.body > BODY_BYTES_MAX {
            return Err(self.damaged(format!("a record of {} bytes", frame.body)));
        }
        if frame.rest() > self.window.len.saturating_sub(body_offset) {
            self.check_length(body_offset, frame.body)?;
            return Ok(Frame::Torn);
        }
        Ok(Frame::Record(frame, self.window.take(frame)?))
    }

    /// Reads a record from `bytes`, its body with the padding.
    fn record(&mut self, frame: FrameLength, bytes: &Bytes) -> Result<Next, Fault> {
        let stored = match walpb::Record::decode(bytes.slice(..length(frame.body))) {
            Ok(stored) => stored,
            Err(error) => {
                let what = format!("the record does not decode: {error}");
                return self.torn_or_damaged(frame, bytes, what);
            }
        };
        if stored.r#type == Kind::Checksum as i64 {
            self.continue_chain(stored.crc)?;
        } else {
            let computed = crc32c::crc32c_append(self.chain, &stored.data);
            let is_wrong = computed != stored.crc;
            #[cfg(feature = "planted-faults")]
            let is_wrong = is_wrong
                && !crate::fault_hooks::is_planted(crate::fault_hooks::Planted::TornTailAccepted);
            if is_wrong {
                let what = format!("checksum {:08x} does not match {computed:08x}", stored.crc);
                return self.torn_or_damaged(frame, bytes, what);
            }
            self.chain = computed;
        }
        match Record::decode(stored) {
            Ok(record) => Ok(Next::Record(record)),
            Err(what) => Err(self.damaged(what)),
        }
    }

    /// Checks that a segment continues the one before, with the checksum at its beginning.
    fn continue_chain(&mut self, stored: u32) -> Result<(), Fault> {
        // Zero is the chain of a reader that has seen nothing yet.
        if self.chain != 0 && self.chain != stored {
            let what = format!("checksum {stored:08x} does not match {:08x} so far", self.chain);
            return Err(self.damaged(what));
        }
        self.chain = stored;
        Ok(())
    }

    fn torn_or_damaged(
        &self,
        frame: FrameLength,
        bytes: &[u8],
        what: String,
    ) -> Result<Next, Fault> {
        let offset = self.record_offset + WORD;
        if !self.in_last_segment() || !has_zero_sector(offset, bytes) {
            return Err(self.damaged(what));
        }
        self.check_length(offset, frame.body)?;
        Ok(Next::Torn)
    }

    /// Refuses a length word of `len` when an intact record of another length stands behind it, at `offset`.
    fn check_length(&self, offset: u64, len: u64) -> Result<(), Fault> {
        match self.intact_record_at(offset)? {
            Some(intact) if intact != len => Err(self
                .damaged(format!("the length is {len}, but a record of {intact} bytes follows"))),
            _ => Ok(()),
        }
    }

    /// The length of the record with the right checksum that stands at `offset`, if one does, whatever its length word
    /// says. A record knows its own length by its fields.
    fn intact_record_at(&self, offset: u64) -> Result<Option<u64>, Fault> {
        const HEADER_BYTES_MAX: u64 = 24;
        let room = self.window.len.saturating_sub(offset);
        let mut head = [0; length(HEADER_BYTES_MAX)];
        let head_len = length(room.min(HEADER_BYTES_MAX));
        self.window.read(offset, &mut head[..head_len])?;
        let Some(header) = Header::decode(&head[..head_len]) else { return Ok(None) };
        if header.data_len > room.saturating_sub(header.len) {
            return Ok(None);
        }
        let mut computed = self.chain;
        let mut piece = vec![0; length(PIECE_BYTES.min(header.data_len))];
        let mut at = offset + header.len;
        let end = at + header.data_len;
        while at < end {
            let len = PIECE_BYTES.min(end - at);
            let piece = &mut piece[..length(len)];
            self.window.read(at, piece)?;
            computed = crc32c::crc32c_append(computed, piece);
            at += len;
        }
        Ok((computed == header.checksum).then_some(header.len + header.data_len))
    }
}

/// One frame as it stands.
enum Frame {
    Record(FrameLength, Bytes),
    End,
    Torn,
}

/// The fields in front of a record's data.
struct Header {
    checksum: u32,
    data_len: u64,
    /// Length of the fields themselves.
    len: u64,
}

impl Header {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let key = |rest: &mut &[u8], key: u8| {
            rest.first().is_some_and(|first| *first == key).then(|| rest.advance(1))
        };
        key(&mut rest, KEY_TYPE)?;
        Kind::decode(i64::try_from(decode_varint(&mut rest).ok()?).ok()?)?;
        key(&mut rest, KEY_CHECKSUM)?;
        let checksum = u32::try_from(decode_varint(&mut rest).ok()?).ok()?;
        key(&mut rest, KEY_DATA)?;
        let data_len = decode_varint(&mut rest).ok()?;
        Some(Self { checksum, data_len, len: (bytes.len() - rest.len()) as u64 })
    }
}

/// Tells whether a part of `bytes`, which stand at `offset` of a file, that lies in one sector is all zeros.
fn has_zero_sector(offset: u64, bytes: &[u8]) -> bool {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len() as u64);
    let (head, tail) = bytes.split_at(length(first));
    let zero = |part: &[u8]| !part.is_empty() && part.iter().all(|byte| *byte == 0);
    zero(head) || tail.chunks(length(SECTOR_BYTES)).any(zero)
}

/// A piece of a file that moves forward.
#[derive(Debug)]
struct Window<'a> {
    file: &'a dyn File,
    path: &'a Path,
    /// Length of the file.
    len: u64,
    /// Where in the file `bytes` begin.
    offset: u64,
    bytes: BytesMut,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment) -> Result<Self, Fault> {
        let len = segment.len()?;
        Ok(Self {
            file: &*segment.file,
            path: &segment.path,
            len,
            offset: 0,
            bytes: BytesMut::new(),
        })
    }

    /// Reads until at least `wanted` bytes are there, or all there are; returns how many.
    fn fill(&mut self, wanted: usize) -> Result<usize, Fault> {
        let have = self.bytes.len();
        if have < wanted {
            let missing = (wanted - have) as u64;
            let at = self.offset + have as u64;
            let add = missing.max(PIECE_BYTES).min(self.len.saturating_sub(at));
            self.bytes.resize(have + length(add), 0);
            self.file.read_exact_at(at, &mut self.bytes[have..]).or_fault("read", self.path)?;
        }
        Ok(self.bytes.len())
    }

    /// Takes a body and its padding, which the caller knows to be there.
    fn take(&mut self, frame: FrameLength) -> Result<Bytes, Fault> {
        let len = length(frame.rest());
        self.fill(len)?;
        self.offset += frame.rest();
        Ok(self.bytes.split_to(len).freeze())
    }

    /// Reads elsewhere in the file.
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Fault> {
        self.file.read_exact_at(offset, out).or_fault("read", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_sectors_are_counted_from_the_start_of_the_file() {
        let mut bytes = vec![1; 1024];
        assert!(!has_zero_sector(8, &bytes));
        bytes[..512].fill(0);
        // 8..512 of the file is all zeros; 512..520 too.
        assert!(has_zero_sector(8, &bytes));
        bytes.fill(1);
        bytes[256..768].fill(0);
        // Five hundred and twelve zeros, but over two sectors.
        assert!(!has_zero_sector(0, &bytes));
        assert!(has_zero_sector(256, &bytes));
        assert!(!has_zero_sector(0, &[]));
    }
}
