//! etcd's own log package reads what we write, and we read what it writes.
//!
//! Needs the program in `interop/wal`, built, its path in `QUORATE_ETCD_WALTOOL`; without it these tests are skipped.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test, also outside of its test functions; the environment names the program"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::Metadata;
use proto::{raftpb, walpb};
use storage::wal::{Options, Recovered, Start, Wal, snapshot_marks};
use storage::{Disk, Fault, OpenMode, OsDisk};

const NODE_ID: u64 = 0x1234_5678_90ab_cdef;
const CLUSTER_ID: u64 = 0xfedc_ba09_8765_4321;
const OPTIONS: Options = Options { segment_bytes: 20_000, segments_max: 0 };

struct Tool(PathBuf);

impl Tool {
    fn find() -> Option<Self> {
        let path = std::env::var_os("QUORATE_ETCD_WALTOOL");
        if path.is_none() {
            eprintln!(
                "skipped: QUORATE_ETCD_WALTOOL does not name the built program of interop/wal"
            );
        }
        path.map(|path| Self(path.into()))
    }

    fn run(&self, arguments: &[&str], dir: &Path) -> Output {
        Command::new(&self.0).args(arguments).arg(dir).output().unwrap()
    }

    /// What etcd reads in `dir` from `start` on.
    fn read(&self, dir: &Path, start: Start) -> String {
        let (index, term) = (start.index.to_string(), start.term.to_string());
        let output = self.run(&["-index", &index, "-term", &term], dir);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// What we read in `dir` from `start` on, in the tool's words.
fn read(dir: &Path, start: Start) -> String {
    let (_, recovered) = Wal::recover_with(Arc::new(OsDisk), dir, start, OPTIONS).unwrap();
    let Recovered { node_id, cluster_id, hard_state, entries, repaired } = recovered;
    assert_eq!(repaired, None);
    let raftpb::HardState { term, vote, commit } = hard_state.unwrap();
    let mut lines = format!("{{\"node_id\":{node_id},\"cluster_id\":{cluster_id}}}\n");
    writeln!(lines, "{{\"term\":{term},\"vote\":{vote},\"commit\":{commit}}}").unwrap();
    for raftpb::Entry { r#type, term, index, data } in entries {
        write!(lines, "{{\"type\":{type},\"term\":{term},\"index\":{index},\"data\":\"").unwrap();
        data.iter().for_each(|byte| write!(lines, "{byte:02x}").unwrap());
        lines.push_str("\"}\n");
    }
    lines
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<raftpb::Entry> {
    let data = |index: u64| Bytes::from(vec![b'y'; usize::try_from(index * 7).unwrap()]);
    range.map(|index| raftpb::Entry { r#type: 0, term, index, data: data(index) }).collect()
}

/// A log with overwritten entries, a snapshot mark and cut segments.
fn write(dir: &Path) -> Wal {
    let identity = Metadata { node_id: NODE_ID, cluster_id: CLUSTER_ID };
    let mut wal = Wal::create_with(Arc::new(OsDisk), dir, identity, OPTIONS).unwrap();
    let state = |term, commit| raftpb::HardState { term, vote: NODE_ID, commit };
    for batch in 0..10 {
        let commit = batch * 10 + 5;
        wal.append(&entries(batch * 10 + 1..=batch * 10 + 10, 1), Some(&state(1, commit))).unwrap();
        wal.sync().unwrap();
    }
    wal.append(&entries(97..=150, 3), Some(&state(3, 120))).unwrap();
    let conf_state = Some(raftpb::ConfState { voters: vec![NODE_ID], ..Default::default() });
    wal.append_snapshot_mark(&walpb::Snapshot { index: 90, term: 1, conf_state }).unwrap();
    wal.append(&entries(151..=160, 3), Some(&state(3, 160))).unwrap();
    wal.sync().unwrap();
    assert!(wal.stats().cuts >= 2);
    wal
}

#[test]
fn etcd_reads_our_log() {
    let Some(tool) = Tool::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    drop(write(&dir));
    for start in [Start::default(), Start { index: 90, term: 1 }] {
        let ours = read(&dir, start);
        assert_eq!(tool.read(&dir, start), ours);
        // It has opened the log for writing and cleared what lies behind the end.
        assert_eq!(read(&dir, start), ours);
    }
}

#[test]
fn etcd_reads_our_log_after_a_torn_tail_was_cut() {
    let Some(tool) = Tool::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    let wal = write(&dir);
    let stats = wal.stats();
    drop(wal);
    let file = OsDisk.open(&newest_segment(&dir), OpenMode::ReadWrite).unwrap();
    file.set_len(stats.segment_used_bytes - 30).unwrap();
    let start = Start { index: 90, term: 1 };
    let (mut wal, recovered) = Wal::recover_with(Arc::new(OsDisk), &dir, start, OPTIONS).unwrap();
    assert!(recovered.repaired.is_some());
    let last = recovered.entries.last().unwrap().index;
    wal.append(&entries(last + 1..=last + 20, 4), None).unwrap();
    wal.sync().unwrap();
    drop(wal);
    assert_eq!(tool.read(&dir, start), read(&dir, start));
}

fn newest_segment(dir: &Path) -> PathBuf {
    let names = std::fs::read_dir(dir).unwrap().map(|name| name.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).max().unwrap()
}

#[test]
fn we_read_etcds_log() {
    let Some(tool) = Tool::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    let output = tool.run(&["-write", "205", "-segment-bytes", "9000"], &dir);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let marks = snapshot_marks(&OsDisk, &dir).unwrap();
    assert_eq!(marks.len(), 2);
    for start in marks.iter().map(Start::from) {
        assert_eq!(read(&dir, start), tool.read(&dir, start));
    }

    // And we continue it.
    let start = Start::from(&marks[1]);
    let (mut wal, recovered) = Wal::recover_with(Arc::new(OsDisk), &dir, start, OPTIONS).unwrap();
    assert_eq!((recovered.node_id, recovered.cluster_id), (NODE_ID, CLUSTER_ID));
    wal.append(&entries(206..=300, 3), None).unwrap();
    wal.sync().unwrap();
    assert!(wal.stats().cuts > 0);
    drop(wal);
    assert_eq!(tool.read(&dir, start), read(&dir, start));
}

#[test]
fn neither_opens_a_log_that_the_other_has_open() {
    let Some(tool) = Tool::find() else { return };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("wal");
    let wal = write(&dir);
    let refused = tool.run(&[], &dir);
    assert!(!refused.status.success());
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("locked"), "{message}");
    let second = Wal::recover(Arc::new(OsDisk), &dir, Start::default()).unwrap_err();
    assert!(matches!(second, Fault::Locked { .. }));
    drop(wal);
}
