//! Plays the scripts of `testdata/wal`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use goldenscript::ArgumentConsumer as Args;
use proto::{raftpb, walpb};

use super::super::reader::{Next, Reader};
use super::super::record::Record;
use super::super::segment::{self, Segment};
use super::super::{Recovered, Start, Wal, newest_snapshot_mark, read_entries, snapshot_marks};
use super::{IDENTITY, SMALL, disk, entry};
use crate::disk::Disk;
use crate::fault::Fault;
use crate::length;
use crate::os::OsDisk;

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
        let done = match self.change(&command.name, &mut args)? {
            None => match self.look(&command.name, &mut args)? {
                None => self.damage(&command.name, &mut args)?,
                done => done,
            },
            done => done,
        };
        args.reject_next()?;
        done.ok_or_else(|| format!("unknown verb {}", command.name).into())
    }

    /// Verbs that a member uses.
    fn change(
        &mut self,
        verb: &str,
        args: &mut Args<'_>,
    ) -> Result<Option<String>, Box<dyn Error>> {
        match verb {
            "create" => {
                self.wal = Some(Wal::create_with(disk(), &self.dir(), IDENTITY, SMALL)?);
            }
            "append" => self.append(args)?,
            "mark" => {
                let (index, term) = (next(args)?, next(args)?);
                let conf_state = Some(raftpb::ConfState::default());
                self.wal()?.append_snapshot_mark(&walpb::Snapshot { index, term, conf_state })?;
            }
            "flush" => self.wal()?.flush()?,
            "sync" => self.wal()?.sync()?,
            "release" => self.wal()?.release_to(next(args)?)?,
            "close" => self.wal = None,
            "recover" => {
                self.wal = None;
                let start = Start {
                    index: optional(args.next_pos())?.unwrap_or(0),
                    term: optional(args.next_pos())?.unwrap_or(0),
                };
                let recovered = Wal::recover_with(disk(), &self.dir(), start, SMALL)?;
                return Ok(Some(self.recovered(recovered)));
            }
            _ => return Ok(None),
        }
        Ok(Some(String::new()))
    }

    fn append(&mut self, args: &mut Args<'_>) -> Result<(), Box<dyn Error>> {
        let hard_state = raftpb::HardState {
            term: optional(args.take_key("term"))?.unwrap_or(0),
            vote: optional(args.take_key("vote"))?.unwrap_or(0),
            commit: optional(args.take_key("commit"))?.unwrap_or(0),
        };
        let mut entries = Vec::new();
        while let Some((position, data)) = args.next_key() {
            entries.push(parse_entry(position, data)?);
        }
        Ok(self.wal()?.append(&entries, Some(&hard_state))?)
    }

    /// Verbs that only look.
    fn look(&mut self, verb: &str, args: &mut Args<'_>) -> Result<Option<String>, Box<dyn Error>> {
        let mut output = String::new();
        match verb {
            "stats" => write!(output, "{:?}", self.wal()?.stats())?,
            "marks" => {
                let marks = snapshot_marks(&OsDisk, &self.dir())?;
                for mark in &marks {
                    writeln!(output, "{}@{}", mark.index, mark.term)?;
                }
                let newest = newest_snapshot_mark(&OsDisk, &self.dir())?;
                assert_eq!(newest.as_ref(), marks.last(), "the newest, read from behind");
            }
            "read" => {
                let range = next(args)?..next(args)?;
                let max = optional(args.take_key("bytes"))?.map_or(usize::MAX, length);
                for entry in read_entries(&OsDisk, &self.dir(), range, max)? {
                    writeln!(output, "{}", show_entry(&entry))?;
                }
            }
            "dump" => output = dump(&self.dir())?,
            "files" => {
                for name in OsDisk.list(&self.dir())? {
                    let len = fs::metadata(self.dir().join(&name))?.len();
                    writeln!(output, "{len:6} {name}")?;
                }
            }
            _ => return Ok(None),
        }
        Ok(Some(output))
    }

    /// Verbs that do to a segment, the last one unless told, what a disk should not.
    fn damage(
        &mut self,
        verb: &str,
        args: &mut Args<'_>,
    ) -> Result<Option<String>, Box<dyn Error>> {
        let path = self.segment(optional(args.take_key("segment"))?)?;
        let mut bytes = fs::read(&path)?;
        match verb {
            "flip" => bytes[length(next(args)?)] ^= 0x01,
            "set" => {
                let at = length(next(args)?);
                let word = u64::from_str_radix(args.next_pos().ok_or("no word")?, 16)?;
                bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            "zero" => bytes[length(next(args)?)..length(next(args)?)].fill(0),
            "truncate" => bytes.truncate(length(next(args)?)),
            "remove" => {
                fs::remove_file(path)?;
                return Ok(Some(String::new()));
            }
            _ => return Ok(None),
        }
        fs::write(path, bytes)?;
        Ok(Some(String::new()))
    }
}

/// The next positional argument, a number.
fn next(args: &mut Args<'_>) -> Result<u64, Box<dyn Error>> {
    Ok(args.next_pos().ok_or("a number is missing")?.parse()?)
}

fn optional(text: Option<&str>) -> Result<Option<u64>, Box<dyn Error>> {
    Ok(text.map(str::parse).transpose()?)
}

/// Reads `index@term=data`, where `<length>b` stands for that many bytes.
fn parse_entry(position: &str, data: &str) -> Result<raftpb::Entry, Box<dyn Error>> {
    let (index, term) = position.split_once('@').ok_or("entries are index@term=data")?;
    let data = match data.strip_suffix('b').and_then(|length| length.parse().ok()) {
        Some(length) => vec![b'x'; length],
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
