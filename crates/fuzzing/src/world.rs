//! A member without threads and sockets: a node on a disk in memory, and the services of one serving thread around it.
//!
//! What the node, log and backend threads do is done here in between, one after the other, so that a run is a function of its
//! input.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use machine::{BackendJob, EventBatch};
use node::{Completion, Config, Effects, Event, InitialMember, Node, Now, Started, WalJob};
use proto::raftpb;
use server::config::Environment;
use server::drain::{self, Drain, Draining};
use server::handle::{Doors, Handle};
use server::http::Pages;
use server::mailbox::Mailbox;
use server::metrics::Metrics;
use server::peer::admission::{self, Own};
use server::peer::door::Door;
use server::peer::inflow::Inflow;
use server::peer::transport::Transport;
use server::peer::{pipeline, receive};
use server::service::{Identity, Services};
use server::settings;
use server::workers::LongWork;
use storage::mem::MemDisk;
use storage::wal::Wal;
use storage::{Disk, Fault, snap};

const TICK: Duration = Duration::from_millis(100);
/// Small, so that segments are cut and reserved without 64 MB each.
const SEGMENT_BYTES: u64 = 1 << 16;
const CACHE_BYTES: u64 = 1 << 20;
/// Ticks after which a lone member leads.
const START_TICKS_MAX: usize = 100;
/// Turns of work after which a member that does not come to rest is a bug.
const ROUNDS_MAX: usize = 10_000;
const INBOX_EVENTS_MAX: usize = 4096;
/// How often all tasks are let run before the node has its turn.
const YIELDS: usize = 16;
/// Turns without anything to do, with a pause before each, after which a call waits for something that will not come.
const IDLE_TURNS_MAX: usize = 2;
const IDLE_PAUSE: Duration = Duration::from_micros(300);

/// A node with its disk.
#[derive(Debug)]
pub struct Member {
    /// The node.
    pub node: Node,
    wal: Wal,
    data_dir: storage::datadir::DataDir,
    disk: Arc<dyn Disk>,
    now: Duration,
    wal_jobs: VecDeque<WalJob>,
    backend_jobs: VecDeque<BackendJob>,
    /// What the node answered since it was taken.
    pub completions: Vec<Completion>,
    /// What it published since it was taken.
    pub batches: Vec<Arc<EventBatch>>,
    /// What it sent since it was taken.
    pub messages: Vec<raftpb::Message>,
    /// Whether it has ended.
    pub has_ended: bool,
}

impl Member {
    /// Forms a cluster of `members` and starts the first.
    pub fn start(members: usize) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let Started { node, wal, data_dir, effects } =
            Node::start(&disk, config(members), Now::default()).expect("an empty disk is fine");
        let mut member = Self {
            node,
            wal,
            data_dir,
            disk,
            now: Duration::ZERO,
            wal_jobs: VecDeque::new(),
            backend_jobs: VecDeque::new(),
            completions: Vec::new(),
            batches: Vec::new(),
            messages: Vec::new(),
            has_ended: false,
        };
        member.take_in(effects);
        member.settle();
        member
    }

    /// Where a leader's snapshots go.
    pub fn snapshot_settings(&self) -> receive::Settings {
        receive::Settings {
            disk: Arc::clone(&self.disk),
            snap_dir: self.data_dir.snap().to_owned(),
            database: self.data_dir.database(),
            machine: machine::Options {
                cache_bytes: CACHE_BYTES,
                ..settings::machine(&defaults())
            },
            backend: storage::backend::Options {
                cache_bytes: CACHE_BYTES,
                ..settings::backend(&defaults()).options
            },
        }
    }

    /// Lets a tick pass and does what it brings about.
    pub fn tick(&mut self) {
        self.now += TICK;
        let now = Now(self.now);
        self.handle([Event::Tick { now }]);
    }

    /// Gives the node events as one burst, and does all that they bring about.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>) {
        if self.has_ended {
            return;
        }
        self.burst(events);
        self.settle();
    }

    fn burst(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            let effects = self.node.handle(event);
            self.take_in(effects);
        }
        let effects = self.node.end_of_burst();
        self.take_in(effects);
    }

    fn take_in(&mut self, effects: Effects) {
        self.wal_jobs.extend(effects.wal);
        self.backend_jobs.extend(effects.backend);
        self.completions.extend(effects.completions);
        self.batches.extend(effects.events);
        self.messages.extend(effects.messages);
        self.has_ended |= effects.stop.is_some();
    }

    /// Carries out jobs until there are none.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let done = if let Some(job) = self.wal_jobs.pop_front() {
                let result = self.write(&job);
                Event::WalDone { job: job.job, result }
            } else if let Some(job) = self.backend_jobs.pop_front() {
                Event::BackendDone(job.run())
            } else {
                return;
            };
            if self.has_ended {
                return;
            }
            self.burst([done]);
        }
        unreachable!("the member comes to rest");
    }

    fn write(&mut self, job: &WalJob) -> Result<(), Fault> {
        if let Some((snapshot, _)) = &job.snapshot {
            snap::save(&*self.disk, self.data_dir.snap(), snapshot)?;
        }
        self.wal.append(&job.entries, job.hard_state.as_ref())?;
        if let Some((_, mark)) = &job.snapshot {
            self.wal.append_snapshot_mark(mark)?;
        }
        if let Some(index) = job.release_to {
            self.wal.release_to(index)?;
        }
        self.wal.sync()
    }
}

fn config(members: usize) -> Config {
    let mut config = settings::node(&defaults(), false, None, 0).expect("the defaults are valid");
    "m0".clone_into(&mut config.name);
    config.data_dir = PathBuf::from("/m0.etcd");
    config.wal.segment_bytes = SEGMENT_BYTES;
    config.machine.cache_bytes = CACHE_BYTES;
    config.backend.options.cache_bytes = CACHE_BYTES;
    let member = |number: usize| InitialMember {
        name: format!("m{number}"),
        peer_urls: vec![format!("http://127.0.0.1:{}", 2380 + number)],
    };
    config.bootstrap.members = (0..members).map(member).collect();
    config
}

fn defaults() -> server::config::Config {
    let loaded = server::config::load(&["etcd".to_owned()], &Environment::new());
    loaded.expect("the defaults are valid").config
}

/// A lone member that leads, and its services.
#[derive(Debug)]
pub struct World {
    member: Member,
    inbox: Receiver<Event>,
    mailboxes: Arc<[Mailbox]>,
    doors: Doors,
    handle: Handle,
    /// The services.
    pub services: Rc<Services>,
    /// For doors that ask whether the member drains; it does not.
    pub draining: Draining,
    _drain: Drain,
}

impl World {
    /// Starts the member and waits until it leads.
    pub fn new() -> Self {
        let mut member = Member::start(1);
        let gate = member.node.gate();
        for _ in 0..START_TICKS_MAX {
            if gate.leader() != 0 && gate.is_announced() {
                break;
            }
            member.tick();
        }
        assert!(gate.is_announced(), "a lone member leads");
        thread_local! {
            static LONG_WORK: LongWork = LongWork::new().expect("threads");
        }
        let (sender, inbox) = bounded(INBOX_EVENTS_MAX);
        let doors = Doors {
            inbox: sender,
            ids: member.node.request_ids(),
            gate: Arc::clone(&gate),
            reader: member.node.reader(),
            long_work: LONG_WORK.with(LongWork::workers),
            activity: Arc::default(),
        };
        let handle = Handle::new(0, doors.clone());
        let identity = Identity { cluster_id: gate.cluster(), member_id: gate.member() };
        let limits = Arc::new(settings::limits(&defaults()));
        let services = Services::new(handle.clone(), identity, limits, metrics());
        let (drain, draining) = drain::channel();
        Self {
            member,
            inbox,
            mailboxes: Arc::new([Mailbox::default()]),
            doors,
            handle,
            services: Rc::new(services),
            draining,
            _drain: drain,
        }
    }

    /// Runs `work` with everything that a serving thread has around it, until it is done or waits for what will not come.
    pub fn run(mut self, work: impl Future<Output = ()> + 'static) {
        thread_local! {
            static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .max_blocking_threads(1)
                .build()
                .expect("a runtime");
        }
        RUNTIME.with(|runtime| {
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(runtime, self.turns(work));
        });
    }

    async fn turns(&mut self, work: impl Future<Output = ()> + 'static) {
        let handle = self.handle.clone();
        tokio::task::spawn_local(async move { handle.flush_forever().await });
        let services = Rc::clone(&self.services);
        let mailboxes = Arc::clone(&self.mailboxes);
        tokio::task::spawn_local(async move { services.deliver_mail(&mailboxes[0]).await });
        let mut work = tokio::task::spawn_local(work);
        let mut idle = 0;
        while idle < IDLE_TURNS_MAX {
            for _ in 0..YIELDS {
                tokio::task::yield_now().await;
            }
            if work.is_finished() {
                return (&mut work).await.expect("a call does not panic");
            }
            if self.turn() {
                idle = 0;
            } else {
                idle += 1;
                tokio::time::sleep(IDLE_PAUSE).await;
            }
        }
    }

    /// Lets the node have what was sent to it; tells whether it had anything to do or to say.
    fn turn(&mut self) -> bool {
        let events: Vec<Event> = self.inbox.try_iter().collect();
        if events.is_empty() {
            return false;
        }
        self.member.handle(events);
        for batch in self.member.batches.drain(..) {
            self.mailboxes[0].publish(&batch);
        }
        self.mailboxes[0].complete(&mut self.member.completions);
        true
    }

    /// What the peer port serves.
    pub fn peer_door(&self) -> Rc<Door> {
        let Doors { inbox, reader, gate, activity, long_work, .. } = self.doors.clone();
        let own = Own { member: gate.member(), cluster: gate.cluster() };
        let introduction = admission::introduction(own, "http://127.0.0.1:2380");
        let (dial_patience, heartbeat_interval) = (TICK, TICK);
        let settings = pipeline::Settings { introduction, dial_patience, heartbeat_interval };
        let network = Arc::default();
        let inflow = Inflow::new(inbox, Arc::default(), activity, Arc::clone(&network));
        let transport = Transport::new(own, reader, long_work, inflow, settings, Vec::new());
        let snapshots = self.member.snapshot_settings();
        Rc::new(Door::new(Rc::new(transport), Rc::clone(&self.services), snapshots, network))
    }

    /// Who the member is, as its peers know it.
    pub fn own(&self) -> Own {
        let gate = &self.doors.gate;
        Own { member: gate.member(), cluster: gate.cluster() }
    }

    /// What a listener serves.
    pub fn pages() -> Arc<Pages> {
        Arc::new(Pages {
            metrics_only: false,
            gateway: true,
            tls: false,
            origins: server::http::access::Names::default(),
            hosts: server::http::access::Names::default(),
        })
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn metrics() -> Arc<Metrics> {
    thread_local! {
        static METRICS: Arc<Metrics> =
            Arc::new(Metrics::new(&defaults()).expect("names are unique"));
    }
    METRICS.with(Arc::clone)
}
