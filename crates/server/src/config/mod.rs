//! Configuration: command line, environment and file → one immutable, validated [`Config`].
//!
//! The rules are etcd's (`docs/compatibility.md`): a configuration file replaces every other
//! source; without one, a flag wins over nothing (a flag *and* its variable are a conflict that
//! stops the process). What cannot be honoured is refused at start, never ignored silently: texts
//! and exit codes are etcd's, and features that are not built yet are listed in `unbuilt`.
//!
//! [`load`] is the only door. Arguments and environment are its arguments; of the machine it asks
//! only for the configuration file, the number of cores and, for a default URL, the own address. It
//! logs nothing: what is to be said is returned as [`Notice`]s, because the logger is itself
//! configured here.

mod announce;
mod bootstrap;
mod build;
mod command_line;
mod duration;
mod environment;
mod exit;
mod features;
mod file;
mod flag;
mod help;
mod load;
mod settings;
mod table;
mod tree;
mod unbuilt;
mod url;
mod validate;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::logging;

pub use bootstrap::{BootstrapError, equal as equal_urls, members_in, print_members};
pub use duration::GoDuration;
pub use exit::Exit;
pub use features::{Feature, FeatureGates, Stage};
pub use load::{Environment, Loaded, load};
pub use url::{Scheme, Url, UrlError, texts};

pub use logging::Notice;

/// The etcd version this server is compatible with and reports.
pub const ETCD_VERSION: &str = "3.7.1";

/// Serving threads, at most: a caller is named by a byte for its thread, and one value is the peer thread's.
pub(crate) const SERVING_THREADS_MAX: usize = 255;

/// What `Git SHA` lines and fields say.
pub const BUILD: &str = concat!("quorate-", env!("CARGO_PKG_VERSION"));

/// Everything a member was told, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where the member's data is; never empty.
    pub data_dir: PathBuf,
    /// A separate directory for the WAL.
    pub wal_dir: Option<PathBuf>,
    /// Listeners and what is advertised.
    pub urls: Urls,
    /// How the cluster is found and formed.
    pub cluster: Cluster,
    /// Raft's clock and log.
    pub raft: Raft,
    /// The store and its maintenance.
    pub store: Store,
    /// Limits of client requests and connections.
    pub limits: Limits,
    /// Sockets and HTTP.
    pub http: Http,
    /// TLS of clients and peers.
    pub tls: Tls,
    /// Users' tokens and passwords.
    pub auth: Auth,
    /// Metrics, profiling, tracing, warnings.
    pub monitoring: Monitoring,
    /// The log of the process.
    pub logging: logging::Options,
    /// Feature gates.
    pub features: FeatureGates,
    /// Bounds of memory and parallelism; Quorate's own flags.
    pub memory: Memory,
}

/// Listen and advertise URLs; each list sorted by text.
#[derive(Debug, Clone)]
pub struct Urls {
    /// Peer traffic.
    pub listen_peer: Vec<Url>,
    /// Client gRPC, and HTTP unless `listen_client_http` is given.
    pub listen_client: Vec<Url>,
    /// Client HTTP only.
    pub listen_client_http: Vec<Url>,
    /// Metrics and health only.
    pub listen_metrics: Vec<Url>,
    /// Peer URLs told to the cluster.
    pub advertise_peer: Vec<Url>,
    /// Client URLs told to the cluster.
    pub advertise_client: Vec<Url>,
}

/// How the cluster is found and formed.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `name=url,…` as given; empty where discovery finds the members. See
    /// [`Config::bootstrap_members`].
    pub initial: String,
    /// Whether a new cluster is formed or an existing one joined.
    pub state: ClusterState,
    /// Enters member and cluster ids.
    pub token: String,
    /// Discovery through another etcd cluster.
    pub discovery: Option<Discovery>,
    /// Discovery through DNS.
    pub discovery_srv: Option<DiscoverySrv>,
    /// Refuse reconfigurations that would lose the quorum.
    pub strict_reconfig_check: bool,
    /// Learners that may be members at a time.
    pub learners_max: usize,
    /// Drop all other members at start.
    pub force_new: bool,
    /// How often a running downgrade is looked at.
    pub downgrade_check_interval: Duration,
}

/// Whether a new cluster is formed or an existing one joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Form a new cluster.
    New,
    /// Join a running cluster.
    Existing,
}

/// Discovery through another etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// The token all members share.
    pub token: String,
    /// The cluster to ask.
    pub endpoints: Vec<String>,
    /// Time to connect.
    pub dial_timeout: Duration,
    /// Time for one request.
    pub request_timeout: Duration,
    /// Interval of keepalive pings.
    pub keepalive_time: Duration,
    /// Time for the answer to one.
    pub keepalive_timeout: Duration,
    /// TLS and credentials.
    pub credentials: DiscoveryCredentials,
}

/// TLS and credentials for the discovery cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryCredentials {
    /// Speak plain text.
    pub insecure_transport: bool,
    /// Do not verify the server.
    pub insecure_skip_tls_verify: bool,
    /// Client certificate file.
    pub cert: String,
    /// Its key file.
    pub key: String,
    /// CA file.
    pub cacert: String,
    /// User, or `user:password`.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Discovery through DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoverySrv {
    /// The domain.
    pub domain: String,
    /// Suffix of the service name.
    pub service_name: String,
    /// Whom to ask; empty for those that the system names.
    pub servers: Vec<SocketAddr>,
}

/// Raft's clock and log.
#[derive(Debug, Clone)]
pub struct Raft {
    /// One tick, and one heartbeat.
    pub heartbeat_interval: Duration,
    /// Silence after which an election starts; at least five heartbeats.
    pub election_timeout: Duration,
    /// Fast-forward the election clock at start.
    pub initial_election_tick_advance: bool,
    /// Ask for votes before an election.
    pub pre_vote: bool,
    /// Applied entries between snapshots.
    pub snapshot_count: u64,
    /// Entries kept for slow followers behind a snapshot.
    pub snapshot_catchup_entries: u64,
    /// Snapshot files kept; `None` keeps all.
    pub snapshots_max: Option<usize>,
    /// WAL files kept; `None` keeps all.
    pub wals_max: Option<usize>,
    /// Read timeout of peer connections.
    pub read_timeout: Duration,
    /// Write timeout of peer connections.
    pub write_timeout: Duration,
}

impl Raft {
    /// Ticks of silence after which an election starts.
    pub fn election_ticks(&self) -> usize {
        let ticks = self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1);
        usize::try_from(ticks).unwrap_or(usize::MAX)
    }

    /// How long a request may take: queue and disk, and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }
}

/// The store and its maintenance.
#[derive(Debug, Clone)]
pub struct Store {
    /// Size limit in bytes; `None` is without limit.
    pub quota_bytes: Option<u64>,
    /// Longest time before a commit of the write-behind tail.
    pub batch_interval: Option<Duration>,
    /// Most operations before one.
    pub batch_limit: Option<usize>,
    /// Do not sync files: unsafe.
    pub unsafe_no_fsync: bool,
    /// Keep memory from being swapped.
    pub memory_mlock: bool,
    /// Defragment at start when that frees as many bytes.
    pub bootstrap_defrag_threshold_bytes: Option<u64>,
    /// When old revisions are compacted without being asked.
    pub auto_compaction: AutoCompaction,
    /// Most revisions deleted in one step of a compaction.
    pub compaction_batch_limit: usize,
    /// Pause between two steps.
    pub compaction_sleep_interval: Duration,
    /// Interval of the corruption check between peers; `None` is off.
    pub corrupt_check_interval: Option<Duration>,
    /// Interval of the check of compaction hashes, with the gate `CompactHashCheck`.
    pub compact_hash_check_interval: Duration,
}

/// When old revisions are compacted without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revisions(i64),
}

/// Limits of client requests and connections.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Operations in one transaction.
    pub txn_ops_max: usize,
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Streams of one HTTP/2 connection.
    pub concurrent_streams_max: u32,
    /// A client that pings more often is disconnected; `None` allows all.
    pub keepalive_interval_min: Option<Duration>,
    /// Interval of pings to clients; `None` sends none.
    pub keepalive_interval: Option<Duration>,
    /// How long a client may leave a ping unanswered; `None` sends none.
    pub keepalive_timeout: Option<Duration>,
    /// Interval of progress notifications of idle watchers.
    pub watch_progress_interval: Duration,
}

/// Sockets and HTTP.
#[derive(Debug, Clone)]
pub struct Http {
    /// Serve the JSON gateway.
    pub grpc_gateway: bool,
    /// Origins that browsers may call from.
    pub cors: AllowList,
    /// `Host` headers accepted without TLS.
    pub host_whitelist: AllowList,
    /// Set `SO_REUSEPORT` on listeners.
    pub reuse_port: bool,
    /// Set `SO_REUSEADDR` on listeners.
    pub reuse_address: bool,
}

/// A set of texts, or everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowList {
    /// Everything is allowed.
    Any,
    /// Only these are.
    Only(BTreeSet<String>),
}

impl AllowList {
    /// Whether `text` is allowed.
    pub fn allows(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(texts) => texts.contains(text),
        }
    }

    /// The texts, `*` for everything.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::Any => vec!["*"],
            Self::Only(texts) => texts.iter().map(String::as_str).collect(),
        }
    }
}

/// TLS of clients and peers.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The client listeners'.
    pub client: TlsInfo,
    /// The peer listeners' and connections'.
    pub peer: TlsInfo,
    /// Go names of TLS 1.2 suites; empty means the default.
    pub cipher_suites: Vec<String>,
    /// Lowest version.
    pub version_min: TlsVersion,
    /// Highest version.
    pub version_max: TlsVersion,
    /// Years a generated certificate is valid.
    pub self_signed_validity_years: u32,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Certificates of one kind of listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// Server certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// Certificate for outgoing connections, where it differs.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// CAs that sign the other side's certificates.
    pub trusted_ca_file: Option<PathBuf>,
    /// Revoked certificates, DER.
    pub crl_file: Option<PathBuf>,
    /// Require and verify client certificates.
    pub client_cert_auth: bool,
    /// Generate a certificate where none is given.
    pub auto: bool,
    /// Do not check a peer certificate's names against its address.
    pub skip_client_san_verification: bool,
    /// Common names accepted; empty accepts all.
    pub allowed_cns: Vec<String>,
    /// Host names accepted; empty accepts all.
    pub allowed_hostnames: Vec<String>,
}

impl TlsInfo {
    /// Whether neither certificate nor key is given.
    pub fn is_empty(&self) -> bool {
        self.cert_file.is_none() && self.key_file.is_none()
    }

    /// Whether clients must show a certificate.
    pub fn requires_client_certificate(&self) -> bool {
        self.client_cert_auth || self.trusted_ca_file.is_some()
    }
}

/// Users' tokens and passwords.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Kind of token.
    pub token: TokenKind,
    /// Cost of password hashes; 4 to 31.
    pub bcrypt_cost: u32,
    /// Life of a simple token.
    pub token_ttl: Duration,
}

/// Kind of auth token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenKind {
    /// Random, known to the member that made it.
    Simple,
    /// Signed; the options behind `jwt,`.
    Jwt(String),
}

/// Metrics, profiling, tracing, warnings.
#[derive(Debug, Clone)]
pub struct Monitoring {
    /// Export histograms of gRPC calls, too.
    pub extensive_metrics: bool,
    /// Serve `/debug/pprof/`: there is nothing to serve, and this is only told.
    pub pprof: bool,
    /// Span export; `None` is off.
    pub tracing: Option<Tracing>,
    /// An apply that takes longer is logged.
    pub warning_apply_duration: Duration,
    /// A unary request that takes longer is logged.
    pub warning_unary_request_duration: Duration,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Collector's address.
    pub address: String,
    /// Service name.
    pub service_name: String,
    /// Instance id.
    pub instance_id: String,
    /// Spans per million that are sampled.
    pub samples_per_million: u32,
}

/// Bounds of memory and parallelism; Quorate's own flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Hot values kept decoded for reads.
    pub value_cache_bytes: usize,
    /// Pages the engine keeps.
    pub engine_cache_bytes: usize,
    /// Applied records that wait for their commit; a full tail makes apply wait.
    pub write_behind_bytes: usize,
    /// Applied entries of the log that are kept for slow followers.
    pub catchup_memory_bytes: usize,
    /// Events buffered for one watch stream before it falls back to reading history.
    pub watch_buffer_bytes: usize,
    /// Large answers of all clients that are held until they are taken.
    pub answer_memory_bytes: usize,
    /// Serving threads; never 0.
    pub serving_threads: usize,
    /// Proposals that may be in flight.
    pub proposals_in_flight_max: usize,
    /// Their bytes.
    pub proposals_in_flight_bytes_max: usize,
}
