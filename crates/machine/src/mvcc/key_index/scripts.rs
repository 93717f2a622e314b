//! Runs the scripts in `testdata/key_index`, which tell the rules of generations and compaction.

use std::error::Error;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};

use super::keep::Keep;
use super::*;

#[derive(Debug, Default)]
struct Script {
    index: KeyIndex,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "put" => self.put(&mut args)?,
            "delete" => self.delete(&mut args)?,
            "restore" => self.restore(&mut args)?,
            "get" => self.get(&mut args)?,
            "list" => self.list(&mut args)?,
            "survivors" => self.survivors(&mut args)?,
            "compact" => self.compact(&mut args)?,
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    /// `put <key> <revision>`
    fn put(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let (key, revision) = (position(args)?, revision(position(args)?)?);
        let Put { created, version, previous } = self.index.put(key.as_bytes(), revision);
        let previous = previous.map_or_else(|| "none".into(), text);
        Ok(format!("created {created}, version {version}, previous {previous}\n"))
    }

    /// `delete <key> <revision>`
    fn delete(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let (key, revision) = (position(args)?, revision(position(args)?)?);
        let previous = self.index.tombstone(key.as_bytes(), revision);
        Ok(format!("previous {}\n", previous.map_or_else(|| "none, nothing written".into(), text)))
    }

    /// `restore <key> <revision> created=<main> version=<n>`, or `restore <key> <revision>` for a tombstone
    fn restore(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let (key, revision) = (position(args)?.as_bytes(), revision(position(args)?)?);
        let created: Option<i64> = args.take_key("created").map(str::parse).transpose()?;
        let version = args.take_key("version").map(str::parse).transpose()?.unwrap_or_default();
        let (tombstone, created) = (created.is_none(), created.unwrap_or_default());
        Ok(match self.index.restore(Restored { key, revision, created, version, tombstone }) {
            Ok(()) => String::new(),
            Err(refusal) => format!("refused: {refusal}\n"),
        })
    }

    /// `get <key> [<main>...]`: as seen at these revisions, by default now
    fn get(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let key = position(args)?;
        let mut output = String::new();
        let mut at = args.next_pos();
        loop {
            let seen = match self.index.get(key.as_bytes(), at.map_or(Ok(i64::MAX), str::parse)?) {
                None => "absent".into(),
                Some(Found { modified, created, version }) => {
                    format!("modified {}, created {created}, version {version}", text(modified))
                }
            };
            writeln!(output, "{key} at {}: {seen}", at.unwrap_or("current"))?;
            at = args.next_pos();
            if at.is_none() {
                return Ok(output);
            }
        }
    }

    /// `list [at=<main>]`: the keys, and how many the index holds, dead ones included
    fn list(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let at = args.take_key("at").map_or(Ok(i64::MAX), str::parse)?;
        let mut keys = Vec::new();
        self.index.range(b"", End::Unbounded, at, usize::MAX, |key, _| {
            keys.push(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Continue(())
        });
        let (count, _) = self.index.count(b"", End::Unbounded, at, usize::MAX);
        let (keys, held) = (keys.join(" "), self.index.keys());
        Ok(format!("[{keys}], counted {count}; {held} held in the index\n"))
    }

    /// `survivors <main>...`: what a hash at these revisions and a compaction would keep
    fn survivors(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let mut output = String::new();
        while let Some(at) = args.next_pos() {
            let (mut hash, mut compaction) =
                (Sweep::for_hash(at.parse()?), Sweep::for_compaction(at.parse()?));
            while !self.index.survey(&mut hash, 1) {}
            while !self.index.survey(&mut compaction, 1) {}
            let (hash, compaction) = (list(&hash.finish()), list(&compaction.finish()));
            writeln!(output, "at {at}: hash {hash}, compaction {compaction}")?;
        }
        Ok(output)
    }

    /// `compact <main>`
    fn compact(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let mut pass = Sweep::for_compaction(position(args)?.parse()?);
        while !self.index.compact(&mut pass, 1) {}
        Ok(format!("kept {}\n", list(&pass.finish())))
    }
}

fn position<'a>(args: &mut ArgumentConsumer<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn revision(text: &str) -> Result<Revision, Box<dyn Error>> {
    let (main, sub) = text.split_once('_').unwrap_or((text, "0"));
    Ok(Revision::new(main.parse()?, sub.parse()?))
}

fn text(revision: Revision) -> String {
    match revision {
        Revision { main, sub: 0 } => format!("{main}"),
        Revision { main, sub } => format!("{main}_{sub}"),
    }
}

fn list(keep: &Keep) -> String {
    let revisions: Vec<String> = keep.cursor().map(text).collect();
    assert_eq!(revisions.len(), keep.len());
    format!("[{}]", revisions.join(" "))
}

#[test]
fn scripts_give_the_output_they_show() -> Result<(), Box<dyn Error>> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/key_index");
    let mut count = 0;
    for script in std::fs::read_dir(scripts)? {
        goldenscript::run(&mut Script::default(), script?.path())?;
        count += 1;
    }
    assert!(count > 0, "there are scripts");
    Ok(())
}
