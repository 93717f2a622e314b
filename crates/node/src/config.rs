//! What a node has to be told. The shell makes it from flags.

use std::path::PathBuf;
use std::time::Duration;

use crate::{AutoCompaction, Limits};

/// All settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name; one of [`Bootstrap::members`] at the first start.
    pub name: String,
    /// Where clients reach this member; published through the log.
    pub client_urls: Vec<String>,
    /// The data directory, which holds `member/`.
    pub data_dir: PathBuf,
    /// Where the WAL is, if not in `member/wal`.
    pub wal_dir: Option<PathBuf>,
    /// Sizes of the WAL.
    pub wal: storage::wal::Options,
    /// The cluster to form when there is no WAL yet; ignored otherwise.
    pub bootstrap: Bootstrap,
    /// Whether to remove all other members at this start, and what was not committed: for a cluster whose majority is lost
    /// for ever.
    pub forces_new_cluster: bool,
    /// Consensus.
    pub raft: RaftConfig,
    /// Raft snapshots and what of the log stays.
    pub snapshots: SnapshotConfig,
    /// Whether a lease that is known is renewed at once, though entries that came before are committed and not applied yet.
    pub renews_at_once: bool,
    /// Bounds on proposals in flight.
    pub proposals: Limits,
    /// Auto-compaction.
    pub auto_compaction: AutoCompaction,
    /// What the machine has to be told.
    pub machine: machine::Options,
    /// The backend, and when it gets work.
    pub backend: BackendConfig,
    /// Milliseconds since 1970 when the process started: the base of request ids.
    pub unix_ms: u64,
}

/// The cluster to form at the first start.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// All members, in any order.
    pub members: Vec<InitialMember>,
    /// Tells clusters with equal URLs apart.
    pub cluster_token: String,
    /// Set when there is a cluster already: nothing is formed, all of the log comes from the members that are there.
    pub joins: Option<Identity>,
}

/// Who a member is. Fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub member: u64,
    /// Its cluster's.
    pub cluster: u64,
}

/// One member of [`Bootstrap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
}

/// Settings of consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftConfig {
    /// Time between [`crate::Event::Tick`]s, which is the heartbeat interval.
    pub tick: Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: u32,
    /// Whether to ask before raising the term.
    pub pre_vote: bool,
    /// Whether the first election of the process need not wait for its whole timeout.
    pub hasten_first_election: bool,
    /// What election timeouts are derived from.
    pub seed: u64,
}

impl RaftConfig {
    /// Returns the time without a leader before an election.
    pub fn election_timeout(&self) -> Duration {
        self.tick * self.election_ticks
    }

    /// Returns how far one tick moves the time of leases at most: one tick is due, and one may be late.
    pub fn lease_step(&self) -> Duration {
        2 * self.tick
    }

    /// Returns the time between two ticks after which a leader has to ask whether it still leads, as etcd has it.
    pub fn pause_max(&self) -> Duration {
        3 * self.tick
    }

    /// Returns the time after which a request without an outcome fails.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout()
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            pre_vote: true,
            hasten_first_election: true,
            seed: 0,
        }
    }
}

/// Settings of the backend.
#[derive(Debug, Clone)]
pub struct BackendConfig {
    /// What the engine has to be told.
    pub options: storage::backend::Options,
    /// What is applied is committed to the engine after this at the latest.
    pub commit_interval: Duration,
    /// Bytes in the write-behind tail from which a commit does not wait for the interval.
    pub commit_bytes: usize,
    /// Pause between two steps of a compaction, on average.
    pub compaction_pause: Duration,
    /// Pause between two steps of a defragmentation, on average: the default leaves others half of the time.
    pub defragment_pause: Duration,
    /// Free bytes in the file from which a start rewrites it first, if it ever does.
    pub defragment_at_start: Option<u64>,
}

impl Default for BackendConfig {
    fn default() -> Self {
        Self {
            options: storage::backend::Options::default(),
            commit_interval: Duration::from_millis(500),
            commit_bytes: 4 << 20,
            compaction_pause: Duration::from_millis(100),
            defragment_pause: Duration::from_millis(100),
            defragment_at_start: None,
        }
    }
}

/// Settings of raft snapshots and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Entries between marks in the WAL.
    pub count: u64,
    /// Applied entries that stay in memory for followers that lag behind.
    pub catch_up_entries: u64,
    /// Bytes of the log in memory beyond which applied entries go even if followers could need them.
    pub log_bytes_max: usize,
}

impl Default for SnapshotConfig {
    fn default() -> Self {
        Self { count: 10_000, catch_up_entries: 5_000, log_bytes_max: 32 << 20 }
    }
}
