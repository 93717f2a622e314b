//! The write-ahead log: any bytes as segments, or any records with the right checksums.
//!
//! Compared: a log that recovered takes one more entry, and recovers again with exactly that one more; entries are read
//! back in order, without gaps.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::{raftpb, walpb};
use storage::mem::MemDisk;
use storage::wal::{self, Options, Recovered, Start, Wal};
use storage::{Disk, Fault};

use crate::input::Input;

const DIR: &str = "wal";
/// Small, so that segments are cut and reserved without 64 MB each.
const OPTIONS: Options = Options { segment_bytes: 4096, segments_max: 5 };
const SEGMENTS_MAX: usize = 4;
const MARKS_TRIED_MAX: usize = 3;

/// A segment: the index in its name, and its bytes.
type Segment = (u64, Vec<u8>);

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let segments = match input.byte() {
        0 => raw(&mut input),
        _ => structured(&mut input),
    };
    let mut starts = vec![Start::default()];
    let newest = wal::newest_snapshot_mark(&disk(&segments), Path::new(DIR));
    if let Ok(marks) = wal::snapshot_marks(&disk(&segments), Path::new(DIR)) {
        // Marks need not go up here, so it may be another one; but there is one only if there are any. A segment without
        // the checksum that it should begin with cannot be read by itself.
        assert!(newest.is_err() || newest.is_ok_and(|it| it.is_none_or(|it| marks.contains(&it))));
        starts.extend(marks.iter().rev().take(MARKS_TRIED_MAX).map(Start::from));
    }
    for range in [0..8, 1..u64::MAX, 3..5] {
        // A fault is an answer.
        drop(wal::read_entries(&disk(&segments), Path::new(DIR), range, 1000));
    }
    for start in starts {
        recover_twice(&segments, start);
    }
}

fn disk(segments: &[Segment]) -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("a disk in memory");
    for (sequence, (index, bytes)) in segments.iter().enumerate() {
        let name = format!("{DIR}/{sequence:016x}-{index:016x}.wal");
        disk.insert(Path::new(&name), bytes.clone());
    }
    disk
}

fn recover(disk: &MemDisk, start: Start) -> Result<(Wal, Recovered), Fault> {
    Wal::recover_with(Arc::new(disk.clone()), Path::new(DIR), start, OPTIONS)
}

fn recover_twice(segments: &[Segment], start: Start) {
    let disk = disk(segments);
    let Ok((mut wal, first)) = recover(&disk, start) else { return };
    check_reading_back(&disk, start, &first);
    let last = first.entries.last().map_or((start.index, start.term), |e| (e.index, e.term));
    let Some(index) = last.0.checked_add(1) else { return };
    let entry = raftpb::Entry { index, term: last.1, ..Default::default() };
    let appended = wal.append(std::slice::from_ref(&entry), None).and_then(|()| wal.sync());
    drop(wal);
    // A log at the end of all indexes takes no more.
    if appended.is_err() {
        return;
    }
    let (_, second) = recover(&disk, start).expect("a log that was recovered recovers again");
    let mut expected = first.entries;
    expected.push(entry);
    assert_eq!(second.entries, expected, "one entry more, and all others as before");
    assert_eq!(second.hard_state, first.hard_state);
}

/// A dishonest log may overwrite what it said is committed, and then the two need not agree: what is read back has to be
/// what was asked for, without gaps.
fn check_reading_back(disk: &MemDisk, start: Start, recovered: &Recovered) {
    let Some(end) = recovered.entries.last().and_then(|last| last.index.checked_add(1)) else {
        return;
    };
    let read = wal::read_entries(disk, Path::new(DIR), start.index + 1..end, usize::MAX)
        .expect("a log that was recovered can be read");
    let indexes = read.iter().map(|entry| entry.index);
    assert!(indexes.eq((start.index + 1..end).take(read.len())), "entries are read in order");
}

/// Bytes as they are, cut into segments.
fn raw(input: &mut Input<'_>) -> Vec<Segment> {
    let mut segments = Vec::new();
    for _ in 0..usize::from(input.byte()) % SEGMENTS_MAX {
        let index = input.number();
        segments.push((index, input.piece().to_vec()));
    }
    segments.push((input.number(), input.rest().to_vec()));
    segments
}

/// Records with the checksums that belong to them, in segments that begin as a writer begins them.
fn structured(input: &mut Input<'_>) -> Vec<Segment> {
    let mut writer = Writer::default();
    writer.begin(0);
    while !input.is_empty() && writer.segments.len() <= SEGMENTS_MAX {
        match input.byte() % 8 {
            0 | 1 => {
                let entry = raftpb::Entry {
                    index: input.number(),
                    term: input.number(),
                    r#type: i32::from(input.byte() % 3),
                    data: Bytes::copy_from_slice(input.piece()),
                };
                writer.record(2, &entry.encode_to_vec());
            }
            2 => {
                let (term, vote, commit) = (input.number(), input.number(), input.number());
                let state = raftpb::HardState { term, vote, commit };
                writer.record(3, &state.encode_to_vec());
            }
            3 => {
                let (index, term) = (input.number(), input.number());
                let mark = walpb::Snapshot { index, term, conf_state: None };
                writer.record(5, &mark.encode_to_vec());
            }
            4 => writer.record(input.signed(), input.piece()),
            5 => writer.begin(input.number()),
            6 => writer.bytes().extend_from_slice(input.piece()),
            _ => {
                let zeros = 512 * usize::from(input.byte() % 4) + usize::from(input.byte());
                let len = writer.bytes().len() + zeros;
                writer.bytes().resize(len, 0);
            }
        }
    }
    writer.segments
}

/// Writes segments by the description of the format in `docs/formats/wal.md`.
#[derive(Default)]
struct Writer {
    segments: Vec<Segment>,
    chain: u32,
}

impl Writer {
    fn begin(&mut self, index: u64) {
        self.segments.push((index, Vec::new()));
        self.frame(&walpb::Record { r#type: 4, crc: self.chain, data: Bytes::new() });
        let identity = proto::etcdserverpb::Metadata { node_id: 1, cluster_id: 2 };
        self.record(1, &identity.encode_to_vec());
        if self.segments.len() == 1 {
            self.record(5, &[]);
        }
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.segments.last_mut().expect("one is begun").1
    }

    fn record(&mut self, kind: i64, data: &[u8]) {
        self.chain = crc32c::crc32c_append(self.chain, data);
        let data = Bytes::copy_from_slice(data);
        self.frame(&walpb::Record { r#type: kind, crc: self.chain, data });
    }

    fn frame(&mut self, record: &walpb::Record) {
        let mut body = record.encode_to_vec();
        let padding = body.len().wrapping_neg() % 8;
        let mut word = body.len() as u64;
        if padding > 0 {
            word |= (0x80 | padding as u64) << 56;
        }
        body.resize(body.len() + padding, 0);
        let bytes = self.bytes();
        bytes.extend(word.to_le_bytes());
        bytes.extend(body);
    }
}
