//! Leaves: up to [`KEYS_MAX`] keys in order with their histories, as one block of bytes.
//!
//! | entry           | bytes  | meaning                                                              |
//! |-----------------|--------|----------------------------------------------------------------------|
//! | shared          | varint | leading bytes in common with the key before, as many as there are    |
//! | suffix length   | varint |                                                                      |
//! | header          | varint | history length × 8 + flags (`SPILLED`, `CARRIED`, `ALIVE`)           |
//! | suffix          | bytes  | the rest of the key                                                  |
//! | history         | bytes  | see `history.rs`                                                     |
//!
//! Because `shared` is exact, a search compares few bytes: see [`Leaf::search`].
//!
//! Larger leaves save about a byte per key (96 keys, 3 KiB) and make look-ups a fifth slower.

use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use super::history::{ALIVE, Change, Histories, Packed, Rest, Stored};
use super::sweep::Sweep;
use super::varint;
use super::{Count, Found, Visit};

/// Bytes of a leaf, its first key not counted (which may be long, and is then the prefix of the others).
const BYTES_MAX: usize = 2048;
/// Keys of a leaf.
const KEYS_MAX: usize = 64;
/// Neighbours that together fill this part of a leaf or less become one.
const MERGE_NUMERATOR: usize = 3;
const MERGE_DENOMINATOR: usize = 4;
const FLAG_BITS: u32 = 3;
const FLAGS: u64 = (1 << FLAG_BITS) - 1;

/// A block of keys.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    keys: usize,
}

/// Where the parts of one entry lie.
#[derive(Debug, Clone)]
struct Entry {
    start: usize,
    shared: usize,
    header: Range<usize>,
    suffix: usize,
    history: usize,
    end: usize,
    flags: u8,
}

/// What a search ends at.
#[derive(Debug)]
enum Slot {
    Present(Entry),
    Absent(Gap),
}

/// The place of an absent key: before the entry at `at`, or at the end of the leaf.
#[derive(Debug, Clone, Copy)]
struct Gap {
    at: usize,
    /// Bytes in common with the keys before and after.
    before: usize,
    after: usize,
}

/// A change to be made to one key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Write {
    /// A put or tombstone as the store makes them: a tombstone only where the key is alive.
    Live { tombstone: bool },
    /// A change read back: the first one of a key may be anything.
    Restored { first: Change },
}

/// What a write did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// The last change of the key before and after, if it had or has any.
    pub(super) before: Option<Change>,
    pub(super) after: Option<Change>,
    /// Where the key lies, if it is new in the leaf.
    pub(super) inserted: Option<Place>,
}

/// Where in its leaf a new key came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Between,
    Last,
}

impl Leaf {
    pub(super) fn keys(&self) -> usize {
        self.keys
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// What a reader of `key` at main revision `at` sees.
    pub(super) fn get(&self, key: &[u8], at: i64, histories: &Histories) -> Option<Found> {
        match self.search(key) {
            Slot::Present(entry) => histories.found(self.stored(&entry), at),
            Slot::Absent(_) => None,
        }
    }

    /// Makes a change to `key`.
    pub(super) fn write(
        &mut self,
        key: &[u8],
        revision: super::Revision,
        write: Write,
        histories: &mut Histories,
    ) -> Written {
        let mut packed = Packed::default();
        match self.search(key) {
            Slot::Present(entry) => {
                let stored = self.stored(&entry);
                let last = histories.last(stored);
                let tombstone = match write {
                    Write::Live { tombstone } => tombstone,
                    Write::Restored { first } => first.tombstone,
                };
                let mut written = Written { before: Some(last), after: Some(last), inserted: None };
                if !(tombstone && last.tombstone) {
                    let next = last.then(revision, tombstone);
                    histories.append(stored, &last, &next, &mut packed);
                    self.set_history(&entry, &packed);
                    written.after = Some(next);
                }
                written
            }
            Slot::Absent(gap) => {
                let first = match write {
                    Write::Live { tombstone: true } => {
                        return Written { before: None, after: None, inserted: None };
                    }
                    Write::Live { tombstone: false } => Change::first(revision, false),
                    Write::Restored { first } => first,
                };
                packed.start(&first);
                let place = self.insert(key, gap, &packed);
                Written { before: None, after: Some(first), inserted: Some(place) }
            }
        }
    }

    /// Visits the keys from `start` on and before `end` that exist at main revision `at`.
    pub(super) fn visit(
        &self,
        (start, end): (Option<&[u8]>, Option<&[u8]>),
        visit: &mut Visit<'_>,
    ) -> ControlFlow<()> {
        let mut key = std::mem::take(&mut visit.key);
        let mut at = self.seek(start, &mut key);
        let mut flow = ControlFlow::Continue(());
        while at < self.bytes.len() && flow.is_continue() {
            let entry = self.entry(at);
            at = entry.end;
            visit.walk.look_at(1);
            key.truncate(entry.shared);
            key.extend_from_slice(self.suffix(&entry));
            if end.is_some_and(|end| *key >= *end) {
                flow = ControlFlow::Break(());
            } else if let Some(found) = visit.histories.found(self.stored(&entry), visit.at) {
                flow = (visit.visitor)(&key, found);
            }
        }
        visit.key = key;
        flow
    }

    /// Counts the keys from `start` on and before `end` that exist at `count.at`.
    pub(super) fn count(
        &self,
        (start, end): (Option<&[u8]>, Option<&[u8]>),
        count: &mut Count<'_>,
    ) {
        let from = start.map_or(0, |key| self.position(key));
        let to = end.map_or(self.bytes.len(), |key| self.position(key));
        let mut next = from;
        while next < to {
            let entry = self.entry(next);
            next = entry.end;
            count.walk.look_at(1);
            let found = count.histories.found(self.stored(&entry), count.at);
            count.keys += usize::from(found.is_some());
        }
    }

    /// The key with `rank` keys of this leaf before it, counting those that exist at main revision `at`.
    pub(super) fn nth(&self, mut rank: usize, at: i64, histories: &Histories) -> Option<Vec<u8>> {
        let mut key = Vec::new();
        let mut next = 0;
        while next < self.bytes.len() {
            let entry = self.entry(next);
            next = entry.end;
            key.truncate(entry.shared);
            key.extend_from_slice(self.suffix(&entry));
            if histories.found(self.stored(&entry), at).is_some() {
                if rank == 0 {
                    return Some(key);
                }
                rank -= 1;
            }
        }
        None
    }

    /// Live keys.
    pub(super) fn live(&self) -> usize {
        let mut next = 0;
        let mut count = 0;
        while next < self.bytes.len() {
            let entry = self.entry(next);
            next = entry.end;
            count += usize::from(entry.flags & ALIVE != 0);
        }
        count
    }

    /// Tells `sweep` what a compaction keeps of the keys from `start` on. Returns whether it would change anything.
    pub(super) fn survey(&self, start: &[u8], sweep: &mut Sweep, histories: &Histories) -> bool {
        let mut next = self.position(start);
        let mut changes = false;
        while next < self.bytes.len() {
            let entry = self.entry(next);
            next = entry.end;
            let survey = histories.survey(self.stored(&entry), sweep.at());
            if let Some(selected) = survey.selected {
                sweep.keep(selected);
                sweep.keep_behind(&survey.also);
            }
            changes |= survey.rest != Rest::All;
        }
        changes
    }

    /// Drops what a compaction at main revision `at` drops of the keys from `start` on. Returns how many keys went.
    pub(super) fn compact(&mut self, start: &[u8], at: i64, histories: &mut Histories) -> usize {
        let from = self.position(start);
        let mut rest = Self { bytes: Vec::with_capacity(self.bytes.len()), keys: 0 };
        let (mut key, mut last) = (Vec::new(), Vec::new());
        let mut packed = Packed::default();
        let mut next = 0;
        while next < self.bytes.len() {
            let entry = self.entry(next);
            next = entry.end;
            key.truncate(entry.shared);
            key.extend_from_slice(self.suffix(&entry));
            let stored = self.stored(&entry);
            let what =
                if entry.start < from { Rest::All } else { histories.survey(stored, at).rest };
            let stored = match what {
                Rest::All => stored,
                Rest::From(first, offset) => {
                    histories.trim(stored, first, offset, &mut packed);
                    Stored { flags: packed.flags, bytes: &packed.bytes }
                }
                Rest::Nothing => {
                    histories.remove(stored);
                    continue;
                }
            };
            let shared = common_prefix(&last, &key);
            write_entry(&mut rest.bytes, shared, &key[shared..], stored);
            rest.keys += 1;
            last.truncate(shared);
            last.extend_from_slice(&key[shared..]);
        }
        let removed = self.keys - rest.keys;
        rest.fit();
        *self = rest;
        removed
    }

    /// Whether the leaf must be split.
    pub(super) fn is_overfull(&self) -> bool {
        self.keys > 1 && (self.keys > KEYS_MAX || self.weight() > BYTES_MAX)
    }

    /// Whether `right`, the next leaf, should be appended.
    pub(super) fn should_absorb(&self, right: &Self) -> bool {
        const KEYS: usize = KEYS_MAX * MERGE_NUMERATOR / MERGE_DENOMINATOR;
        const BYTES: usize = BYTES_MAX * MERGE_NUMERATOR / MERGE_DENOMINATOR;
        self.keys == 0
            || right.keys == 0
            || self.keys + right.keys <= KEYS && self.weight() + right.bytes.len() <= BYTES
    }

    /// Splits off the later entries: half of the bytes, or the one entry just written at an end, because keys that come in
    /// order would otherwise leave every leaf half empty. Returns the shortest bytes above the left and not above the
    /// right keys, and the right leaf.
    pub(super) fn split(&mut self, newest: Place) -> (Box<[u8]>, Self) {
        let (mut key, mut at, mut left) = (Vec::new(), 0, 0);
        let entry = loop {
            let entry = self.entry(at);
            at = entry.end;
            key.truncate(entry.shared);
            key.extend_from_slice(self.suffix(&entry));
            let is_last = left + 1 == self.keys;
            let is_here = match newest {
                Place::First => true,
                Place::Between => entry.end > self.bytes.len() / 2,
                Place::Last => is_last,
            };
            if left > 0 && (is_here || is_last) {
                break entry;
            }
            left += 1;
        };
        let low = key[..=entry.shared].into();
        let mut right = Self { bytes: Vec::new(), keys: self.keys - left };
        write_entry(&mut right.bytes, 0, &key, self.stored(&entry));
        right.bytes.extend_from_slice(&self.bytes[entry.end..]);
        right.fit();
        self.bytes.truncate(entry.start);
        self.keys = left;
        self.fit();
        (low, right)
    }

    /// Appends the next leaf.
    pub(super) fn absorb(&mut self, right: &Self) {
        if right.keys == 0 {
            return;
        }
        let mut last = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let entry = self.entry(at);
            at = entry.end;
            last.truncate(entry.shared);
            last.extend_from_slice(self.suffix(&entry));
        }
        let first = right.entry(0);
        let key = right.suffix(&first);
        let shared = common_prefix(&last, key);
        write_entry(&mut self.bytes, shared, &key[shared..], right.stored(&first));
        self.bytes.extend_from_slice(&right.bytes[first.end..]);
        self.keys += right.keys;
        self.fit();
    }

    /// Finds `key`, knowing of each entry how much it shares with the one before.
    ///
    /// Let `matched` be what `key` shares with the last entry passed, which is smaller. An entry that shares more with it
    /// is smaller, too; one that shares less is greater; only one that shares exactly as much must be looked at.
    #[inline]
    fn search(&self, key: &[u8]) -> Slot {
        let bytes = self.bytes.as_slice();
        let mut at = 0;
        let mut matched = 0;
        while at < bytes.len() {
            // Nearly all entries are passed here: their three numbers have one byte each.
            if let &[shared, suffix_len, header, ..] = &bytes[at..]
                && (shared | suffix_len | header) < 0x80
                && usize::from(shared) > matched
            {
                at += 3 + usize::from(suffix_len) + usize::from(header >> FLAG_BITS);
                continue;
            }
            let entry = self.entry(at);
            match entry.shared.cmp(&matched) {
                Ordering::Greater => {}
                Ordering::Less => {
                    return Slot::Absent(Gap { at, before: matched, after: entry.shared });
                }
                Ordering::Equal => {
                    let (suffix, rest) = (self.suffix(&entry), &key[matched..]);
                    let common = common_prefix(suffix, rest);
                    let (theirs, ours) = (suffix.get(common), rest.get(common));
                    if theirs.is_none() && ours.is_none() {
                        return Slot::Present(entry);
                    }
                    if theirs > ours {
                        let after = matched + common;
                        return Slot::Absent(Gap { at, before: matched, after });
                    }
                    matched += common;
                }
            }
            at = entry.end;
        }
        Slot::Absent(Gap { at, before: matched, after: 0 })
    }

    /// Where the first entry at or after `key` starts.
    fn position(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Slot::Present(entry) => entry.start,
            Slot::Absent(gap) => gap.at,
        }
    }

    /// Where the first entry at or after `start` starts; `key` becomes what it shares with the entry before.
    fn seek(&self, start: Option<&[u8]>, key: &mut Vec<u8>) -> usize {
        key.clear();
        let Some(start) = start else { return 0 };
        let at = self.position(start);
        if at < self.bytes.len() {
            // The entries before and after `start` share no more with each other than with `start`.
            key.extend_from_slice(&start[..self.entry(at).shared]);
        }
        at
    }

    fn insert(&mut self, key: &[u8], gap: Gap, packed: &Packed) -> Place {
        let stored = Stored { flags: packed.flags, bytes: &packed.bytes };
        let mut bytes = Vec::with_capacity(key.len() - gap.before + packed.bytes.len() + 16);
        write_entry(&mut bytes, gap.before, &key[gap.before..], stored);
        self.keys += 1;
        if gap.at == self.bytes.len() {
            self.splice(gap.at..gap.at, &bytes);
            return Place::Last;
        }
        // The next entry shares at least as much with the new one as it did with the one before.
        let next = self.entry(gap.at);
        let suffix = next.suffix + (gap.after - next.shared);
        varint::write_len(&mut bytes, gap.after);
        varint::write_len(&mut bytes, next.history - suffix);
        bytes.extend_from_slice(&self.bytes[next.header]);
        self.splice(gap.at..suffix, &bytes);
        if gap.at == 0 { Place::First } else { Place::Between }
    }

    fn set_history(&mut self, entry: &Entry, packed: &Packed) {
        self.splice(entry.history..entry.end, &packed.bytes);
        let mut header = Vec::with_capacity(2);
        write_header(&mut header, packed.flags, packed.bytes.len());
        self.splice(entry.header.clone(), &header);
    }

    /// Replaces `range` by `with`.
    fn splice(&mut self, range: Range<usize>, with: &[u8]) {
        let old = self.bytes.len();
        let new = old - range.len() + with.len();
        let end = range.start + with.len();
        if new > self.bytes.capacity() {
            self.bytes.reserve_exact(size_class(new) - old);
        }
        if new > old {
            self.bytes.resize(new, 0);
        }
        if end != range.end {
            self.bytes.copy_within(range.end..old, end);
        }
        self.bytes.truncate(new);
        self.bytes[range.start..end].copy_from_slice(with);
    }

    /// Gives back memory beyond the next size class.
    fn fit(&mut self) {
        let capacity = size_class(self.bytes.len());
        self.bytes.reserve_exact(capacity - self.bytes.len());
        self.bytes.shrink_to(capacity);
    }

    /// Bytes without the first key.
    fn weight(&self) -> usize {
        if self.keys == 0 { 0 } else { self.bytes.len() - self.suffix(&self.entry(0)).len() }
    }

    #[inline]
    fn entry(&self, start: usize) -> Entry {
        let bytes = self.bytes.as_slice();
        let mut at = start;
        let shared = varint::read_len(bytes, &mut at);
        let suffix_len = varint::read_len(bytes, &mut at);
        let header = at;
        let fields = varint::read(bytes, &mut at);
        let history = at + suffix_len;
        let history_len = usize::try_from(fields >> FLAG_BITS).unwrap_or(usize::MAX);
        let flags = (fields & FLAGS).to_le_bytes()[0];
        Entry {
            start,
            shared,
            header: header..at,
            suffix: at,
            history,
            end: history + history_len,
            flags,
        }
    }

    #[inline]
    fn suffix(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.suffix..entry.history]
    }

    #[inline]
    fn stored(&self, entry: &Entry) -> Stored<'_> {
        Stored { flags: entry.flags, bytes: &self.bytes[entry.history..entry.end] }
    }
}

fn write_entry(out: &mut Vec<u8>, shared: usize, suffix: &[u8], stored: Stored<'_>) {
    varint::write_len(out, shared);
    varint::write_len(out, suffix.len());
    write_header(out, stored.flags, stored.bytes.len());
    out.extend_from_slice(suffix);
    out.extend_from_slice(stored.bytes);
}

fn write_header(out: &mut Vec<u8>, flags: u8, history_len: usize) {
    varint::write(out, (history_len as u64) << FLAG_BITS | u64::from(flags));
}

#[inline]
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    let words = a_words.iter().zip(b_words).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[8 * words..], &b[8 * words..]);
    8 * words + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The allocator's (jemalloc's) smallest size of at least `len`: four sizes per doubling. Asking for exactly these wastes
/// nothing, and a leaf grows by a sixth on average when it must.
fn size_class(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(16);
    len.next_multiple_of(step)
}

#[cfg(test)]
impl Leaf {
    /// Asserts what this file's head promises, and that all keys lie in `bounds`. Returns the newest main revision.
    pub(super) fn assert_sound(
        &self,
        (low, upper): (Option<&[u8]>, Option<&[u8]>),
        histories: &Histories,
    ) -> i64 {
        let (mut key, mut last) = (Vec::new(), None::<Vec<u8>>);
        let (mut at, mut keys, mut newest) = (0, 0, 0);
        while at < self.bytes.len() {
            let entry = self.entry(at);
            at = entry.end;
            key.truncate(entry.shared);
            key.extend_from_slice(self.suffix(&entry));
            if let Some(last) = &last {
                assert!(*last < key, "keys ascend");
                assert_eq!(entry.shared, common_prefix(last, &key), "shared is exact");
            } else {
                assert_eq!(entry.shared, 0);
            }
            assert!(low.is_none_or(|low| low <= key.as_slice()), "no key below the low");
            assert!(upper.is_none_or(|upper| key.as_slice() < upper), "no key at the next low");
            let stored = self.stored(&entry);
            let change = histories.last(stored);
            assert_eq!(stored.flags & ALIVE != 0, !change.tombstone, "the flag is right");
            newest = newest.max(change.revision.main);
            keys += 1;
            last = Some(key.clone());
        }
        assert_eq!(keys, self.keys);
        assert!(self.bytes.capacity() <= size_class(self.bytes.len()).max(256) * 2);
        newest
    }
}
