//! All flags: names, types and defaults are etcd's, the order is that of `--help`.
//!
//! `Place` says where the configuration file has a flag; the Go type in it is what etcd's own
//! decoding errors name, which scripts match.

use super::flag::{Flag, Kind, Place};
use Kind::{
    Bool, Choice, Choices, Duration, Gates, Hosts, Ignored, Int, Int64, Origins, Text, Uint,
    Uint32, Uint64, UniqueWords, Urls, Words,
};

/// A section of `--help`.
#[derive(Debug)]
pub(super) struct Section {
    /// Its heading.
    pub(super) title: &'static str,
    /// Its flags.
    pub(super) flags: &'static [Flag],
}

/// A flag whose key in the file is its name.
const fn top(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, place: Place::Top("configYAML.Config"), help }
}

/// A flag that etcd reads from the file as text and translates.
const fn translated(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, place: Place::Top("configYAML.configJSON"), help }
}

/// A flag that a configuration file cannot set.
const fn bare(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, place: Place::Nowhere, help }
}

/// A flag inside a group of the file.
const fn under(
    path: &'static [&'static str],
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    // The first letters tell the groups apart; a const function can compare no texts.
    let owner = match (path[0].as_bytes()[0], path.len()) {
        (b's', _) => "SocketOpts.Config",
        (b'd', 2) => "DiscoveryConfig.Config",
        (b'd', 3) => "ConfigSpec.Config",
        (b'd', _) => match path[2].as_bytes()[0] {
            b's' => "SecureConfig.Config",
            _ => "AuthConfig.Config",
        },
        _ => "securityConfig.configJSON",
    };
    Flag { name, kind, default, place: Place::Under(path, owner), help }
}

/// All flags but the ignored ones.
pub(super) const SECTIONS: &[Section] = &[
    Section { title: "Member", flags: MEMBER },
    Section { title: "Clustering", flags: CLUSTERING },
    Section { title: "Security", flags: SECURITY },
    Section { title: "Auth", flags: AUTH },
    Section { title: "Profiling and Monitoring", flags: MONITORING },
    Section { title: "Logging", flags: LOGGING },
    Section { title: "Distributed tracing", flags: TRACING },
    Section { title: "Features", flags: FEATURES },
    Section { title: "Memory and threads (Quorate only)", flags: MEMORY },
    Section { title: "Unsafe feature", flags: UNSAFE },
];

/// Flags of old versions: accepted, without effect.
pub(super) const IGNORED: &[Flag] = &[
    bare("cluster-active-size", Ignored, "", ""),
    bare("cluster-remove-delay", Ignored, "", ""),
    bare("cluster-sync-interval", Ignored, "", ""),
    bare("config", Ignored, "", ""),
    bare("force", Ignored, "", ""),
    bare("max-result-buffer", Ignored, "", ""),
    bare("max-retry-attempts", Ignored, "", ""),
    bare("peer-heartbeat-interval", Ignored, "", ""),
    bare("peer-election-timeout", Ignored, "", ""),
    bare("retry-interval", Ignored, "", ""),
    bare("snapshot", Ignored, "", ""),
    bare("v", Ignored, "", ""),
    bare("vv", Ignored, "", ""),
    // Test harnesses that measure coverage pass these two.
    bare("test.coverprofile", Ignored, "", ""),
    bare("test.outputdir", Ignored, "", ""),
];

/// Flags that steer the parsing itself.
pub(super) const CONTROL: &[Flag] = &[
    bare("config-file", Text, "", "Read the configuration from this file and from nowhere else."),
    bare("version", Bool, "false", "Print the version and exit."),
];

/// Settings that only a configuration file can make.
pub(super) const FILE_ONLY: &[Flag] =
    &[under(&["client-transport-security", "allowed-cn"], "client-cert-allowed-cn", Words, "", "")];

/// Every flag.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.iter().flat_map(|section| section.flags).chain(CONTROL).chain(IGNORED)
}

/// The flag called `name`.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

const MEMBER: &[Flag] = &[
    top("name", Text, "default", "Name of this member."),
    top("data-dir", Text, "", "Directory of the member's data; '<name>.etcd' if empty."),
    top("wal-dir", Text, "", "Separate directory for the write-ahead log."),
    top("snapshot-count", Uint64, "10000", "Applied entries after which a snapshot is taken."),
    top("heartbeat-interval", Uint, "100", "Milliseconds between heartbeats."),
    top("election-timeout", Uint, "1000", "Milliseconds of silence before an election starts."),
    top(
        "initial-election-tick-advance",
        Bool,
        "true",
        "Start with the election clock advanced, so that the first election comes sooner.",
    ),
    translated("listen-peer-urls", Urls, "http://localhost:2380", "URLs to serve peers on."),
    translated(
        "listen-client-urls",
        Urls,
        "http://localhost:2379",
        "URLs to serve clients on: gRPC, and HTTP unless --listen-client-http-urls is given.",
    ),
    translated(
        "listen-client-http-urls",
        Urls,
        "",
        "URLs to serve clients' HTTP on; --listen-client-urls then serve gRPC only.",
    ),
    top("max-snapshots", Uint, "5", "Snapshot files to keep, 0 for all. Deprecated."),
    top("max-wals", Uint, "5", "WAL files to keep, 0 for all."),
    top("memory-mlock", Bool, "false", "Lock the process's memory into RAM."),
    top(
        "quota-backend-bytes",
        Int64,
        "0",
        "Bytes the store may grow to before writes are refused; 0 for 2 GiB, negative for no limit.",
    ),
    top(
        "backend-bbolt-freelist-type",
        Text,
        "",
        "Accepted for compatibility ('array' or 'map'): Quorate's engine has no freelist to choose.",
    ),
    top("backend-batch-interval", Duration, "0s", "Longest time before a commit; 0 for 100ms."),
    top("backend-batch-limit", Int, "0", "Most operations before a commit; 0 for 10000."),
    top("max-txn-ops", Uint, "128", "Operations one transaction may have."),
    top("max-request-bytes", Uint, "1572864", "Bytes one request may have."),
    top(
        "max-concurrent-streams",
        Uint32,
        "4294967295",
        "Streams one client connection may have open at a time.",
    ),
    top(
        "grpc-keepalive-min-time",
        Duration,
        "5s",
        "Shortest interval of a client's pings; a client that pings more often is disconnected.",
    ),
    top("grpc-keepalive-interval", Duration, "2h", "Interval of pings to clients, 0 for none."),
    top(
        "grpc-keepalive-timeout",
        Duration,
        "20s",
        "How long a client may leave a ping unanswered, 0 for no pings.",
    ),
    under(
        &["socket-options", "reuse-port"],
        "socket-reuse-port",
        Bool,
        "false",
        "Set SO_REUSEPORT on listeners.",
    ),
    under(
        &["socket-options", "reuse-address"],
        "socket-reuse-address",
        Bool,
        "false",
        "Set SO_REUSEADDR on listeners.",
    ),
    top("enable-grpc-gateway", Bool, "true", "Serve the JSON gateway."),
    bare("raft-read-timeout", Duration, "5s", "Read timeout of peer connections, at least 5s."),
    bare("raft-write-timeout", Duration, "5s", "Write timeout of peer connections, at least 5s."),
    translated(
        "feature-gates",
        Gates,
        "",
        "Gates to set, as 'Gate=true,Other=false'. The gates are:",
    ),
];

const CLUSTERING: &[Flag] = &[
    translated(
        "initial-advertise-peer-urls",
        Urls,
        "http://localhost:2380",
        "Peer URLs of this member that the others are told.",
    ),
    top(
        "initial-cluster",
        Text,
        "default=http://localhost:2380",
        "Members of the cluster to form or join, as 'name=url,name=url'.",
    ),
    top(
        "initial-cluster-state",
        Choice(&["new", "existing"]),
        "new",
        "'new' to form a cluster, 'existing' to join one; ignored once the member has data.",
    ),
    top(
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        "Token that keeps clusters with otherwise equal settings apart.",
    ),
    translated(
        "advertise-client-urls",
        Urls,
        "http://localhost:2379",
        "Client URLs of this member that clients are told.",
    ),
    under(
        &["discovery-config", "token"],
        "discovery-token",
        Text,
        "",
        "Discovery: token of the cluster to form.",
    ),
    under(
        &["discovery-config", "client", "endpoints"],
        "discovery-endpoints",
        UniqueWords,
        "",
        "Discovery: endpoints of the cluster that knows the members.",
    ),
    under(
        &["discovery-config", "client", "dial-timeout"],
        "discovery-dial-timeout",
        Duration,
        "2s",
        "Discovery: time to connect.",
    ),
    under(
        &["discovery-config", "client", "request-timeout"],
        "discovery-request-timeout",
        Duration,
        "5s",
        "Discovery: time for one request.",
    ),
    under(
        &["discovery-config", "client", "keepalive-time"],
        "discovery-keepalive-time",
        Duration,
        "2s",
        "Discovery: interval of keepalive pings.",
    ),
    under(
        &["discovery-config", "client", "keepalive-timeout"],
        "discovery-keepalive-timeout",
        Duration,
        "6s",
        "Discovery: time for the answer to a ping.",
    ),
    under(
        &["discovery-config", "client", "secure", "insecure-transport"],
        "discovery-insecure-transport",
        Bool,
        "true",
        "Discovery: speak plain text.",
    ),
    under(
        &["discovery-config", "client", "secure", "insecure-skip-tls-verify"],
        "discovery-insecure-skip-tls-verify",
        Bool,
        "false",
        "Discovery: do not verify the server's certificate. For tests only.",
    ),
    under(
        &["discovery-config", "client", "secure", "cert"],
        "discovery-cert",
        Text,
        "",
        "Discovery: client certificate file.",
    ),
    under(
        &["discovery-config", "client", "secure", "key"],
        "discovery-key",
        Text,
        "",
        "Discovery: key file of the client certificate.",
    ),
    under(
        &["discovery-config", "client", "secure", "cacert"],
        "discovery-cacert",
        Text,
        "",
        "Discovery: CA file to verify the server with.",
    ),
    under(
        &["discovery-config", "client", "auth", "username"],
        "discovery-user",
        Text,
        "",
        "Discovery: user, or user:password.",
    ),
    under(
        &["discovery-config", "client", "auth", "password"],
        "discovery-password",
        Text,
        "",
        "Discovery: password.",
    ),
    bare(
        "discovery-fallback",
        Choice(&["exit", "proxy"]),
        "exit",
        "What to do when discovery fails; only 'exit' is left.",
    ),
    top("discovery-srv", Text, "", "DNS domain whose SRV records name the members."),
    top("discovery-srv-name", Text, "", "Suffix of the SRV service name."),
    top(
        "discovery-srv-servers",
        Words,
        "",
        "DNS servers (address:port) to ask for SRV records instead of the system's.",
    ),
    top(
        "strict-reconfig-check",
        Bool,
        "true",
        "Refuse changes of membership that would lose the quorum.",
    ),
    top("pre-vote", Bool, "true", "Ask for votes before an election disturbs anyone."),
    top(
        "auto-compaction-retention",
        Text,
        "0",
        "How much history to keep: hours or a duration, or revisions; 0 keeps all.",
    ),
    top(
        "auto-compaction-mode",
        Text,
        "periodic",
        "What --auto-compaction-retention counts: 'periodic' time or 'revision's.",
    ),
    bare(
        "v2-deprecation",
        Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]),
        "write-only",
        "Accepted and ignored. Deprecated.",
    ),
];

const SECURITY: &[Flag] = &[
    under(
        &["client-transport-security", "cert-file"],
        "cert-file",
        Text,
        "",
        "Certificate of the client listeners.",
    ),
    under(
        &["client-transport-security", "key-file"],
        "key-file",
        Text,
        "",
        "Key of that certificate.",
    ),
    under(
        &["client-transport-security", "client-cert-auth"],
        "client-cert-auth",
        Bool,
        "false",
        "Require and verify client certificates.",
    ),
    under(
        &["client-transport-security", "client-cert-file"],
        "client-cert-file",
        Text,
        "",
        "Certificate for connections to the own listener, where it differs from --cert-file.",
    ),
    under(
        &["client-transport-security", "client-key-file"],
        "client-key-file",
        Text,
        "",
        "Key of that certificate.",
    ),
    bare("client-crl-file", Text, "", "Revocation list (DER) of client certificates."),
    under(
        &["client-transport-security", "allowed-hostname"],
        "client-cert-allowed-hostname",
        Words,
        "",
        "Host names, one of which a client certificate must be valid for.",
    ),
    under(
        &["client-transport-security", "trusted-ca-file"],
        "trusted-ca-file",
        Text,
        "",
        "CA file that client certificates are verified with.",
    ),
    under(
        &["client-transport-security", "auto-tls"],
        "auto-tls",
        Bool,
        "false",
        "Generate a certificate for the client listeners.",
    ),
    under(
        &["peer-transport-security", "cert-file"],
        "peer-cert-file",
        Text,
        "",
        "Certificate of the peer listeners.",
    ),
    under(
        &["peer-transport-security", "key-file"],
        "peer-key-file",
        Text,
        "",
        "Key of that certificate.",
    ),
    under(
        &["peer-transport-security", "client-cert-auth"],
        "peer-client-cert-auth",
        Bool,
        "false",
        "Require and verify peers' certificates.",
    ),
    under(
        &["peer-transport-security", "client-cert-file"],
        "peer-client-cert-file",
        Text,
        "",
        "Certificate for connections to peers, where it differs from --peer-cert-file.",
    ),
    under(
        &["peer-transport-security", "client-key-file"],
        "peer-client-key-file",
        Text,
        "",
        "Key of that certificate.",
    ),
    under(
        &["peer-transport-security", "trusted-ca-file"],
        "peer-trusted-ca-file",
        Text,
        "",
        "CA file that peers' certificates are verified with.",
    ),
    under(
        &["peer-transport-security", "allowed-cn"],
        "peer-cert-allowed-cn",
        Words,
        "",
        "Common names, one of which a peer's certificate must have.",
    ),
    under(
        &["peer-transport-security", "allowed-hostname"],
        "peer-cert-allowed-hostname",
        Words,
        "",
        "Host names, one of which a peer's certificate must be valid for.",
    ),
    under(
        &["peer-transport-security", "auto-tls"],
        "peer-auto-tls",
        Bool,
        "false",
        "Generate a certificate for the peer listeners.",
    ),
    top("self-signed-cert-validity", Uint, "1", "Years that generated certificates are valid."),
    bare("peer-crl-file", Text, "", "Revocation list (DER) of peers' certificates."),
    top(
        "cipher-suites",
        Words,
        "",
        "TLS 1.2 cipher suites by their Go names; empty for a good choice.",
    ),
    translated("cors", Origins, "*", "Origins that browsers may call from; * for all."),
    translated(
        "host-whitelist",
        Hosts,
        "*",
        "Host headers accepted on listeners without TLS; * for all.",
    ),
    top("tls-min-version", Text, "TLS1.2", "Lowest TLS version: TLS1.2 or TLS1.3."),
    top("tls-max-version", Text, "", "Highest TLS version: TLS1.2 or TLS1.3; empty for TLS1.3."),
    under(
        &["peer-transport-security", "skip-client-san-verification"],
        "peer-skip-client-san-verification",
        Bool,
        "false",
        "Do not compare the names in a peer's certificate with its address.",
    ),
];

const AUTH: &[Flag] = &[
    top("auth-token", Text, "simple", "Kind of auth token and its options: 'simple' or 'jwt,...'."),
    top("bcrypt-cost", Uint, "10", "Cost of password hashes, 4 to 31."),
    top("auth-token-ttl", Uint, "300", "Seconds a simple token lives."),
];

const MONITORING: &[Flag] = &[
    top("enable-pprof", Bool, "false", "No effect: there are no profiles of a Go runtime."),
    top("metrics", Text, "basic", "'extensive' adds histograms of gRPC calls to 'basic' metrics."),
    top(
        "listen-metrics-urls",
        Urls,
        "",
        "URLs to serve /metrics and /health on; https uses the client listeners' certificate.",
    ),
];

const LOGGING: &[Flag] = &[
    top("logger", Text, "zap", "Only 'zap', the format, is left."),
    top(
        "log-outputs",
        UniqueWords,
        "default",
        "Where to log: 'default' (stderr), 'stdout', 'stderr', 'systemd/journal', or files.",
    ),
    top("log-level", Text, "info", "Lowest level logged: debug, info, warn, error, panic, fatal."),
    top("log-format", Text, "json", "json or console."),
    top("enable-log-rotation", Bool, "false", "Rotate the one log file of --log-outputs."),
    top(
        "log-rotation-config-json",
        Text,
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        "How: MB per file, days and number of old files to keep (0 for all), local time, gzip.",
    ),
    top(
        "warning-unary-request-duration",
        Duration,
        "300ms",
        "A unary request that takes longer is logged.",
    ),
];

const TRACING: &[Flag] = &[
    top("enable-distributed-tracing", Bool, "false", "Export spans over OTLP."),
    top("distributed-tracing-address", Text, "localhost:4317", "Address of the collector."),
    top("distributed-tracing-service-name", Text, "etcd", "Service name; the same on all members."),
    top("distributed-tracing-instance-id", Text, "", "Instance id; different on all members."),
    top("distributed-tracing-sampling-rate", Int, "0", "Spans per million that are sampled."),
];

const FEATURES: &[Flag] = &[
    top("corrupt-check-time", Duration, "0s", "Interval of checks for corruption, 0 for none."),
    top(
        "compact-hash-check-time",
        Duration,
        "1m",
        "Interval of checks of compaction hashes, with the gate CompactHashCheck.",
    ),
    top("compaction-batch-limit", Int, "0", "Revisions visited in one step; 0 for 8192."),
    top(
        "compaction-sleep-interval",
        Duration,
        "0s",
        "Pause between two steps; 0 for 12us per revision.",
    ),
    top(
        "watch-progress-notify-interval",
        Duration,
        "0s",
        "Interval of progress notifications, at least 100ms; 0 for 10m.",
    ),
    top("warning-apply-duration", Duration, "100ms", "An apply that takes longer is logged."),
    top(
        "bootstrap-defrag-threshold-megabytes",
        Uint,
        "0",
        "Defragment at start if that frees as many megabytes; 0 for never.",
    ),
    top("max-learners", Int, "1", "Learners that may be members at a time."),
    top("downgrade-check-time", Duration, "5s", "Interval of looking at a running downgrade."),
    top(
        "snapshot-catchup-entries",
        Uint64,
        "5000",
        "Entries kept for slow followers behind a snapshot.",
    ),
];

const MEMORY: &[Flag] = &[
    top("value-cache-bytes", Uint, "67108864", "Bytes of hot values kept for reads."),
    top("engine-cache-bytes", Uint, "4194304", "Bytes of pages the engine keeps."),
    top("write-behind-bytes", Uint, "16777216", "Bytes that may be applied but not committed."),
    top(
        "catchup-memory-bytes",
        Uint,
        "33554432",
        "Bytes of applied entries kept for slow followers; one that needs older ones gets a snapshot.",
    ),
    top("watch-buffer-bytes", Uint, "1048576", "Bytes buffered for one watch stream."),
    top(
        "answer-memory-bytes",
        Uint,
        "268435456",
        "Bytes of large answers held until clients take them, of all clients together.",
    ),
    top("serving-threads", Uint, "0", "Threads that serve clients; 0 for one per core."),
    top("proposals-in-flight-max", Uint, "65536", "Proposals that may be in flight."),
    top(
        "proposals-in-flight-bytes-max",
        Uint,
        "67108864",
        "Bytes of proposals in flight; as many of the log may wait for the disk, a majority, or to be applied.",
    ),
];

const UNSAFE: &[Flag] = &[
    top("force-new-cluster", Bool, "false", "Make this member a cluster of its own."),
    top("unsafe-no-fsync", Bool, "false", "Do not sync files: a crash loses data."),
];
