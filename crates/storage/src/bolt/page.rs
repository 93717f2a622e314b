//! Pages: the parts of the format that reader and writer share. All numbers are little-endian.
//!
//! Page header, 16 bytes:
//!
//! | at | type | content |
//! |---|---|---|
//! | 0 | u64 | page id |
//! | 8 | u16 | kind, one of the flags below |
//! | 10 | u16 | number of elements |
//! | 12 | u32 | overflow: how many further pages the content covers |
//!
//! Leaf element, 16 bytes: u32 flags, u32 position of the key from the element's start, u32 key length, u32 value
//! length; the value follows the key. Branch element, 16 bytes: u32 position, u32 key length, u64 child page.
//!
//! Meta, 64 bytes behind the header of pages 0 and 1:
//!
//! | at | type | content |
//! |---|---|---|
//! | 0 | u32 | magic |
//! | 4 | u32 | version |
//! | 8 | u32 | page size |
//! | 12 | u32 | flags, 0 |
//! | 16 | u64 | root page of the root bucket |
//! | 24 | u64 | sequence of the root bucket |
//! | 32 | u64 | freelist page, all ones when none is stored |
//! | 40 | u64 | high-water mark: the first page id never used |
//! | 48 | u64 | transaction id |
//! | 56 | u64 | FNV-1a of the 56 bytes before |

pub(super) const HEADER_BYTES: usize = 16;
pub(super) const ELEMENT_BYTES: usize = 16;
pub(super) const META_BYTES: usize = 64;
/// A bucket's value: root page and sequence.
pub(super) const BUCKET_HEADER_BYTES: usize = 16;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
pub(super) const FREELIST: u16 = 0x10;
/// A leaf element's flag: its value is a bucket.
pub(super) const BUCKET: u32 = 0x01;

pub(super) const NO_FREELIST: u64 = u64::MAX;
pub(super) const PAGE_BYTES_MIN: u32 = 1 << 10;
pub(super) const PAGE_BYTES_MAX: u32 = 1 << 16;
/// From this count on, a freelist page's first item is its real count.
pub(super) const COUNT_MAX: u16 = u16::MAX;
pub(super) const KEY_BYTES_MAX: usize = 32_768;
pub(super) const VALUE_BYTES_MAX: usize = (1 << 31) - 2;

pub(super) const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// A page header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.kind.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// Decodes the header at the start of `bytes`; nothing when they are too few.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            kind: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u32,
    pub(super) root: u64,
    pub(super) sequence: u64,
    pub(super) freelist: u64,
    pub(super) high_water: u64,
    pub(super) txid: u64,
}

impl Meta {
    pub(super) fn encode(self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        let numbers = [self.root, self.sequence, self.freelist, self.high_water, self.txid];
        for (place, number) in bytes[16..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = fnv1a(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Decodes and verifies the meta at the start of `bytes`, or says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..META_BYTES).ok_or("the file is too short")?;
        let number = |at| u64_at(bytes, at).ok_or("the file is too short");
        if u32_at(bytes, 0) != Some(MAGIC) {
            return Err("not a bbolt file (wrong magic number)");
        }
        if u32_at(bytes, 4) != Some(VERSION) {
            return Err("unknown version of the bbolt format");
        }
        if number(56)? != fnv1a(&bytes[..56]) {
            return Err("the meta page's checksum does not fit");
        }
        let page_size = u32_at(bytes, 8).ok_or("the file is too short")?;
        if !page_size.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_size) {
            return Err("impossible page size");
        }
        Ok(Self {
            page_size,
            root: number(16)?,
            sequence: number(24)?,
            freelist: number(32)?,
            high_water: number(40)?,
            txid: number(48)?,
        })
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(OFFSET, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(PRIME))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
