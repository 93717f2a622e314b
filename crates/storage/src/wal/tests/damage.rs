//! Torn writes at every sector, damage at every byte, random records.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proto::{raftpb, walpb};

use super::super::reader::{Next, Reader};
use super::super::record::{Encoder, FrameLength, Record};
use super::super::segment::{Name, Segment};
use super::super::{Options, Start, Wal, exists, read_entries};
use super::{IDENTITY, SMALL, disk, entry};
use crate::fault::Fault;
use crate::length;
use crate::os::OsDisk;

const SECTOR: usize = 512;

fn first_segment(dir: &Path) -> PathBuf {
    dir.join(Name { sequence: 0, index: 0 }.to_string())
}

/// A log with ten synced entries, then a batch of eight more; returns where each of the eight begins, and the end.
fn log_with_unsynced_batch(dir: &Path) -> Vec<usize> {
    let mut wal = Wal::create_with(disk(), dir, IDENTITY, SMALL).unwrap();
    for index in 1..=10 {
        wal.append(&[entry(index, 1, vec![b'a'; 50 + length(index)])], None).unwrap();
    }
    wal.sync().unwrap();
    let mut boundaries = vec![length(wal.stats().segment_used_bytes)];
    for index in 11..=18 {
        wal.append(&[entry(index, 1, vec![b'b'; 700])], None).unwrap();
        boundaries.push(length(wal.stats().segment_used_bytes));
    }
    wal.flush().unwrap();
    boundaries
}

#[test]
fn a_batch_torn_at_any_sector_keeps_all_that_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    let boundaries = log_with_unsynced_batch(dir.path());
    let (begin, end) = (boundaries[0], boundaries[8]);
    let path = first_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    for lost in begin / SECTOR..=(end - 1) / SECTOR {
        let mut torn = whole.clone();
        let lost_from = (lost * SECTOR).max(begin);
        torn[lost_from..(lost + 1) * SECTOR].fill(0);
        fs::write(&path, &torn).unwrap();
        let (mut wal, recovered) =
            Wal::recover_with(disk(), dir.path(), Start::default(), SMALL).unwrap();
        let kept = recovered.entries.len();
        assert!((10..18).contains(&kept), "sector {lost}: {kept} entries");
        // Nothing before the lost sector is given up.
        assert!(boundaries[kept - 9] > lost_from, "sector {lost}: only {kept} entries");
        wal.append(&[entry(kept as u64 + 1, 2, "new")], None).unwrap();
        wal.sync().unwrap();
        drop(wal);
        let (_, again) = Wal::recover_with(disk(), dir.path(), Start::default(), SMALL).unwrap();
        assert_eq!(again.entries.len(), kept + 1);
        assert_eq!(again.entries[..kept], recovered.entries);
        assert_eq!(again.repaired, None);
    }
}

#[test]
fn a_log_cut_short_anywhere_gives_a_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let boundaries = log_with_unsynced_batch(dir.path());
    let path = first_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    let around = boundaries[..8].iter().flat_map(|boundary| [boundary + 1, boundary + 7]);
    for len in (boundaries[0]..boundaries[8]).step_by(24).chain(around) {
        fs::write(&path, &whole[..len]).unwrap();
        let (_, recovered) =
            Wal::recover_with(disk(), dir.path(), Start::default(), SMALL).unwrap();
        let kept = recovered.entries.len();
        let whole_records = boundaries[kept - 10]..boundaries[kept - 9];
        assert!(whole_records.contains(&len), "{len} bytes, {kept} entries");
        assert_eq!(recovered.repaired.is_some(), len != whole_records.start);
    }
}

#[test]
fn no_flipped_bit_loses_or_changes_an_entry() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).unwrap();
    let entries: Vec<_> = (1..=4).map(|index| entry(index, 1, vec![b'a'; 20])).collect();
    let state = raftpb::HardState { term: 1, vote: 1, commit: 4 };
    wal.append(&entries, Some(&state)).unwrap();
    wal.sync().unwrap();
    let end = length(wal.stats().segment_used_bytes);
    drop(wal);
    let path = first_segment(dir.path());
    let good = fs::read(&path).unwrap();
    for bit in 0..end * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        match Wal::recover_with(disk(), dir.path(), Start::default(), SMALL) {
            // Padding and unused bits of a checksum may change without harm.
            Ok((_, recovered)) => {
                assert_eq!(recovered.entries, entries, "bit {bit}");
                assert_eq!(recovered.repaired, None, "bit {bit}");
            }
            Err(Fault::Damaged { .. }) => assert_eq!(fs::read(&path).unwrap(), bad, "bit {bit}"),
            Err(other) => panic!("bit {bit}: {other}"),
        }
    }
}

#[test]
fn a_log_has_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!exists(&OsDisk, &dir.path().join("none")).unwrap());
    let wal = Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).unwrap();
    assert!(exists(&OsDisk, dir.path()).unwrap());
    let second = Wal::recover_with(disk(), dir.path(), Start::default(), SMALL).unwrap_err();
    assert!(matches!(second, Fault::Locked { .. }), "{second}");
    assert!(Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).is_err());
    assert_eq!(read_entries(&OsDisk, dir.path(), 1..2, 1).unwrap(), []);
    drop(wal);
    let (_, recovered) = Wal::recover_with(disk(), dir.path(), Start::default(), SMALL).unwrap();
    assert_eq!((recovered.node_id, recovered.cluster_id), (0x11, 0x22));
}

#[test]
fn an_append_is_one_write_and_a_sync_without_news_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::create(disk(), dir.path(), IDENTITY).unwrap();
    let batch: Vec<_> = (1..=256).map(|index| entry(index, 1, vec![0; 300])).collect();
    wal.append(&batch, None).unwrap();
    wal.append(&batch, None).unwrap();
    assert_eq!(wal.stats().writes, 0);
    wal.sync().unwrap();
    wal.sync().unwrap();
    assert_eq!((wal.stats().writes, wal.stats().syncs), (1, 1));
    assert_eq!(fs::metadata(first_segment(dir.path())).unwrap().len(), 64_000_000);
}

proptest! {
    #[test]
    fn length_words_are_read_as_written(body in 0_u64..1 << 56) {
        let length = FrameLength::of(body);
        prop_assert_eq!(length.rest() % 8, 0);
        prop_assert_eq!(FrameLength::decode(length.encode()), Some(length));
    }

    #[test]
    fn records_are_read_as_written(
        lengths in prop::collection::vec((0_usize..3000, any::<u8>(), 0_u64..1 << 40), 1..40),
        chain: u32,
    ) {
        let mut encoder = Encoder::new(chain);
        encoder.checksum();
        let mut written = vec![Record::Checksum(chain)];
        for (length, byte, number) in lengths {
            match byte % 4 {
                0 => {
                    let state = raftpb::HardState { term: number, vote: 0, commit: number / 2 };
                    encoder.state(&state);
                    written.push(Record::State(state));
                }
                1 => {
                    let mark = walpb::Snapshot { index: number, term: 1, conf_state: None };
                    encoder.snapshot(&mark);
                    written.push(Record::Snapshot(mark));
                }
                2 => {
                    encoder.metadata(&vec![byte; length]);
                    written.push(Record::Metadata(vec![byte; length].into()));
                }
                _ => {
                    let entry = entry(number, 3, vec![byte; length]);
                    encoder.entry(&entry);
                    written.push(Record::Entry(entry));
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(first_segment(dir.path()), encoder.pending()).unwrap();
        let segments = [Segment::open(&OsDisk, dir.path(), Name { sequence: 0, index: 0 }).unwrap()];
        let mut reader = Reader::new(&segments).unwrap();
        let mut read = Vec::new();
        while let Next::Record(record) = reader.next().unwrap() {
            read.push(record);
        }
        prop_assert_eq!(read, written);
        prop_assert_eq!(reader.record_offset(), encoder.pending().len() as u64);
    }

    #[test]
    fn random_bytes_are_refused_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        keep in 0_usize..120,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { segment_bytes: 1024, segments_max: 0 };
        drop(Wal::create_with(disk(), dir.path(), IDENTITY, options).unwrap());
        let path = first_segment(dir.path());
        let mut mixed = fs::read(&path).unwrap();
        mixed.truncate(keep);
        mixed.extend_from_slice(&bytes);
        fs::write(&path, mixed).unwrap();
        // Whatever the outcome is: no panic, and what recovers once recovers again.
        if let Ok((wal, first)) = Wal::recover_with(disk(), dir.path(), Start::default(), options) {
            drop(wal);
            let again = Wal::recover_with(disk(), dir.path(), Start::default(), options);
            prop_assert_eq!(again.unwrap().1.entries, first.entries);
        }
    }
}

/// A leader has replaced 4 to 9 by a 4 and a 5 of its own, and this member's own mark is at 5: nothing of the others comes back.
#[test]
fn what_was_replaced_before_the_mark_does_not_come_back_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).unwrap();
    let log = |indexes: std::ops::RangeInclusive<u64>, term| -> Vec<_> {
        indexes.map(|index| entry(index, term, vec![b'e'; 40])).collect()
    };
    wal.append(&log(1..=9, 1), None).unwrap();
    wal.append(&log(4..=5, 2), Some(&raftpb::HardState { term: 2, vote: 0, commit: 5 })).unwrap();
    let conf_state = Some(raftpb::ConfState::default());
    wal.append_snapshot_mark(&walpb::Snapshot { index: 5, term: 2, conf_state }).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let start = Start { index: 5, term: 2 };
    let (mut wal, recovered) = Wal::recover_with(disk(), dir.path(), start, SMALL).unwrap();
    assert_eq!(recovered.entries, []);
    wal.append(&log(6..=6, 2), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, recovered) = Wal::recover_with(disk(), dir.path(), start, SMALL).unwrap();
    assert_eq!(recovered.entries, log(6..=6, 2));
}

/// A leader's snapshot at 8 replaces a log that had gone another way from 5 on: what that had behind 8 is no part of it.
#[test]
fn a_snapshot_of_another_history_cuts_what_was_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).unwrap();
    let log = |indexes: std::ops::RangeInclusive<u64>, term| -> Vec<_> {
        indexes.map(|index| entry(index, term, vec![b'e'; 40])).collect()
    };
    wal.append(&log(1..=12, 2), None).unwrap();
    let mark =
        walpb::Snapshot { index: 8, term: 3, conf_state: Some(raftpb::ConfState::default()) };
    let state = raftpb::HardState { term: 3, vote: 0, commit: 8 };
    wal.append(&[], Some(&state)).unwrap();
    wal.append_snapshot_mark(&mark).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let start = Start { index: 8, term: 3 };
    let (mut wal, recovered) = Wal::recover_with(disk(), dir.path(), start, SMALL).unwrap();
    assert_eq!(recovered.entries, []);
    wal.append(&log(9..=10, 3), Some(&state)).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, recovered) = Wal::recover_with(disk(), dir.path(), start, SMALL).unwrap();
    assert_eq!(recovered.entries, log(9..=10, 3));

    // A mark of its own cuts nothing.
    let dir = tempfile::tempdir().unwrap();
    let mut wal = Wal::create_with(disk(), dir.path(), IDENTITY, SMALL).unwrap();
    wal.append(&log(1..=12, 3), Some(&state)).unwrap();
    wal.append_snapshot_mark(&mark).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, recovered) = Wal::recover_with(disk(), dir.path(), start, SMALL).unwrap();
    assert_eq!(recovered.entries, log(9..=12, 3));
}
