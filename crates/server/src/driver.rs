//! The threads below the serving threads: node, WAL and backend (`docs/architecture.md`, data flow).
//!
//! The node thread alone calls [`Node::handle`]; it drains its inbox in bursts, so that one burst's log entries leave as
//! one WAL job and one burst's answers as one delivery per serving thread. The WAL thread writes all jobs that have
//! queued up with one write and one sync, and acknowledges the last. The backend thread runs jobs one by one.
//!
//! Who waits for whom: WAL and backend threads may wait for room in the node's inbox (the node always drains it); the
//! node never waits for either, its own bounds on proposals in flight and on the write-behind tail bound both queues.
//!
//! At an orderly end the node thread goes first; both disk threads carry out what it has left in their queues, such as the
//! last commit, with nobody to report to. After a fault they end at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use machine::{BackendJob, JobKind};
use node::{Completion, Effects, Event, LogRead, Node, Now, Stop, WalJob};
use proto::raftpb;
use storage::wal::{self, Wal};
use storage::{Disk, Fault, snap};

use crate::config::GoDuration;
use crate::handle::thread_of;
use crate::mailbox::Mailbox;
use crate::metrics::{ApplyFigures, DiskWork};
use crate::peer::inflow::Waiting;
use crate::peer::outbox::Outbox;
use crate::priority;

/// Events that may queue for the node; serving threads refuse requests beyond, the disk threads wait.
pub const INBOX_EVENTS_MAX: usize = 4096;

/// Events handled before their effects are carried out: bounds latency, gives batches under load.
const BURST_EVENTS_MAX: usize = 256;

/// A sync of the log that takes longer is logged, as in etcd.
const FSYNC_PATIENCE: Duration = Duration::from_secs(1);

/// What the node thread needs.
#[derive(Debug)]
pub struct NodeThread {
    /// The member.
    pub node: Node,
    /// Effects of its start.
    pub effects: Effects,
    /// Its inbox.
    pub inbox: Receiver<Event>,
    /// The WAL thread's queue.
    pub wal: Sender<WalJob>,
    /// The backend thread's queue.
    pub backend: Sender<BackendJob>,
    /// The queue of the thread that reads the log back.
    pub log_reads: Sender<LogRead>,
    /// For other members.
    pub outbox: Arc<Outbox>,
    /// Told of what came from them.
    pub waiting: Arc<Waiting>,
    /// One per serving thread.
    pub mailboxes: Arc<[Mailbox]>,
    /// Time between ticks.
    pub tick: Duration,
    /// When the process started: the origin of [`Now`].
    pub started: Instant,
    /// For the metrics.
    pub figures: Arc<ApplyFigures>,
    /// Told once, when the member has ended.
    pub ended: tokio::sync::oneshot::Sender<Stop>,
}

impl NodeThread {
    /// Starts the thread.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("node".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        priority::take_short_turns();
        let mut per_thread: Vec<Vec<Completion>> =
            self.mailboxes.iter().map(|_| Vec::new()).collect();
        let mut next_tick = Instant::now() + self.tick;
        let mut effects = std::mem::take(&mut self.effects);
        loop {
            if let Some(stop) = self.carry_out(&mut effects, &mut per_thread) {
                for mailbox in &*self.mailboxes {
                    mailbox.close();
                }
                self.outbox.close();
                // The receiver is gone only when the whole process is already on its way out.
                drop(self.ended.send(stop));
                return;
            }
            let first = match self.inbox.recv_deadline(next_tick) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if first.is_none() || Instant::now() >= next_tick {
                next_tick = Instant::now() + self.tick;
                effects.append(self.node.handle(Event::Tick { now: Now(self.started.elapsed()) }));
            }
            for event in first.into_iter().chain(self.inbox.try_iter().take(BURST_EVENTS_MAX)) {
                if let Event::Step(messages) = &event {
                    self.waiting.taken(messages);
                }
                effects.append(self.node.handle(event));
            }
            effects.append(self.node.end_of_burst());
            self.figures.set_leases(&self.node.machine().lessor().stats());
        }
    }

    /// Carries effects out and leaves `effects` empty. Returns why the member has to end, if it has.
    fn carry_out(&self, effects: &mut Effects, per_thread: &mut [Vec<Completion>]) -> Option<Stop> {
        // First, for it has the longest way: others write to their disks while this member does.
        self.outbox.put(&mut effects.messages);
        for job in effects.wal.drain(..) {
            // A WAL thread that has ended has reported its fault first, which ends this thread too.
            drop(self.wal.send(job));
        }
        if std::mem::take(&mut effects.events_lost) {
            // Before any event that comes behind the gap.
            self.mailboxes.iter().for_each(Mailbox::lose_sight);
        }
        for batch in effects.events.drain(..) {
            for mailbox in &*self.mailboxes {
                mailbox.publish(&batch);
            }
        }
        for completion in effects.completions.drain(..) {
            per_thread[thread_of(completion.token)].push(completion);
        }
        for (mailbox, completions) in self.mailboxes.iter().zip(per_thread) {
            mailbox.complete(completions);
        }
        for job in effects.backend.drain(..) {
            drop(self.backend.send(job));
        }
        for read in effects.log_reads.drain(..) {
            drop(self.log_reads.send(read));
        }
        effects.stop.take()
    }
}

/// What the WAL thread needs.
#[derive(Debug)]
pub struct WalThread {
    /// The log.
    pub wal: Wal,
    /// Where `.snap` files go.
    pub disk: Arc<dyn Disk>,
    /// Their directory.
    pub snap_dir: PathBuf,
    /// Snapshot files that are kept, `None` for all (`--max-snapshots`).
    pub snapshots_max: Option<usize>,
    /// Its queue.
    pub jobs: Receiver<WalJob>,
    /// The node's inbox.
    pub inbox: Sender<Event>,
    /// For the metrics.
    pub work: Arc<DiskWork>,
    /// False under `--unsafe-no-fsync`.
    pub sync: bool,
}

impl WalThread {
    /// Starts the thread.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("wal".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        priority::take_short_turns();
        while let Ok(first) = self.jobs.recv() {
            let mut last = first.job;
            let mut result = Ok(());
            let mut must_sync = false;
            let mut has_mark = false;
            let mut next = Some(first);
            while let Some(job) = next {
                last = job.job;
                must_sync |= job.must_sync;
                has_mark |= job.snapshot.is_some();
                result = self.append(&job);
                if result.is_err() {
                    break;
                }
                next = self.jobs.try_recv().ok();
            }
            let result = result.and_then(|()| self.finish(must_sync, has_mark));
            let failed = result.is_err();
            // Without a node there may still be jobs that it has left.
            drop(self.inbox.send(Event::WalDone { job: last, result }));
            // After a failed sync nothing may be appended any more: what the kernel dropped is not known.
            if failed {
                return;
            }
        }
    }

    fn append(&mut self, job: &WalJob) -> Result<(), Fault> {
        if let Some((snapshot, _)) = &job.snapshot {
            self.save(snapshot)?;
        }
        job.append_to(&mut self.wal)
    }

    fn save(&self, snapshot: &raftpb::Snapshot) -> Result<(), Fault> {
        let started = Instant::now();
        let encoded = snap::encode(snapshot);
        self.work.snap_encode.observe(started.elapsed());
        let path = snap::path(&self.snap_dir, snapshot.metadata.term, snapshot.metadata.index);
        let writing = Instant::now();
        snap::write(&*self.disk, &path, &encoded)?;
        self.work.snap_fsync.observe(writing.elapsed());
        self.work.snap_save.observe(started.elapsed());
        Ok(())
    }

    fn finish(&mut self, must_sync: bool, has_mark: bool) -> Result<(), Fault> {
        let started = Instant::now();
        self.wal.flush()?;
        self.work.wal_write.observe(started.elapsed());
        if must_sync && self.sync {
            let started = Instant::now();
            self.wal.sync()?;
            let took = started.elapsed();
            self.work.wal_fsync.observe(took);
            if took > FSYNC_PATIENCE {
                tracing::warn!(
                    took = %GoDuration::from(took),
                    expected_duration = %GoDuration::from(FSYNC_PATIENCE),
                    "slow fdatasync"
                );
            }
        }
        self.work.wal_bytes.store(self.wal.stats().written_bytes, Ordering::Relaxed);
        // Only when the new mark is durable are the files of older ones superfluous.
        if let Some(kept) = self.snapshots_max.filter(|_| has_mark) {
            snap::purge(&*self.disk, &self.snap_dir, kept)?;
        }
        Ok(())
    }
}

/// What the thread needs that reads the log back for followers that lag behind. It waits for a disk, which the node must
/// not do, and the WAL thread even less.
#[derive(Debug)]
pub struct LogReadThread {
    /// Where the log is.
    pub disk: Arc<dyn Disk>,
    /// Its directory.
    pub wal_dir: PathBuf,
    /// Its queue; the node bounds it.
    pub reads: Receiver<LogRead>,
    /// The node's inbox.
    pub inbox: Sender<Event>,
}

impl LogReadThread {
    /// Starts the thread.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("log-read".into()).spawn(move || self.run())
    }

    fn run(self) {
        priority::follow();
        while let Ok(LogRead { range, bytes_max }) = self.reads.recv() {
            let index = range.start;
            let result = wal::read_entries(&*self.disk, &self.wal_dir, range, bytes_max);
            // Without a node nobody needs it.
            drop(self.inbox.send(Event::LogRead { index, result }));
        }
    }
}

/// What the backend thread needs.
#[derive(Debug)]
pub struct BackendThread {
    /// Its queue.
    pub jobs: Receiver<BackendJob>,
    /// The node's inbox.
    pub inbox: Sender<Event>,
    /// For the metrics.
    pub work: Arc<DiskWork>,
}

impl BackendThread {
    /// Starts the thread.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("backend".into()).spawn(move || self.run())
    }

    fn run(self) {
        priority::follow();
        let mut compaction = None;
        while let Ok(job) = self.jobs.recv() {
            let started = Instant::now();
            let kind = job.kind();
            if kind == JobKind::CompactIndex {
                compaction.get_or_insert(started);
            }
            let done = job.run();
            self.work.job_done(kind, started.elapsed());
            if let Some(begun) = compaction.take_if(|_| done.finishes_compaction()) {
                self.work.compacted(begun);
            }
            let failed = done.is_fault();
            // Without a node there may still be jobs that it has left.
            drop(self.inbox.send(Event::BackendDone(done)));
            if failed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crossbeam_channel::bounded;
    use proto::etcdserverpb::Metadata;
    use proto::raftpb;
    use storage::backend::Backend;
    use storage::mem::MemDisk;
    use storage::wal::Start;

    use super::*;

    /// A queue without room: who has put something in knows that the thread goes on.
    const NO_ROOM: usize = 0;

    /// An inbox whose node has ended.
    fn nobody() -> Sender<Event> {
        bounded(1).0
    }

    #[test]
    fn what_the_node_has_left_is_written_after_its_end() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("/wal");
        let wal = Wal::create(Arc::clone(&disk), dir, Metadata::default()).expect("a new log");
        let (sender, jobs) = bounded(NO_ROOM);
        let thread = WalThread {
            wal,
            disk: Arc::clone(&disk),
            snap_dir: PathBuf::from("/snap"),
            snapshots_max: None,
            jobs,
            inbox: nobody(),
            work: Arc::default(),
            sync: true,
        };
        let thread = thread.spawn().expect("a thread starts");
        for job in 1..=50 {
            let entry = raftpb::Entry { term: 1, index: job, ..raftpb::Entry::default() };
            let job = WalJob { job, entries: vec![entry], must_sync: true, ..WalJob::default() };
            sender.send(job).expect("the thread goes on");
        }
        drop(sender);
        thread.join().expect("no panic");
        let (_, recovered) = Wal::recover(disk, dir, Start::default()).expect("a whole log");
        assert_eq!(recovered.entries.len(), 50);
    }

    #[test]
    fn what_the_node_has_left_is_committed_after_its_end() {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let options = storage::backend::Options::default();
        let backend = Backend::open(disk, Path::new("/db"), machine::schema::BUCKETS, options);
        let backend = backend.expect("a new backend");
        let (sender, jobs) = bounded(NO_ROOM);
        let thread = BackendThread { jobs, inbox: nobody(), work: Arc::default() };
        let thread = thread.spawn().expect("a thread starts");
        for _ in 0..3 {
            sender.send(BackendJob::DefragmentStep(backend.clone())).expect("the thread goes on");
        }
        drop(sender);
        thread.join().expect("no panic");
    }
}
