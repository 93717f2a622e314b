//! Settings to [`Config`]: units, defaults of defaults, and the substitutions etcd makes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::duration::GoDuration;
use super::exit::Exit;
use super::settings::Settings;
use super::url::Url;
use super::{
    AllowList, Auth, AutoCompaction, Cluster, ClusterState, Config, Discovery,
    DiscoveryCredentials, DiscoverySrv, Http, Limits, Memory, Monitoring, Raft,
    SERVING_THREADS_MAX, Store, Tls, TlsInfo, TlsVersion, TokenKind, Tracing, Urls,
};
use crate::logging::{self, Level, Notice};

const DEFAULT_NAME: &str = "default";
const DEFAULT_INITIAL_CLUSTER: &str = "default=http://localhost:2380";
const DEFAULT_PEER_URL: &str = "http://localhost:2380";
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";

const SNAPSHOT_COUNT_DEFAULT: u64 = 10_000;
const CATCHUP_ENTRIES_DEFAULT: u64 = 5000;
const TOKEN_SECONDS_DEFAULT: u64 = 300;
/// More frequent pings than this are of no use to anyone.
const PING_INTERVAL_MIN: Duration = Duration::from_secs(1);
const QUOTA_BYTES_DEFAULT: u64 = 2 << 30;
const COMPACTION_BATCH_DEFAULT: usize = 8192;
/// Per revision of a step: 100 ms for one of the default, about as fast as etcd goes.
const COMPACTION_SLEEP_PER_REVISION: Duration = Duration::from_nanos(12_200);
const WATCH_PROGRESS_DEFAULT: Duration = Duration::from_mins(10);
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
const WARNING_UNARY_DEFAULT: Duration = Duration::from_millis(300);

/// Builds the configuration; what does not fit here fails the start.
pub(super) fn config(
    settings: &Settings,
    from_command_line: bool,
    default_host: fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> Result<Config, Exit> {
    let name = settings.text("name");
    let mut urls = urls(settings);
    let initial = initial_cluster(settings, from_command_line);
    let initial = substitute_defaults(&name, &mut urls, initial, default_host, notices);
    let data_dir = settings.path("data-dir").unwrap_or_else(|| {
        let data_dir = format!("{name}.etcd");
        notices.push(
            Notice::new(Level::Warn, "'data-dir' was empty; using default")
                .with("data-dir", data_dir.clone()),
        );
        PathBuf::from(data_dir)
    });
    Ok(Config {
        cluster: cluster(settings, initial),
        data_dir,
        wal_dir: settings.path("wal-dir"),
        urls,
        raft: raft(settings, notices),
        store: store(settings).map_err(Exit::start_failed)?,
        limits: limits(settings, notices),
        http: Http {
            grpc_gateway: settings.bool("enable-grpc-gateway"),
            cors: allow_list(settings.words("cors")),
            host_whitelist: allow_list(settings.words("host-whitelist")),
            reuse_port: settings.bool("socket-reuse-port"),
            reuse_address: settings.bool("socket-reuse-address"),
        },
        tls: tls(settings).map_err(Exit::invalid)?,
        auth: auth(settings, notices).map_err(Exit::start_failed)?,
        monitoring: monitoring(settings),
        logging: logging(settings).map_err(|error| Exit::invalid(error.to_string()))?,
        features: settings.gates("feature-gates"),
        memory: memory(settings),
        name,
    })
}

/// The `initial-cluster` that counts: its default does not, where the members are discovered.
pub(super) fn initial_cluster(settings: &Settings, from_command_line: bool) -> String {
    let text = settings.text("initial-cluster");
    let discovers = !settings.text("discovery-srv").is_empty()
        || !settings.words("discovery-endpoints").is_empty()
        || (from_command_line && !settings.text("discovery-srv-name").is_empty());
    let untouched = if from_command_line {
        !settings.is_given("initial-cluster")
    } else {
        text == DEFAULT_INITIAL_CLUSTER
    };
    if discovers && untouched { String::new() } else { text }
}

/// The log's options; checked before anything else.
pub(super) fn logging(settings: &Settings) -> Result<logging::Options, logging::OptionsError> {
    logging::Options::parse(&logging::RawOptions {
        logger: &settings.text("logger"),
        level: &settings.text("log-level"),
        format: &settings.text("log-format"),
        outputs: &settings.words("log-outputs"),
        rotation: settings
            .bool("enable-log-rotation")
            .then(|| settings.text("log-rotation-config-json"))
            .as_deref(),
    })
}

/// A version by its name; empty is no choice.
pub(super) fn tls_version(text: &str) -> Result<Option<TlsVersion>, String> {
    match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(TlsVersion::V12)),
        "TLS1.3" => Ok(Some(TlsVersion::V13)),
        _ => Err(format!("unexpected TLS version {text:?} (must be one of: TLS1.2, TLS1.3)")),
    }
}

fn urls(settings: &Settings) -> Urls {
    Urls {
        listen_peer: settings.urls("listen-peer-urls"),
        listen_client: settings.urls("listen-client-urls"),
        listen_client_http: settings.urls("listen-client-http-urls"),
        listen_metrics: settings.urls("listen-metrics-urls"),
        advertise_peer: settings.urls("initial-advertise-peer-urls"),
        advertise_client: settings.urls("advertise-client-urls"),
    }
}

/// Puts this machine's address where a default URL is advertised for a listener on all addresses,
/// and this member's name and URLs into a default `initial-cluster`. Gives the latter.
fn substitute_defaults(
    name: &str,
    urls: &mut Urls,
    initial: String,
    default_host: fn() -> Option<IpAddr>,
    notices: &mut Vec<Notice>,
) -> String {
    let is_default = |advertised: &[Url], listen: &[Url], default: &str| {
        matches!(advertised, [one] if one.as_str() == default)
            && listen.first().is_some_and(|url| url.host() == "0.0.0.0")
    };
    let peer = is_default(&urls.advertise_peer, &urls.listen_peer, DEFAULT_PEER_URL);
    let client = is_default(&urls.advertise_client, &urls.listen_client, DEFAULT_CLIENT_URL);
    if (peer || client)
        && let Some(host) = default_host()
    {
        if peer {
            let port = urls.listen_peer[0].port();
            urls.advertise_peer = vec![urls.advertise_peer[0].with_host(host, port)];
        }
        if client {
            let port = urls.listen_client[0].port();
            urls.advertise_client = vec![urls.advertise_client[0].with_host(host, port)];
        }
        notices.push(
            Notice::new(Level::Info, "detected default host for advertise")
                .with("host", host.to_string()),
        );
    }
    if name == DEFAULT_NAME || initial != DEFAULT_INITIAL_CLUSTER {
        return initial;
    }
    let name = if name.is_empty() { DEFAULT_NAME } else { name };
    let members: Vec<_> = urls.advertise_peer.iter().map(|url| format!("{name}={url}")).collect();
    members.join(",")
}

fn cluster(settings: &Settings, initial: String) -> Cluster {
    let endpoints = settings.words("discovery-endpoints");
    let domain = settings.text("discovery-srv");
    Cluster {
        initial,
        state: match settings.text("initial-cluster-state").as_str() {
            "existing" => ClusterState::Existing,
            _ => ClusterState::New,
        },
        token: settings.text("initial-cluster-token"),
        discovery: (!endpoints.is_empty()).then(|| discovery(settings, endpoints)),
        discovery_srv: (!domain.is_empty()).then(|| DiscoverySrv {
            domain,
            service_name: settings.text("discovery-srv-name"),
            servers: settings
                .words("discovery-srv-servers")
                .iter()
                .filter_map(|server| server.parse().ok())
                .collect(),
        }),
        strict_reconfig_check: settings.bool("strict-reconfig-check"),
        learners_max: usize::try_from(settings.signed("max-learners")).unwrap_or(0),
        force_new: settings.bool("force-new-cluster"),
        downgrade_check_interval: settings.duration("downgrade-check-time").or_zero(),
    }
}

fn discovery(settings: &Settings, endpoints: Vec<String>) -> Discovery {
    Discovery {
        token: settings.text("discovery-token"),
        endpoints,
        dial_timeout: settings.duration("discovery-dial-timeout").or_zero(),
        request_timeout: settings.duration("discovery-request-timeout").or_zero(),
        keepalive_time: settings.duration("discovery-keepalive-time").or_zero(),
        keepalive_timeout: settings.duration("discovery-keepalive-timeout").or_zero(),
        credentials: DiscoveryCredentials {
            insecure_transport: settings.bool("discovery-insecure-transport"),
            insecure_skip_tls_verify: settings.bool("discovery-insecure-skip-tls-verify"),
            cert: settings.text("discovery-cert"),
            key: settings.text("discovery-key"),
            cacert: settings.text("discovery-cacert"),
            user: settings.text("discovery-user"),
            password: settings.text("discovery-password"),
        },
    }
}

fn raft(settings: &Settings, notices: &mut Vec<Notice>) -> Raft {
    let mut default_if_zero = |name: &str, message: &'static str, default: u64| {
        let given = settings.unsigned(name);
        if given == 0 {
            notices.push(Notice::new(Level::Info, message).with("updated", default));
            return default;
        }
        given
    };
    let snapshot_count = default_if_zero(
        "snapshot-count",
        "updating snapshot-count to default",
        SNAPSHOT_COUNT_DEFAULT,
    );
    let snapshot_catchup_entries = default_if_zero(
        "snapshot-catchup-entries",
        "updating snapshot catch-up entries to default",
        CATCHUP_ENTRIES_DEFAULT,
    );
    let all_if_zero = |name: &str| Some(settings.count(name)).filter(|count| *count > 0);
    Raft {
        heartbeat_interval: Duration::from_millis(settings.unsigned("heartbeat-interval")),
        election_timeout: Duration::from_millis(settings.unsigned("election-timeout")),
        initial_election_tick_advance: settings.bool("initial-election-tick-advance"),
        pre_vote: settings.bool("pre-vote"),
        snapshot_count,
        snapshot_catchup_entries,
        snapshots_max: all_if_zero("max-snapshots"),
        wals_max: all_if_zero("max-wals"),
        read_timeout: settings.duration("raft-read-timeout").or_zero(),
        write_timeout: settings.duration("raft-write-timeout").or_zero(),
    }
}

/// The pause behind a step of so many revisions, if none is given.
fn compaction_sleep(revisions: usize) -> Duration {
    u32::try_from(revisions)
        .map_or(Duration::MAX, |revisions| COMPACTION_SLEEP_PER_REVISION.saturating_mul(revisions))
}

fn store(settings: &Settings) -> Result<Store, String> {
    let positive =
        |name: &str| usize::try_from(settings.signed(name)).ok().filter(|count| *count > 0);
    let megabytes = settings.unsigned("bootstrap-defrag-threshold-megabytes");
    let compaction_batch_limit =
        positive("compaction-batch-limit").unwrap_or(COMPACTION_BATCH_DEFAULT);
    Ok(Store {
        quota_bytes: match settings.signed("quota-backend-bytes") {
            0 => Some(QUOTA_BYTES_DEFAULT),
            quota => u64::try_from(quota).ok(),
        },
        batch_interval: settings.duration("backend-batch-interval").positive(),
        batch_limit: positive("backend-batch-limit"),
        unsafe_no_fsync: settings.bool("unsafe-no-fsync"),
        memory_mlock: settings.bool("memory-mlock"),
        bootstrap_defrag_threshold_bytes: (megabytes > 0)
            .then(|| megabytes.saturating_mul(1 << 20)),
        auto_compaction: auto_compaction(
            &settings.text("auto-compaction-mode"),
            &settings.text("auto-compaction-retention"),
        )?,
        compaction_batch_limit,
        compaction_sleep_interval: settings
            .duration("compaction-sleep-interval")
            .positive()
            .unwrap_or_else(|| compaction_sleep(compaction_batch_limit)),
        corrupt_check_interval: settings.duration("corrupt-check-time").positive(),
        compact_hash_check_interval: settings.duration("compact-hash-check-time").or_zero(),
    })
}

/// A whole number counts hours or revisions; everything else is a duration, whose nanoseconds count
/// as revisions in revision mode, as strange as that is.
pub(super) fn auto_compaction(mode: &str, retention: &str) -> Result<AutoCompaction, String> {
    let retention = if retention.is_empty() { "0" } else { retention };
    let revisions = mode == "revision";
    let amount = match retention.parse::<i64>() {
        Ok(number) if number >= 0 && revisions => number,
        Ok(hours) if hours >= 0 => hours.saturating_mul(3_600_000_000_000),
        Ok(_) | Err(_) => GoDuration::parse(retention)
            .map_err(|error| format!("error parsing CompactionRetention: {error}"))?
            .as_nanos(),
    };
    Ok(match u64::try_from(amount) {
        Ok(0) | Err(_) => AutoCompaction::Off,
        Ok(_) if revisions => AutoCompaction::Revisions(amount),
        Ok(nanos) => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
    })
}

fn limits(settings: &Settings, notices: &mut Vec<Notice>) -> Limits {
    let progress = settings.duration("watch-progress-notify-interval").positive();
    if progress.is_some_and(|interval| interval < WATCH_PROGRESS_MIN) {
        notices.push(
            Notice::new(Level::Warn, "adjusting watch progress notify interval to minimum period")
                .with(
                    "min-watch-progress-notify-interval",
                    GoDuration::from(WATCH_PROGRESS_MIN).to_string(),
                ),
        );
    }
    let streams = settings.unsigned("max-concurrent-streams");
    Limits {
        txn_ops_max: settings.count("max-txn-ops"),
        request_bytes_max: settings.count("max-request-bytes"),
        concurrent_streams_max: match u32::try_from(streams) {
            Ok(0) | Err(_) => u32::MAX,
            Ok(streams) => streams,
        },
        keepalive_interval_min: settings.duration("grpc-keepalive-min-time").positive(),
        keepalive_interval: settings
            .duration("grpc-keepalive-interval")
            .positive()
            .map(|interval| interval.max(PING_INTERVAL_MIN)),
        keepalive_timeout: settings.duration("grpc-keepalive-timeout").positive(),
        watch_progress_interval: progress.unwrap_or(WATCH_PROGRESS_DEFAULT).max(WATCH_PROGRESS_MIN),
    }
}

fn allow_list(words: Vec<String>) -> AllowList {
    if words.is_empty() || words.iter().any(|word| word == "*") {
        return AllowList::Any;
    }
    AllowList::Only(words.into_iter().collect::<BTreeSet<_>>())
}

fn tls(settings: &Settings) -> Result<Tls, String> {
    let client = TlsInfo {
        cert_file: settings.path("cert-file"),
        key_file: settings.path("key-file"),
        client_cert_file: settings.path("client-cert-file"),
        client_key_file: settings.path("client-key-file"),
        trusted_ca_file: settings.path("trusted-ca-file"),
        crl_file: settings.path("client-crl-file"),
        client_cert_auth: settings.bool("client-cert-auth"),
        auto: settings.bool("auto-tls"),
        skip_client_san_verification: true,
        allowed_cns: settings.words("client-cert-allowed-cn"),
        allowed_hostnames: settings.words("client-cert-allowed-hostname"),
    };
    let peer = TlsInfo {
        cert_file: settings.path("peer-cert-file"),
        key_file: settings.path("peer-key-file"),
        client_cert_file: settings.path("peer-client-cert-file"),
        client_key_file: settings.path("peer-client-key-file"),
        trusted_ca_file: settings.path("peer-trusted-ca-file"),
        crl_file: settings.path("peer-crl-file"),
        client_cert_auth: settings.bool("peer-client-cert-auth"),
        auto: settings.bool("peer-auto-tls"),
        skip_client_san_verification: settings.bool("peer-skip-client-san-verification"),
        allowed_cns: settings.words("peer-cert-allowed-cn"),
        allowed_hostnames: settings.words("peer-cert-allowed-hostname"),
    };
    let years = settings.unsigned("self-signed-cert-validity");
    Ok(Tls {
        client,
        peer,
        cipher_suites: settings.words("cipher-suites"),
        version_min: tls_version(&settings.text("tls-min-version"))?.unwrap_or(TlsVersion::V12),
        version_max: tls_version(&settings.text("tls-max-version"))?.unwrap_or(TlsVersion::V13),
        self_signed_validity_years: u32::try_from(years).unwrap_or(u32::MAX),
    })
}

fn auth(settings: &Settings, notices: &mut Vec<Notice>) -> Result<Auth, String> {
    let token = settings.text("auth-token");
    let given = settings.unsigned("bcrypt-cost");
    let cost = u32::try_from(given).ok().filter(|cost| (4..=31).contains(cost));
    if cost.is_none() {
        notices.push(
            Notice::new(Level::Warn, "use default bcrypt cost instead of the invalid given cost")
                .with("min-cost", 4)
                .with("max-cost", 31)
                .with("default-cost", 10)
                .with("given-cost", given),
        );
    }
    let (kind, options) = token.split_once(',').unwrap_or((&token, ""));
    Ok(Auth {
        token: match kind {
            "" | "simple" => TokenKind::Simple,
            "jwt" => TokenKind::Jwt(options.to_owned()),
            _ => return Err("auth: invalid auth options".to_owned()),
        },
        bcrypt_cost: cost.unwrap_or(10),
        token_ttl: Duration::from_secs(match settings.unsigned("auth-token-ttl") {
            0 => TOKEN_SECONDS_DEFAULT,
            seconds => seconds,
        }),
    })
}

fn monitoring(settings: &Settings) -> Monitoring {
    let rate = settings.signed("distributed-tracing-sampling-rate");
    let warning = settings.duration("warning-unary-request-duration");
    Monitoring {
        extensive_metrics: settings.text("metrics") == "extensive",
        pprof: settings.bool("enable-pprof"),
        tracing: settings.bool("enable-distributed-tracing").then(|| Tracing {
            address: settings.text("distributed-tracing-address"),
            service_name: settings.text("distributed-tracing-service-name"),
            instance_id: settings.text("distributed-tracing-instance-id"),
            samples_per_million: u32::try_from(rate).unwrap_or(0),
        }),
        warning_apply_duration: settings.duration("warning-apply-duration").or_zero(),
        warning_unary_request_duration: match warning.as_nanos() {
            0 => WARNING_UNARY_DEFAULT,
            _ => warning.or_zero(),
        },
    }
}

fn memory(settings: &Settings) -> Memory {
    let request_bytes_max = settings.count("max-request-bytes");
    let room_for_requests = |name: &str| settings.count(name).max(request_bytes_max);
    let cores = || {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        cores.min(SERVING_THREADS_MAX)
    };
    Memory {
        value_cache_bytes: settings.count("value-cache-bytes"),
        engine_cache_bytes: settings.count("engine-cache-bytes"),
        write_behind_bytes: room_for_requests("write-behind-bytes"),
        catchup_memory_bytes: settings.count("catchup-memory-bytes"),
        watch_buffer_bytes: settings.count("watch-buffer-bytes"),
        answer_memory_bytes: settings.count("answer-memory-bytes"),
        serving_threads: Some(settings.count("serving-threads"))
            .filter(|threads| *threads > 0)
            .unwrap_or_else(cores),
        proposals_in_flight_max: settings.count("proposals-in-flight-max"),
        proposals_in_flight_bytes_max: room_for_requests("proposals-in-flight-bytes-max"),
    }
}
