//! Members: their disks, and the processes that run on them.
//!
//! A process is the node with what drivers do for it: the WAL thread, which takes all jobs that have queued, writes them,
//! syncs once and reports the last; and the backend thread, which carries out one job after the other. Each step happens at
//! its own time, so that everything else, a crash included, can come in between.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use machine::{BackendDone, BackendJob, Outcome, RequestKind};
use node::{Config, Effects, Event, LogRead, Meter, Node, Now, StartError, Started, WalJob};
use parking_lot::Mutex;
use proto::raftpb;
use storage::datadir::DataDir;
use storage::wal::Wal;
use storage::{Disk, Fault, snap};

use crate::check::Heard;
use crate::disk::SimDisk;
use crate::rng::Rng;
use crate::serving::Serving;

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its disk, which outlives its processes.
    pub disk: SimDisk,
    /// How its processes are set up.
    pub config: Config,
    /// How much faster its clock goes than the true one, in parts of a thousand.
    pub drift: i32,
    /// Counts its processes; what was meant for an earlier one is passed over.
    pub life: u32,
    /// Its process, while one runs.
    pub process: Option<Process>,
    /// Until when its process stands still.
    pub paused_until: Duration,
    /// Until when its disk is slow.
    pub slow_until: Duration,
    /// Whether it is no member any more and has ended because of that.
    pub is_removed: bool,
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// The member's core.
    pub node: Node,
    /// The thread that serves clients.
    pub serving: Serving,
    /// Events that wait for the node thread.
    pub inbox: VecDeque<Event>,
    /// Whether the node thread is about to look into its inbox.
    pub is_turn_due: bool,
    /// Whether time is to be told.
    pub is_tick_due: bool,
    /// The time since the start that was told last.
    pub ticked: Duration,
    /// When the process began.
    pub started: Duration,
    /// The WAL thread.
    pub wal: WalThread,
    /// The backend thread.
    pub backend: BackendThread,
    /// What was applied and not judged yet.
    pub heard: Ears,
    /// The place and life of the member whose snapshot is being received.
    pub receiving_from: Option<(usize, u32)>,
    /// When the others were asked for their release.
    pub versions_asked: Duration,
    /// Held for its lock.
    data_dir: DataDir,
}

impl Process {
    /// Reads the log back, as the thread for that does.
    pub fn read_log(&self, read: LogRead) -> Event {
        let LogRead { range, bytes_max } = read;
        let index = range.start;
        let dir = self.data_dir.wal();
        let result = storage::wal::read_entries(&*self.wal.disk, dir, range, bytes_max);
        Event::LogRead { index, result }
    }
}

/// Hears what a node applies.
#[derive(Debug, Default, Clone)]
pub struct Ears(Arc<Mutex<Vec<Heard>>>);

impl Ears {
    /// Takes what was heard.
    pub fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Meter for Ears {
    fn begins(&mut self, index: u64, term: u64, content: &Bytes) {
        self.0.lock().push(Heard { index, term, content: content.clone() });
    }

    fn applied(&mut self, _kind: RequestKind, _data: &Bytes, _outcome: &Outcome) {}

    fn own_proposed(&mut self, _id: u64) {}

    fn own_answered(&mut self, _id: u64) {}
}

/// What the WAL thread is at.
#[derive(Debug)]
pub struct WalThread {
    wal: Wal,
    disk: Arc<dyn Disk>,
    snap_dir: PathBuf,
    jobs: VecDeque<WalJob>,
    /// The last job written, and whether a sync is due, while one or the other is.
    under_way: Option<(u64, bool)>,
    /// What was written last.
    written: Vec<Written>,
    /// A thread that met a fault has ended.
    has_ended: bool,
}

/// What a log thread has written.
#[derive(Debug)]
pub struct Written {
    /// Entries.
    pub entries: Vec<raftpb::Entry>,
    /// The index of a mark.
    pub mark: Option<u64>,
}

/// What the backend thread is at.
#[derive(Debug)]
pub struct BackendThread {
    jobs: VecDeque<BackendJob>,
    is_busy: bool,
}

impl Member {
    /// A member that was never started.
    pub fn new(id: u64, config: Config, drift: i32) -> Self {
        Self {
            id,
            disk: SimDisk::default(),
            config,
            drift,
            life: 0,
            process: None,
            paused_until: Duration::ZERO,
            slow_until: Duration::ZERO,
            is_removed: false,
        }
    }

    /// Starts a process; its first effects are to be carried out.
    pub fn start(
        &mut self,
        now: Duration,
        serve: impl FnOnce(machine::Reader) -> Serving,
    ) -> Result<Effects, StartError> {
        self.life += 1;
        let disk = self.disk.mount();
        let unix_ms = u64::try_from(now.as_millis()).unwrap_or(0) + 1_000_000;
        let config = Config { unix_ms, ..self.config.clone() };
        let heard = Ears::default();
        let meter = Box::new(heard.clone());
        let Started { node, wal, data_dir, effects } =
            Node::start_heard(&disk, config, Now::default(), Some(meter))?;
        let snap_dir = data_dir.snap().to_owned();
        self.paused_until = Duration::ZERO;
        self.process = Some(Process {
            serving: serve(node.reader()),
            node,
            inbox: VecDeque::new(),
            is_turn_due: false,
            is_tick_due: false,
            ticked: Duration::ZERO,
            started: now,
            wal: WalThread {
                wal,
                disk,
                snap_dir,
                jobs: VecDeque::new(),
                under_way: None,
                written: Vec::new(),
                has_ended: false,
            },
            backend: BackendThread { jobs: VecDeque::new(), is_busy: false },
            heard,
            receiving_from: None,
            versions_asked: now,
            data_dir,
        });
        Ok(effects)
    }

    /// Returns what the clock of its process says at `now`, since the process began.
    pub fn clock(&self, now: Duration) -> Duration {
        let started = self.process.as_ref().map_or(now, |process| process.started);
        let passed = now.saturating_sub(started);
        let drift = passed / 1000 * self.drift.unsigned_abs();
        if self.drift < 0 { passed.saturating_sub(drift) } else { passed + drift }
    }

    /// Returns the directory of snapshots and of the database.
    pub fn snap_dir(&self) -> PathBuf {
        self.config.data_dir.join("member/snap")
    }

    /// Returns the database's path.
    pub fn database(&self) -> PathBuf {
        self.process.as_ref().map_or_else(PathBuf::new, |process| process.data_dir.database())
    }

    /// Ends the process at once. What it does while it goes, such as closing the engine, has no effect.
    pub fn kill(&mut self) {
        self.life += 1;
        self.disk.kill();
        self.process = None;
    }

    /// Lets the process end in order. Returns what its log thread has written in the end.
    pub fn exit(&mut self) -> Vec<Written> {
        self.life += 1;
        let mut written = Vec::new();
        if let Some(mut process) = self.process.take() {
            process.wal.drain();
            written = process.wal.take_written();
            process.backend.drain();
            let Process { node, wal, backend, data_dir, .. } = process;
            drop((node, wal, backend, data_dir));
        }
        self.disk.kill();
        written
    }
}

impl WalThread {
    /// Puts in a job; tells whether the thread was idle.
    pub fn push(&mut self, job: WalJob) -> bool {
        self.jobs.push_back(job);
        self.jobs.len() == 1 && self.under_way.is_none() && !self.has_ended
    }

    /// Tells whether jobs wait and nothing is under way.
    pub fn is_due(&self) -> bool {
        !self.jobs.is_empty() && self.under_way.is_none() && !self.has_ended
    }

    /// Writes the first jobs that have queued, some or all of them. A fault is to be reported.
    pub fn write(&mut self, rng: &mut Rng) -> Option<Event> {
        let jobs = rng.index(self.jobs.len()) + 1;
        let mut last = 0;
        let mut must_sync = false;
        let mut result = Ok(());
        for job in self.jobs.drain(..jobs) {
            last = job.job;
            must_sync |= job.must_sync;
            // What comes before a mark is durable in a backend, whose ever log it was in.
            let mark = job.snapshot.as_ref().map(|(_, mark)| mark.index);
            self.written.push(Written { entries: job.entries.clone(), mark });
            result = append(&*self.disk, &self.snap_dir, &mut self.wal, &job);
            if result.is_err() {
                break;
            }
        }
        self.under_way = Some((last, must_sync));
        let result = result.and_then(|()| self.wal.flush());
        result.is_err().then(|| self.report(result))
    }

    /// Syncs what was written, if it has to be, and reports.
    pub fn sync(&mut self) -> Option<Event> {
        let (_, must_sync) = self.under_way?;
        let result = if must_sync { self.wal.sync() } else { Ok(()) };
        Some(self.report(result))
    }

    /// Takes what was written since the last time.
    pub fn take_written(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.written)
    }

    fn report(&mut self, result: Result<(), Fault>) -> Event {
        self.has_ended |= result.is_err();
        let job = self.under_way.take().map_or(0, |(job, _)| job);
        Event::WalDone { job, result }
    }

    /// Carries out all that is left, as a thread does whose queue is closed.
    fn drain(&mut self) {
        self.sync();
        while self.is_due() {
            let mut all = Rng::new(0);
            if self.write(&mut all).is_none() {
                self.sync();
            }
        }
    }
}

/// Does what the WAL thread does with one job.
fn append(
    disk: &dyn Disk,
    snap_dir: &std::path::Path,
    wal: &mut Wal,
    job: &WalJob,
) -> Result<(), Fault> {
    if let Some((snapshot, _)) = &job.snapshot {
        snap::save(disk, snap_dir, snapshot)?;
    }
    job.append_to(wal)
}

impl BackendThread {
    /// Puts in a job.
    pub fn push(&mut self, job: BackendJob) {
        self.jobs.push_back(job);
    }

    /// Takes the thread for a job if it is idle and one waits.
    pub fn begin(&mut self) -> bool {
        let begins = !self.is_busy && !self.jobs.is_empty();
        self.is_busy |= begins;
        begins
    }

    /// Carries out the first job.
    pub fn run(&mut self) -> Option<BackendDone> {
        Some(self.jobs.pop_front()?.run())
    }

    /// Lets the thread go on to the next job.
    pub fn end(&mut self) {
        self.is_busy = false;
    }

    fn drain(&mut self) {
        while let Some(job) = self.jobs.pop_front() {
            drop(job.run());
        }
    }
}
