//! The log's tests: scripts (`testdata/wal`), a real etcd's log, damage at every place, random records.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proto::etcdserverpb::Metadata;
use proto::{raftpb, walpb};

use super::reader::{Next, Reader};
use super::record::{Encoder, FrameLength, Record};
use super::segment::{self, Segment};
use super::{Options, Recovered, SEGMENT_BYTES, Start, Wal, exists, read_entries, snapshot_marks};
use crate::fault::Fault;
use crate::os::OsDisk;

const IDENTITY: Metadata = Metadata { node_id: 0x11, cluster_id: 0x22 };
const SMALL: Options = Options { segment_bytes: 16 << 10, segments_max: 2 };

fn disk() -> Arc<OsDisk> {
    Arc::new(OsDisk)
}

fn entry(index: u64, term: u64, data: impl Into<Bytes>) -> raftpb::Entry {
    raftpb::Entry { r#type: 0, term, index, data: data.into() }
}

fn state(term: u64, vote: u64, commit: u64) -> raftpb::HardState {
    raftpb::HardState { term, vote, commit }
}

/// All records in `dir`, with the offset of each, and where the log ends.
fn dump(dir: &Path) -> Result<String, Fault> {
    let mut output = String::new();
    for name in segment::list(&OsDisk, dir)? {
        writeln!(output, "{name}").unwrap();
        let segments = [Segment::open(&OsDisk, dir, name)?];
        let mut reader = Reader::new(&segments)?;
        loop {
            let next = reader.next();
            let at = reader.record_offset();
            match next {
                Ok(Next::Record(record)) => writeln!(output, "{at:6} {}", show(&record)).unwrap(),
                Ok(end @ (Next::End | Next::Torn)) => {
                    writeln!(output, "{at:6} {end:?}").unwrap();
                    break;
                }
                Err(fault) => {
                    writeln!(output, "{at:6} {}", fault_text(&fault, dir)).unwrap();
                    break;
                }
            }
        }
    }
    Ok(output)
}

fn show(record: &Record) -> String {
    match record {
        Record::Metadata(bytes) => format!("metadata of {} bytes", bytes.len()),
        Record::Entry(entry) => format!("entry {}", show_entry(entry)),
        Record::State(state) => show_state(state),
        Record::Checksum(chain) => format!("checksum {chain:08x}"),
        Record::Snapshot(mark) => format!("mark {}@{}", mark.index, mark.term),
    }
}

fn show_entry(entry: &raftpb::Entry) -> String {
    let data = if entry.data.len() > 16 {
        format!("{} bytes", entry.data.len())
    } else {
        String::from_utf8_lossy(&entry.data).into_owned()
    };
    format!("{}@{} {data}", entry.index, entry.term)
}

fn show_state(state: &raftpb::HardState) -> String {
    format!("state term={} vote={} commit={}", state.term, state.vote, state.commit)
}

fn fault_text(fault: &Fault, dir: &Path) -> String {
    fault.to_string().replace(&dir.display().to_string(), "wal")
}

/// Plays the scripts.
struct Script {
    root: tempfile::TempDir,
    wal: Option<Wal>,
}

impl Script {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), wal: None }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("wal")
    }

    fn wal(&mut self) -> Result<&mut Wal, String> {
        self.wal.as_mut().ok_or_else(|| "the log is not open".to_owned())
    }

    /// The path of the segment with that sequence number, or the last one.
    fn segment(&self, sequence: Option<u64>) -> Result<PathBuf, Box<dyn Error>> {
        let names = segment::list(&OsDisk, &self.dir())?;
        let found = match sequence {
            Some(sequence) => names.iter().find(|name| name.sequence == sequence),
            None => names.last(),
        };
        Ok(self.dir().join(found.ok_or("no such segment")?.to_string()))
    }

    fn edit(
        &self,
        sequence: Option<u64>,
        edit: impl FnOnce(&mut Vec<u8>),
    ) -> Result<String, Box<dyn Error>> {
        let path = self.segment(sequence)?;
        let mut bytes = fs::read(&path)?;
        edit(&mut bytes);
        fs::write(path, bytes)?;
        Ok(String::new())
    }

    fn recovered(&mut self, recovered: (Wal, Recovered)) -> String {
        let (wal, recovered) = recovered;
        self.wal = Some(wal);
        let mut output = String::new();
        for entry in &recovered.entries {
            writeln!(output, "{}", show_entry(entry)).unwrap();
        }
        if let Some(state) = &recovered.hard_state {
            writeln!(output, "{}", show_state(state)).unwrap();
        }
        if let Some(repair) = &recovered.repaired {
            let path = repair.path.file_name().unwrap().display();
            let broken = repair.broken.file_name().unwrap().display();
            writeln!(output, "cut {path} at {}, kept {broken}", repair.offset).unwrap();
        }
        output
    }

    fn execute(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let number = |text: Option<&str>| text.map(str::parse::<u64>).transpose();
        let output = match command.name.as_str() {
            "create" => {
                let wal = Wal::create_with(disk(), &self.dir(), IDENTITY, SMALL)?;
                self.wal = Some(wal);
                String::new()
            }
            "append" => {
                let mut hard_state = raftpb::HardState::default();
                let mut entries = Vec::new();
                hard_state.term = number(args.take_key("term"))?.unwrap_or(0);
                hard_state.vote = number(args.take_key("vote"))?.unwrap_or(0);
                hard_state.commit = number(args.take_key("commit"))?.unwrap_or(0);
                while let Some((position, data)) = args.next_key() {
                    entries.push(parse_entry(position, data)?);
                }
                self.wal()?.append(&entries, Some(&hard_state))?;
                String::new()
            }
            "mark" => {
                let index = number(args.next_pos())?.ok_or("no index")?;
                let term = number(args.next_pos())?.ok_or("no term")?;
                let conf_state = Some(raftpb::ConfState::default());
                self.wal()?.append_snapshot_mark(&walpb::Snapshot { index, term, conf_state })?;
                String::new()
            }
            "flush" => self.wal()?.flush().map(|()| String::new())?,
            "sync" => self.wal()?.sync().map(|()| String::new())?,
            "release" => {
                let index = number(args.next_pos())?.ok_or("no index")?;
                self.wal()?.release_to(index).map(|()| String::new())?
            }
            "stats" => format!("{:?}", self.wal()?.stats()),
            "close" => {
                self.wal = None;
                String::new()
            }
            "recover" => {
                self.wal = None;
                let index = number(args.next_pos())?.unwrap_or(0);
                let term = number(args.next_pos())?.unwrap_or(0);
                let start = Start { index, term };
                let recovered = Wal::recover_with(disk(), &self.dir(), start, SMALL)?;
                self.recovered(recovered)
            }
            "marks" => {
                let marks = snapshot_marks(&OsDisk, &self.dir())?;
                marks.iter().map(|mark| format!("{}@{}\n", mark.index, mark.term)).collect()
            }
            "read" => {
                let from = number(args.next_pos())?.ok_or("no start")?;
                let to = number(args.next_pos())?.ok_or("no end")?;
                let max = number(args.take_key("bytes"))?.unwrap_or(u64::from(u32::MAX)) as usize;
                let entries = read_entries(&OsDisk, &self.dir(), from..to, max)?;
                entries.iter().map(|entry| show_entry(entry) + "\n").collect()
            }
            "dump" => dump(&self.dir())?,
            "files" => {
                let mut output = String::new();
                let mut names: Vec<_> = fs::read_dir(self.dir())?.collect::<Result<_, _>>()?;
                names.sort_by_key(fs::DirEntry::file_name);
                for name in names {
                    let len = name.metadata()?.len();
                    writeln!(output, "{len:6} {}", name.file_name().display())?;
                }
                output
            }
            "flip" => {
                let sequence = number(args.take_key("segment"))?;
                let at = number(args.next_pos())?.ok_or("no offset")? as usize;
                self.edit(sequence, |bytes| bytes[at] ^= 0x01)?
            }
            "set" => {
                let sequence = number(args.take_key("segment"))?;
                let at = number(args.next_pos())?.ok_or("no offset")? as usize;
                let word = u64::from_str_radix(args.next_pos().ok_or("no word")?, 16)?;
                self.edit(sequence, |bytes| bytes[at..at + 8].copy_from_slice(&word.to_le_bytes()))?
            }
            "zero" => {
                let from = number(args.next_pos())?.ok_or("no start")? as usize;
                let to = number(args.next_pos())?.ok_or("no end")? as usize;
                self.edit(None, |bytes| bytes[from..to].fill(0))?
            }
            "truncate" => {
                let len = number(args.next_pos())?.ok_or("no length")? as usize;
                self.edit(None, |bytes| bytes.truncate(len))?
            }
            "remove" => {
                fs::remove_file(self.segment(number(args.next_pos())?)?)?;
                String::new()
            }
            name => return Err(format!("unknown verb {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

/// Reads `index@term=data`, or `index@term=*length`.
fn parse_entry(position: &str, data: &str) -> Result<raftpb::Entry, Box<dyn Error>> {
    let (index, term) = position.split_once('@').ok_or("entries are index@term=data")?;
    let data = match data.strip_prefix('*') {
        Some(length) => vec![b'x'; length.parse()?],
        None => data.as_bytes().to_vec(),
    };
    Ok(entry(index.parse()?, term.parse()?, data))
}

impl goldenscript::Runner for Script {
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let dir = self.dir();
        self.execute(command).map_err(|error| match error.downcast::<Fault>() {
            Ok(fault) => fault_text(&fault, &dir).into(),
            Err(error) => error,
        })
    }
}

#[test]
fn scripts_give_the_recorded_output() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/wal");
    let mut played = 0;
    for script in fs::read_dir(scripts).unwrap() {
        let path = script.unwrap().path();
        if path.extension().is_none() {
            goldenscript::run(&mut Script::new(), &path).unwrap();
            played += 1;
        }
    }
    assert!(played > 0);
}
