//! Snapshots between the members of a world: what the shell does with them, at once.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use machine::Machine;
use proto::raftpb;
use storage::{Disk, OpenMode, OrFault as _, snap};

use super::world::{World, data_dir};
use crate::*;

/// One that a member was asked to take.
pub(super) struct Installing {
    from: String,
    to: String,
    /// The receiver's id.
    peer: u64,
}

impl World {
    /// Sends snapshots whose content is durable at their senders; returns whether there was one.
    pub(super) fn send_snapshots(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut has_sent = false;
        for message in std::mem::take(&mut self.snapshots) {
            let Some(from) = self.name_of(message.from) else { continue };
            let offered = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
            let process = self.members.get(&from).and_then(|member| member.process.as_ref());
            let Some(reader) = process.map(|process| process.node.reader()) else { continue };
            if reader.durable_index() < offered {
                self.snapshots.push(message);
                continue;
            }
            has_sent = true;
            let peer = message.to;
            match self.name_of(peer) {
                Some(to) if !self.members[&from].is_cut && !self.members[&to].is_cut => {
                    self.transfer(&reader, &from, &to, message)?;
                }
                _ => self.give_to(&from, Event::SnapshotSent { peer, is_done: false })?,
            }
        }
        Ok(has_sent)
    }

    /// Sends a snapshot of the chosen member's term although raft has not asked for one.
    pub(super) fn send_snapshot_to(&mut self, to: &str) -> Result<(), Box<dyn Error>> {
        let from = self.chosen.clone();
        let node = &self.process()?.node;
        let (reader, gate) = (node.reader(), node.gate());
        let receiver = self.members.get(to).and_then(|member| member.process.as_ref());
        let message = raftpb::Message {
            r#type: raftpb::MessageType::MsgSnap.into(),
            from: gate.member(),
            to: receiver.ok_or("no process runs")?.node.gate().member(),
            term: gate.term(),
            ..Default::default()
        };
        self.transfer(&reader, &from, to, message)?;
        self.settle()
    }

    /// Makes a snapshot's file at its sender, makes it a backend at its receiver, and gives it to that one's node.
    fn transfer(
        &mut self,
        reader: &machine::Reader,
        from: &str,
        to: &str,
        mut message: raftpb::Message,
    ) -> Result<(), Box<dyn Error>> {
        let view = reader.snapshot()?;
        let machine::schema::ConfState { voters, learners } = view.conf_state().clone();
        let conf_state = raftpb::ConfState { voters, learners, ..Default::default() };
        let index = view.index();
        let metadata = raftpb::SnapshotMetadata { conf_state, index, term: view.term() };
        let data = membership_document(&view.membership()?);
        message.snapshot = Some(raftpb::Snapshot { data, metadata });
        let mut image = view.image()?;
        let (mut file, mut piece) = (Vec::new(), Vec::new());
        while image.next_piece(&mut piece)? {
            file.extend_from_slice(&piece);
        }
        let receiver = &self.members[to];
        let disk: Arc<dyn Disk> = receiver.disk.clone();
        let prepared = Box::new(prepare(&disk, to, index, &file, &receiver.config)?);
        let peer = message.to;
        let token = self.ask(format!("{to}: snapshot at {index}"));
        let installing = Installing { from: from.to_owned(), to: to.to_owned(), peer };
        self.installing.insert(token.0, installing);
        let message = Box::new(message);
        self.give_to(to, Event::InstallSnapshot { token, message, prepared })
    }

    /// Takes the answer, if it is one to a snapshot, for its sender.
    pub(super) fn note_install(&mut self, token: Token, answer: &Answer) {
        if let Some(Installing { from, peer, .. }) = self.installing.remove(&token.0) {
            let is_done = matches!(answer, Answer::SnapshotInstalled);
            self.reports.push_back((from, Event::SnapshotSent { peer, is_done }));
        }
    }

    /// The process of `to` is gone: those who were sending it snapshots notice that.
    pub(super) fn cut_transfers(&mut self, to: &str) {
        let to_it = self.installing.iter().filter(|(_, installing)| installing.to == to);
        let tokens: Vec<u64> = to_it.map(|(token, _)| *token).collect();
        for token in tokens {
            self.asked.remove(&token);
            self.note_install(Token(token), &Answer::Failed(Failure::Stopped));
        }
    }

    /// Lists the files of snapshots.
    pub(super) fn snapshot_files(&mut self) -> Result<String, Box<dyn Error>> {
        let dir = data_dir(&self.chosen).join("member/snap");
        let mut out = String::new();
        for name in self.member().disk.list(&dir)? {
            writeln!(out, "{name}")?;
        }
        Ok(out)
    }
}

/// Does what the server does with a file that it has received.
fn prepare(
    disk: &Arc<dyn Disk>,
    name: &str,
    index: u64,
    content: &[u8],
    config: &Config,
) -> Result<Prepared, Box<dyn Error>> {
    let dir = data_dir(name).join("member/snap");
    let (received, beside) = (snap::database_path(&dir, index), snap::import_path(&dir, index));
    write_file(&**disk, &received, content)?;
    let options = config.backend.options;
    let backend = machine::import(disk, &received, &beside, &dir.join("db"), options)?;
    disk.remove_file(&received)?;
    let mut options = config.machine.clone();
    options.lease.clock_step = config.raft.lease_step();
    Ok(Prepared { machine: Machine::recover(backend.clone(), options)?, backend })
}

fn write_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), storage::Fault> {
    let file = disk.open(path, OpenMode::CreateNew).or_fault("create", path)?;
    file.write_all_at(0, content).or_fault("write", path)
}
