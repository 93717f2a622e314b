//! Puts a member together, runs it, and takes it apart again.
//!
//! Order of a start, as in etcd: flags, log, listeners, data directory, threads, and only when the member has a leader
//! and has published itself the client listeners are served. Order of a stop: no new connections, then what is under
//! way is finished, then the node, then its disks.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use machine::BackendJob;
use node::{Event, Gate, Identity, LogRead, Node, Now, Started, Stop, WalJob};
use storage::Disk;
use storage::datadir::DataDir;
use storage::os::OsDisk;
use storage::snap;
use storage::wal::{self, Wal};
use tokio::sync::oneshot;

use crate::config::{self, ClusterState, Config, Environment, Exit, Feature, texts};
use crate::discovery;
use crate::drain::{self, Drain, Draining};
use crate::driver::{BackendThread, INBOX_EVENTS_MAX, LogReadThread, NodeThread, WalThread};
use crate::handle::Doors;
use crate::listen::{Bound, Listeners};
use crate::logging::Logger;
use crate::mailbox::Mailbox;
use crate::meter::ApplyMeter;
use crate::metrics::Metrics;
use crate::peer::PeerThread;
use crate::peer::admission::Own;
use crate::peer::join::{self, Found};
use crate::peer::transport::Neighbour;
use crate::peer::{corruption, receive};
use crate::serve::{self, Accepted, Dealer, Shared};
use crate::service;
use crate::settings;
use crate::shutdown::{self, Signal};
use crate::workers::LongWork;

/// How often a start looks whether the member is ready.
const READY_POLL: Duration = Duration::from_millis(2);

/// Time for a connection to another member, besides the election timeout, as etcd has it.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the server with `arguments`, the first of which is the program's name, until it is told to stop.
pub fn run(arguments: &[String], environment: &Environment) -> ExitCode {
    let loaded = match config::load(arguments, environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit.report(),
    };
    let logger = match Logger::start(&loaded.config.logging) {
        Ok(logger) => logger,
        Err(error) => return Exit::invalid(error.to_string()).report(),
    };
    logger.install();
    logger.notices(&loaded.notices);
    let ended = start_and_serve(&loaded.config, environment, &logger);
    logger.flush();
    match ended {
        Ok(Some(signal)) => shutdown::end_by(signal),
        Ok(None) => ExitCode::SUCCESS,
        Err(exit) => {
            logger.notices(&exit.notices);
            logger.flush();
            ExitCode::from(exit.code)
        }
    }
}

fn start_and_serve(
    config: &Config,
    environment: &Environment,
    logger: &Logger,
) -> Result<Option<Signal>, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Exit::start_failed(error.to_string()))?;
    let listeners = {
        let _entered = runtime.enter();
        Listeners::bind(config)?
    };
    logger.notices(&[config.starting_notice(is_initialized(config, &OsDisk)?)]);
    let member = Member::start(config)?;
    let notify = environment.get("NOTIFY_SOCKET").map(String::as_str);
    runtime.block_on(member.serve(config, listeners, notify))
}

/// The queues of the threads that wait for the disk.
struct DiskQueues {
    wal: Receiver<WalJob>,
    backend: Receiver<BackendJob>,
    log_reads: Receiver<LogRead>,
}

fn spawn_disk_threads(
    config: &Config,
    wal: Wal,
    (disk, data_dir): (&Arc<dyn Disk>, &DataDir),
    queues: DiskQueues,
    inbox: &Sender<Event>,
    metrics: &Metrics,
) -> [std::io::Result<JoinHandle<()>>; 3] {
    let wal_thread = WalThread {
        wal,
        disk: Arc::clone(disk),
        snap_dir: data_dir.snap().to_owned(),
        snapshots_max: config.raft.snapshots_max,
        jobs: queues.wal,
        inbox: inbox.clone(),
        work: Arc::clone(&metrics.disk),
        sync: !config.store.unsafe_no_fsync,
    };
    let backend_thread = BackendThread {
        jobs: queues.backend,
        inbox: inbox.clone(),
        work: Arc::clone(&metrics.disk),
    };
    let log_read_thread = LogReadThread {
        disk: Arc::clone(disk),
        wal_dir: data_dir.wal().to_owned(),
        reads: queues.log_reads,
        inbox: inbox.clone(),
    };
    [wal_thread.spawn(), backend_thread.spawn(), log_read_thread.spawn()]
}

/// A member whose threads run.
struct Member {
    shared: Shared,
    dealer: Dealer,
    drain: Drain,
    /// Accepted sockets of other members.
    peer_dealer: Dealer,
    inbox: Sender<Event>,
    ended: oneshot::Receiver<Stop>,
    disk_threads: Vec<JoinHandle<()>>,
    serving_threads: Vec<JoinHandle<()>>,
    /// Kept for as long as calls may need them.
    _long_work: LongWork,
    /// Holds the lock on the data directory.
    _data_dir: DataDir,
}

impl Member {
    fn start(config: &Config) -> Result<Self, Exit> {
        let origin = Instant::now();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let (Started { node, wal, data_dir, effects }, neighbours, metrics) =
            start_metered(config, &disk, origin)?;
        let (inbox, events) = bounded(INBOX_EVENTS_MAX);
        // The node's own bounds on what is in flight bound these two.
        let (wal_jobs, wal_queue) = unbounded();
        let (backend_jobs, backend_queue) = unbounded();
        let (log_reads, log_read_queue) = unbounded();
        let (ended_sender, ended) = oneshot::channel();
        let serving = config.memory.serving_threads;
        // The last one is the peer thread's.
        let mailboxes: Arc<[Mailbox]> =
            (0..serving).map(|_| Mailbox::default()).chain([Mailbox::without_events()]).collect();
        let (drain, draining) = drain::channel();
        let long_work = LongWork::new().map_err(start_failed)?;
        let shared = Shared {
            doors: doors(&node, inbox.clone(), &long_work),
            mailboxes: Arc::clone(&mailboxes),
            identity: identity(&node),
            limits: Arc::new(settings::limits(config)),
            metrics: Arc::clone(&metrics),
            draining,
        };
        let (peer_dealer, sockets) = Dealer::to_one();
        let peer_thread = PeerThread {
            neighbours,
            ..peer_thread(config, &shared, snapshot_settings(config, &disk, &data_dir), sockets)
        };
        let node_thread = NodeThread {
            node,
            effects,
            outbox: Arc::clone(&peer_thread.outbox),
            waiting: Arc::clone(&peer_thread.waiting),
            inbox: events,
            wal: wal_jobs,
            backend: backend_jobs,
            log_reads,
            mailboxes,
            tick: config.raft.heartbeat_interval,
            started: origin,
            figures: Arc::clone(&metrics.apply),
            ended: ended_sender,
        };
        let queues =
            DiskQueues { wal: wal_queue, backend: backend_queue, log_reads: log_read_queue };
        let disk_threads = [node_thread.spawn(), peer_thread.spawn()]
            .into_iter()
            .chain(spawn_disk_threads(config, wal, (&disk, &data_dir), queues, &inbox, &metrics))
            .collect::<Result<_, _>>()
            .map_err(no_thread)?;
        let (dealer, serving_threads) = serve::spawn(&shared, serving).map_err(no_thread)?;
        Ok(Self {
            shared,
            dealer,
            drain,
            peer_dealer,
            inbox,
            ended,
            disk_threads,
            serving_threads,
            _long_work: long_work,
            _data_dir: data_dir,
        })
    }

    async fn serve(
        mut self,
        config: &Config,
        listeners: Listeners,
        notify: Option<&str>,
    ) -> Result<Option<Signal>, Exit> {
        let (signals, mut signal) = oneshot::channel();
        shutdown::on_signal(move |first| {
            // The receiver is gone only when the member is ending already.
            let _ended = signals.send(first);
        })
        .map_err(|error| Exit::start_failed(format!("cannot handle signals: {error}")))?;
        let mut acceptors = tokio::task::JoinSet::new();
        for bound in listeners.metrics {
            accept(&mut acceptors, &self.dealer, &self.shared.draining, bound);
        }
        // Other members are needed to the very end: this member may have leadership to give away.
        let (_peer_drain, peer_draining) = drain::channel();
        let mut peer_acceptors = tokio::task::JoinSet::new();
        for bound in listeners.peers {
            bound.announce_peers();
            accept(&mut peer_acceptors, &self.peer_dealer, &peer_draining, bound);
        }
        let outcome = tokio::select! {
            () = ready(&self.shared.doors.gate) => {
                tracing::info!(
                    local_member_id = format!("{:x}", self.shared.identity.member_id),
                    cluster_id = format!("{:x}", self.shared.identity.cluster_id),
                    "published local member to cluster through raft"
                );
                tracing::info!("ready to serve client requests");
                for bound in listeners.clients {
                    bound.announce();
                    accept(&mut acceptors, &self.dealer, &self.shared.draining, bound);
                }
                shutdown::notify_ready(notify);
                tokio::select! {
                    first = &mut signal => Outcome::Signal(first.ok()),
                    stop = &mut self.ended => Outcome::Ended(stop.ok()),
                }
            }
            first = &mut signal => Outcome::Signal(first.ok()),
            stop = &mut self.ended => Outcome::Ended(stop.ok()),
        };
        self.drain.begin();
        acceptors.shutdown().await;
        self.stop(config, outcome).await
    }

    /// Lets clients finish, then ends the node, then waits for the disks.
    async fn stop(self, config: &Config, outcome: Outcome) -> Result<Option<Signal>, Exit> {
        let Self { dealer, inbox, ended, disk_threads, serving_threads, _long_work, .. } = self;
        tracing::info!(name = config.name, "closing etcd server");
        // Serving threads end when the last sender of sockets is gone and their connections are done.
        drop(dealer);
        let patience = config.raft.request_timeout();
        if !joined(serving_threads, patience).await {
            tracing::warn!(?patience, "clients did not finish in time; their connections are cut");
        }
        let (signal, stop) = match outcome {
            Outcome::Ended(stop) => (None, stop),
            Outcome::Signal(signal) => {
                if inbox.send(Event::Stop).is_err() {
                    tracing::debug!("the node has ended by itself already");
                }
                (signal, ended.await.ok())
            }
        };
        drop(inbox);
        joined(disk_threads, patience).await;
        tracing::info!(name = config.name, "closed etcd server");
        match stop {
            Some(Stop::Fault(fault)) => {
                Err(Exit::start_failed(format!("the member stopped itself: {fault}")))
            }
            Some(Stop::Asked | Stop::Removed) | None => Ok(signal),
        }
    }
}

fn doors(node: &Node, inbox: Sender<Event>, long_work: &LongWork) -> Doors {
    Doors {
        inbox,
        ids: node.request_ids(),
        gate: node.gate(),
        reader: node.reader(),
        long_work: long_work.workers(),
        activity: Arc::default(),
    }
}

fn identity(node: &Node) -> service::Identity {
    let gate = node.gate();
    service::Identity { cluster_id: gate.cluster(), member_id: gate.member() }
}

/// Where snapshots of a leader go.
fn snapshot_settings(
    config: &Config,
    disk: &Arc<dyn Disk>,
    data_dir: &DataDir,
) -> receive::Settings {
    receive::Settings {
        disk: Arc::clone(disk),
        snap_dir: data_dir.snap().to_owned(),
        database: data_dir.database(),
        machine: settings::machine(config),
        backend: settings::backend(config).options,
    }
}

fn peer_thread(
    config: &Config,
    shared: &Shared,
    snapshots: receive::Settings,
    sockets: tokio::sync::mpsc::Receiver<Accepted>,
) -> PeerThread {
    let service::Identity { member_id: member, cluster_id: cluster } = shared.identity;
    PeerThread {
        own: Own { member, cluster },
        advertised: texts(&config.urls.advertise_peer).join(","),
        dial_patience: DIAL_PATIENCE + config.raft.election_timeout,
        heartbeat_interval: config.raft.heartbeat_interval,
        shared: shared.clone(),
        snapshots,
        downgrade_interval: config.cluster.downgrade_check_interval,
        corruption: settings::corruption(config),
        waiting: Arc::default(),
        outbox: Arc::default(),
        neighbours: Vec::new(),
        sockets,
    }
}

/// Accepts connections until draining begins.
fn accept(
    acceptors: &mut tokio::task::JoinSet<()>,
    dealer: &Dealer,
    draining: &Draining,
    bound: Bound,
) {
    let (dealer, draining) = (dealer.clone(), draining.clone());
    match bound {
        Bound::Tcp { listener, service, .. } => {
            acceptors.spawn(dealer.accept_tcp(listener, service, draining));
        }
        Bound::Unix { listener, service, .. } => {
            acceptors.spawn(dealer.accept_unix(listener, service, draining));
        }
    }
}

/// Starts the member with somebody beside it who times what it applies.
fn start_metered(
    config: &Config,
    disk: &Arc<dyn Disk>,
    origin: Instant,
) -> Result<(Started, Vec<Neighbour>, Arc<Metrics>), Exit> {
    let (mut started, neighbours) = start_node(config, disk, origin)?;
    // What a leader sent before a crash, and nothing has been made of.
    let snap_dir = started.data_dir.snap();
    snap::release_databases(&**disk, snap_dir, u64::MAX).map_err(start_failed)?;
    let metrics = Arc::new(Metrics::new(config).map_err(start_failed)?);
    let patience = config.monitoring.warning_apply_duration;
    started.node.set_meter(Box::new(ApplyMeter::new(Arc::clone(&metrics.apply), patience)));
    Ok((started, neighbours, metrics))
}

/// Recovers the member from its disk, or forms its cluster, or joins one, whose members it tells then.
fn start_node(
    config: &Config,
    disk: &Arc<dyn Disk>,
    origin: Instant,
) -> Result<(Started, Vec<Neighbour>), Exit> {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let is_initialized = is_initialized(config, &**disk)?;
    let unix_ms = u64::try_from(unix_ms).unwrap_or_default();
    let discovered;
    let config = if is_initialized {
        config
    } else {
        discovered = discovery::resolved(config).map_err(|error| error.into_exit(config))?;
        &discovered
    };
    let (joins, neighbours) = match find_cluster(config, is_initialized)? {
        Some(Found { identity, neighbours }) => (Some(identity), neighbours),
        None => (None, Vec::new()),
    };
    let node_config =
        settings::node(config, is_initialized, joins, unix_ms).map_err(start_failed)?;
    let started = Node::start(disk, node_config, Now(origin.elapsed())).map_err(start_failed)?;
    // A new member has nothing to compare.
    if is_initialized && config.features.is_enabled(Feature::InitialCorruptCheck) {
        let service::Identity { member_id: member, cluster_id: cluster } = identity(&started.node);
        let own = Own { member, cluster };
        corruption::check_at_start(config, own, &started.node.reader()).map_err(|error| {
            tracing::error!(%error, "checkInitialHashKV failed");
            start_failed(error)
        })?;
    }
    Ok((started, neighbours))
}

/// Tells whether the member has a log already.
fn is_initialized(config: &Config, disk: &dyn Disk) -> Result<bool, Exit> {
    let wal_dir = config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member/wal"));
    wal::exists(disk, &wal_dir).map_err(start_failed)
}

/// Finds the cluster that is to be joined, if one is. A member that was there before has both ids in its log.
fn find_cluster(config: &Config, is_initialized: bool) -> Result<Option<Found>, Exit> {
    match config.cluster.state {
        ClusterState::New if is_initialized => Ok(None),
        ClusterState::New => join::check_is_new(config).map(|()| None).map_err(start_failed),
        ClusterState::Existing if is_initialized => {
            let identity = Identity { member: 0, cluster: 0 };
            Ok(Some(Found { identity, neighbours: Vec::new() }))
        }
        ClusterState::Existing => join::find(config).map(Some).map_err(start_failed),
    }
}

fn no_thread(error: impl std::fmt::Display) -> Exit {
    start_failed(format!("cannot start a thread: {error}"))
}

fn start_failed(error: impl std::fmt::Display) -> Exit {
    Exit::start_failed(error.to_string())
}

/// Why serving ends.
enum Outcome {
    Signal(Option<Signal>),
    Ended(Option<Stop>),
}

/// Waits until the member has a leader and has announced itself through the log: from then on even its local reads
/// show all that was acknowledged before the start.
async fn ready(gate: &Gate) {
    while gate.leader() == 0 || !gate.is_announced() {
        tokio::time::sleep(READY_POLL).await;
    }
}

/// Joins `threads` on a thread of its own; false when that takes longer than `patience`.
async fn joined(threads: Vec<JoinHandle<()>>, patience: Duration) -> bool {
    let done = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = oneshot::channel();
    let flag = Arc::clone(&done);
    let joiner = std::thread::Builder::new().name("join".to_owned()).spawn(move || {
        for thread in threads {
            // A thread that panicked has ended the process already.
            drop(thread.join());
        }
        flag.store(true, Ordering::Release);
        // Whoever waited has lost patience.
        let _late = sender.send(());
    });
    if joiner.is_err() {
        return false;
    }
    tokio::time::timeout(patience, receiver).await.is_ok() || done.load(Ordering::Acquire)
}
