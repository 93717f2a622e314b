//! Snapshots between members: made of a view, sent as a file, imported beside the present backend, and put in its place.
//!
//! Each step comes at its own time, on the disks of both members, so that crashes come in between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use machine::Machine;
use node::{Answer, Event, Prepared, Token};
use proto::raftpb;
use storage::{Disk, Fault, OpenMode, OrFault as _, snap};

use super::{Due, Step, World};
use crate::check::Violation;
use crate::cluster::Member;

/// Where what is received is written first.
const TEMPORARY: &str = "tmp.snap.db";

/// How often a sender looks whether what it is to send is durable.
const DURABLE_POLL: Duration = Duration::from_millis(5);

/// The longest that a file is on its way.
const DELAY_MAX: Duration = Duration::from_secs(4);

/// One on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) from: usize,
    /// The life of the sender.
    pub(super) from_life: u32,
    pub(super) message: raftpb::Message,
    pub(super) file: Vec<u8>,
}

/// One that a node is asked to take.
#[derive(Debug)]
pub(super) struct Installing {
    member: usize,
    life: u32,
    from: usize,
    from_life: u32,
}

impl World {
    pub(super) fn send_snapshot(&mut self, from: usize, to: usize, message: raftpb::Message) {
        let pause = self.disk_pause_of(from);
        self.soon(from, pause, Step::MakeSnapshot { to, message: Box::new(message) });
    }

    /// Makes the file once what the message offers is durable.
    pub(super) fn make_snapshot(
        &mut self,
        from: usize,
        to: usize,
        mut message: Box<raftpb::Message>,
    ) -> Result<(), Violation> {
        let Some(process) = &self.members[from].process else { return Ok(()) };
        let reader = process.node.reader();
        let offered = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
        if reader.durable_index() < offered {
            self.soon(from, DURABLE_POLL, Step::MakeSnapshot { to, message });
            return Ok(());
        }
        let made = made_of(&reader, &mut message);
        let file = match made {
            Ok(file) => file,
            Err(error) if self.members[from].disk.faults_struck() == 0 => {
                return Err(Violation(format!("a snapshot cannot be made: {error}")));
            }
            Err(_) => {
                self.snapshot_sent(from, to, false);
                return Ok(());
            }
        };
        let now = self.agenda.now();
        self.trace.line(now, || format!("m{} sends a snapshot to m{}", from + 1, to + 1));
        let is_lost =
            self.is_working() && self.rng.below(1000) < self.scenario.network.lost_permille;
        if is_lost || !self.ways.is_open(from, to, now) || self.members[to].process.is_none() {
            self.snapshot_sent(from, to, false);
            return Ok(());
        }
        let from_life = self.members[from].life;
        let transfer = Transfer { from, from_life, message: *message, file };
        // However slow, it has arrived before everything has to be at rest.
        let delay = (self.delay() * 3).min(DELAY_MAX);
        self.agenda.after(delay, Due::Snapshot { to, transfer: Box::new(transfer) });
        Ok(())
    }

    /// Reports to the sender what became of its snapshot.
    fn snapshot_sent(&mut self, from: usize, to: usize, is_done: bool) {
        let peer = self.members[to].id;
        self.report(from, Event::SnapshotSent { peer, is_done });
    }

    fn answer_sender(&mut self, (from, life): (usize, u32), to: usize, is_done: bool) {
        if self.members[from].life == life {
            self.snapshot_sent(from, to, is_done);
        }
    }

    /// The process that was receiving a snapshot is gone: its sender notices that.
    pub(super) fn cut_transfer(&mut self, to: usize) {
        let sender = self.process(to).and_then(|process| process.receiving_from);
        if let Some(sender) = sender {
            self.answer_sender(sender, to, false);
        }
    }

    /// A file arrives.
    pub(super) fn receive(&mut self, to: usize, transfer: Box<Transfer>) {
        let sender = (transfer.from, transfer.from_life);
        let now = self.agenda.now();
        let is_open = self.ways.is_open(transfer.from, to, now);
        let is_free = self.process(to).is_some_and(|process| process.receiving_from.is_none());
        if !is_open || !is_free || !self.admits(transfer.from, to) {
            self.answer_sender(sender, to, false);
            return;
        }
        if let Some(process) = self.process(to) {
            process.receiving_from = Some(sender);
        }
        let pause = self.disk_pause_of(to);
        self.soon(to, pause, Step::StoreSnapshot(transfer));
    }

    /// Writes the file to the receiver's disk.
    pub(super) fn store_snapshot(&mut self, to: usize, transfer: Box<Transfer>) {
        let stored = store(&self.members[to], &transfer);
        self.trace.line(self.agenda.now(), || format!("m{} stores: {stored:?}", to + 1));
        if stored.is_err() {
            self.refuse_snapshot(to, &transfer);
            return;
        }
        let pause = self.disk_pause_of(to);
        self.soon(to, pause, Step::PrepareSnapshot(transfer));
    }

    fn refuse_snapshot(&mut self, to: usize, transfer: &Transfer) {
        if let Some(process) = self.process(to) {
            process.receiving_from = None;
        }
        self.answer_sender((transfer.from, transfer.from_life), to, false);
    }

    /// Makes the file a backend, and gives it to the node.
    pub(super) fn prepare_snapshot(
        &mut self,
        to: usize,
        transfer: Box<Transfer>,
    ) -> Result<(), Violation> {
        let prepared = match prepare(&self.members[to], &transfer) {
            Ok(prepared) => prepared,
            Err(fault) if self.members[to].disk.faults_struck() == 0 => {
                return Err(Violation(format!("a snapshot cannot be taken: {fault}")));
            }
            Err(_) => {
                self.refuse_snapshot(to, &transfer);
                return Ok(());
            }
        };
        self.installs += 1;
        // Not one of a client's: those count from 1.
        let token = Token(u64::MAX - self.installs);
        let life = self.members[to].life;
        let Transfer { from, from_life, message, .. } = *transfer;
        self.installing.insert(token, Installing { member: to, life, from, from_life });
        let prepared = Box::new(prepared);
        let message = Box::new(message);
        self.arrive(to, Event::InstallSnapshot { token, message, prepared });
        Ok(())
    }

    /// Takes the answer to a snapshot; false when it was none.
    pub(super) fn installed(&mut self, token: Token, answer: &Answer) -> bool {
        let Some(Installing { member, life, from, from_life }) = self.installing.remove(&token)
        else {
            return false;
        };
        let is_done = matches!(answer, Answer::SnapshotInstalled);
        self.summary.installed += u64::from(is_done);
        // One that is gone has told its sender so.
        if self.members[member].life == life
            && let Some(process) = self.process(member)
        {
            process.receiving_from = None;
            self.answer_sender((from, from_life), member, is_done);
        }
        true
    }
}

/// Makes the database of what is durable, and the message tell of it.
fn made_of(
    reader: &machine::Reader,
    message: &mut raftpb::Message,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let view = reader.snapshot()?;
    let membership = view.membership()?;
    let machine::schema::ConfState { voters, learners } = view.conf_state().clone();
    let conf_state = raftpb::ConfState { voters, learners, ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state, index: view.index(), term: view.term() };
    let data = node::membership_document(&membership);
    message.snapshot = Some(raftpb::Snapshot { data, metadata });
    let mut image = view.image()?;
    let (mut file, mut piece) = (Vec::new(), Vec::new());
    while image.next_piece(&mut piece)? {
        file.extend_from_slice(&piece);
    }
    Ok(file)
}

fn index_of(transfer: &Transfer) -> u64 {
    transfer.message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index)
}

fn store(member: &Member, transfer: &Transfer) -> Result<(), Fault> {
    let disk = member.disk.mount();
    let dir = member.snap_dir();
    let path = dir.join(TEMPORARY);
    let stored = write_file(&*disk, &path, &transfer.file);
    if stored.is_err() {
        // Another attempt begins with another file.
        drop(disk.remove_file(&path));
        return stored;
    }
    disk.rename(&path, &snap::database_path(&dir, index_of(transfer))).or_fault("rename", &path)
}

fn write_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), Fault> {
    let file = disk.open(path, OpenMode::Create).or_fault("create", path)?;
    file.set_len(0).or_fault("empty", path)?;
    file.write_all_at(0, content).or_fault("write", path)?;
    file.sync_data().or_fault("sync", path)
}

/// Does what the server does with a file that it has received.
fn prepare(member: &Member, transfer: &Transfer) -> Result<Prepared, machine::Fault> {
    let disk: Arc<dyn Disk> = member.disk.mount();
    let (dir, index) = (member.snap_dir(), index_of(transfer));
    let received = snap::database_path(&dir, index);
    let beside = snap::import_path(&dir, index);
    let options = member.config.backend.options;
    let imported = machine::import(&disk, &received, &beside, &member.database(), options)
        .and_then(|backend| {
            let mut options = member.config.machine.clone();
            options.lease.clock_step = member.config.raft.lease_step();
            Ok((Machine::recover(backend.clone(), options)?, backend))
        });
    disk.remove_file(&received).or_fault("remove", &received)?;
    match imported {
        Ok((machine, backend)) => Ok(Prepared { machine, backend }),
        Err(fault) => {
            drop(disk.remove_file(&beside));
            Err(fault)
        }
    }
}
