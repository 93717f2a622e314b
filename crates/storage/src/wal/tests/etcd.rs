//! Reads what etcd 3.7.1 wrote: one member, `--snapshot-count 10`, fourteen puts (`key1` to `key14`), then a stop.
//! `testdata/etcd_3.7.1` holds the used part of its only segment, and its snapshot file.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use prost::Message;
use proto::etcdserverpb::InternalRaftRequest;
use proto::{raftpb, walpb};

use super::super::record::{Encoder, FrameLength, Kind};
use super::super::{Options, Start, Wal, snapshot_marks};
use super::disk;
use crate::length;
use crate::os::OsDisk;
use crate::snap;

const SEGMENT: &str = "0000000000000000-0000000000000000.wal";

fn written_by_etcd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/etcd_3.7.1")
}

/// Keys of the puts among `entries`, in order.
fn put_keys(entries: &[raftpb::Entry]) -> Vec<String> {
    let requests = entries.iter().map(|entry| InternalRaftRequest::decode(entry.data.clone()));
    let puts = requests.filter_map(|request| request.ok()?.put);
    puts.map(|put| String::from_utf8(put.key.to_vec()).unwrap()).collect()
}

#[test]
fn its_log_is_recovered_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(written_by_etcd().join(SEGMENT), dir.path().join(SEGMENT)).unwrap();

    let (wal, whole) = Wal::recover(disk(), dir.path(), Start::default()).unwrap();
    drop(wal);
    let keys: Vec<_> = (1..=14).map(|number| format!("key{number}")).collect();
    assert_eq!(put_keys(&whole.entries), keys);
    assert_eq!(whole.node_id, 3_319_814_642_761_637_952);
    let state = whole.hard_state.unwrap();
    assert_eq!((state.term, state.vote, state.commit), (2, whole.node_id, 18));
    assert_eq!(whole.repaired, None);

    let marks = snapshot_marks(&OsDisk, dir.path()).unwrap();
    let places: Vec<_> = marks.iter().map(|mark| (mark.index, mark.term)).collect();
    assert_eq!(places, [(0, 0), (11, 2)]);
    let start = Start::from(&marks[1]);
    let (mut wal, rest) = Wal::recover(disk(), dir.path(), start).unwrap();
    assert_eq!(rest.entries, whole.entries[11..]);

    let entry = raftpb::Entry { term: 3, index: 19, ..raftpb::Entry::default() };
    wal.append(std::slice::from_ref(&entry), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, rest) = Wal::recover(disk(), dir.path(), start).unwrap();
    assert_eq!(rest.entries.last(), Some(&entry));
}

/// Entries are given as bytes: etcd 3.7 leaves their type out when it is zero, earlier ones and we write it.
#[test]
fn its_records_are_encoded_as_it_did() {
    let theirs = fs::read(written_by_etcd().join(SEGMENT)).unwrap();
    let mut encoder = Encoder::new(0);
    let mut rest = Bytes::from(theirs.clone());
    while rest.has_remaining() {
        let frame = FrameLength::decode(rest.get_u64_le()).unwrap();
        let mut body = rest.split_to(length(frame.rest()));
        body.truncate(length(frame.body));
        let record = walpb::Record::decode(body).unwrap();
        match Kind::decode(record.r#type).unwrap() {
            Kind::Checksum => encoder.checksum(),
            Kind::Metadata => encoder.metadata(&record.data),
            Kind::State => encoder.state(&raftpb::HardState::decode(record.data).unwrap()),
            Kind::Snapshot => encoder.snapshot(&walpb::Snapshot::decode(record.data).unwrap()),
            Kind::Entry => encoder.data(Kind::Entry, record.data.len(), |buffer| {
                buffer.extend_from_slice(&record.data);
            }),
        }
    }
    assert_eq!(encoder.pending(), theirs);
}

#[test]
fn its_snapshot_file_is_loaded_and_written_alike() {
    let marks = snapshot_marks(&OsDisk, &written_by_etcd()).unwrap();
    let snapshot = snap::load_newest(&OsDisk, &written_by_etcd(), &marks).unwrap().unwrap();
    assert_eq!((snapshot.metadata.index, snapshot.metadata.term), (11, 2));
    assert_eq!(marks[1].conf_state.as_ref(), Some(&snapshot.metadata.conf_state));

    let dir = tempfile::tempdir().unwrap();
    snap::save(&OsDisk, dir.path(), &snapshot).unwrap();
    let ours = fs::read(snap::path(dir.path(), 2, 11)).unwrap();
    let theirs = fs::read(snap::path(&written_by_etcd(), 2, 11)).unwrap();
    assert_eq!(ours, theirs);
}

#[test]
fn default_sizes_are_its_sizes() {
    let options = Options::default();
    assert_eq!((options.segment_bytes, options.segments_max), (64_000_000, 5));
}
