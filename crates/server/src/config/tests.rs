//! Outcomes of the sources, one row per case. What is refused, its exit code and its text were
//! recorded from etcd 3.7.1 on the same input; rows that begin with "ours" are Quorate's own
//! decisions.

use std::io::Write as _;

use super::*;

fn arguments(line: &[&str]) -> Vec<String> {
    std::iter::once("etcd").chain(line.iter().copied()).map(str::to_owned).collect()
}

fn load_line(line: &[&str]) -> Result<Loaded, Exit> {
    load(&arguments(line), &Environment::new())
}

fn config(line: &[&str]) -> Config {
    load_line(line).unwrap_or_else(|exit| panic!("{line:?}: {exit:?}")).config
}

fn load_file(text: &str) -> Result<Loaded, Exit> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    load_line(&["--config-file", path, "--name=ignored"])
}

/// The `error` field of the line that says why.
fn error_of(exit: &Exit) -> String {
    let fields = exit.notices.iter().flat_map(|notice| &notice.fields);
    let error = fields.filter(|(name, _value)| *name == "error").map(|(_name, value)| value).next();
    error.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

const SYNTAX_ERRORS: &[(&[&str], &str)] = &[
    (&["-name"], "flag needs an argument: -name"),
    (&["--nope=1"], "flag provided but not defined: -nope"),
    (&["---x"], "bad flag syntax: ---x"),
    (&["-=x"], "bad flag syntax: -=x"),
    (&["--=x"], "bad flag syntax: --=x"),
    (&["--max-wals=abc"], "invalid value \"abc\" for flag -max-wals: parse error"),
    (&["--max-wals", "-1"], "invalid value \"-1\" for flag -max-wals: parse error"),
    (
        &["--max-wals=99999999999999999999"],
        "invalid value \"99999999999999999999\" for flag -max-wals: value out of range",
    ),
    (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
    (
        &["--grpc-keepalive-interval=5"],
        "invalid value \"5\" for flag -grpc-keepalive-interval: parse error",
    ),
    (
        &["--max-concurrent-streams=5000000000"],
        "invalid value \"5000000000\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \
         \"5000000000\": value out of range",
    ),
    (
        &["--max-concurrent-streams=abc"],
        "invalid value \"abc\" for flag -max-concurrent-streams: strconv.ParseUint: parsing \"abc\": \
         invalid syntax",
    ),
    (
        &["--listen-client-urls=foo"],
        "invalid value \"foo\" for flag -listen-client-urls: URL scheme must be http, https, unix, or \
         unixs: foo",
    ),
    (
        &["--listen-peer-urls=http://[::1:2380"],
        "invalid value \"http://[::1:2380\" for flag -listen-peer-urls: parse \"http://[::1:2380\": \
         missing ']' in host",
    ),
    (
        &["--initial-cluster-state=foo"],
        "invalid value \"foo\" for flag -initial-cluster-state: invalid value",
    ),
    (
        &["--v2-deprecation=not-yet"],
        "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
    ),
    (
        &["--feature-gates=Foo=true"],
        "invalid value \"Foo=true\" for flag -feature-gates: unrecognized feature gate: Foo",
    ),
    (
        &["--feature-gates=Foo"],
        "invalid value \"Foo\" for flag -feature-gates: missing bool value for Foo",
    ),
    (
        &["--feature-gates=CompactHashCheck=x"],
        "invalid value \"CompactHashCheck=x\" for flag -feature-gates: invalid value of \
         CompactHashCheck=x, err: strconv.ParseBool: parsing \"x\": invalid syntax",
    ),
    (
        &["--cors=foo"],
        "invalid value \"foo\" for flag -cors: URL scheme must be http, https, unix, or unixs: foo",
    ),
    (
        &["--discovery-fallback=x"],
        "invalid value \"x\" for flag -discovery-fallback: invalid value",
    ),
    // Removed with 3.7.
    (
        &["--experimental-corrupt-check-time=1m"],
        "flag provided but not defined: -experimental-corrupt-check-time",
    ),
    (&["--discovery="], "flag provided but not defined: -discovery"),
    // What is wrong first counts, also before --help.
    (&["--nope", "--help"], "flag provided but not defined: -nope"),
];

#[test]
fn syntax_errors_print_the_usage_and_exit_with_2() {
    for (line, text) in SYNTAX_ERRORS {
        let exit = load_line(line).expect_err("a syntax error");
        assert_eq!((exit.code, exit.stderr.lines().next()), (2, Some(*text)), "{line:?}");
        assert!(
            exit.stderr.contains("Usage:") && exit.stdout.is_empty() && exit.notices.is_empty()
        );
    }
}

const REFUSALS: &[(&[&str], &str)] = &[
    (&["--", "foo"], "\"foo\" is not a valid flag"),
    (&["--name", "x", "foo", "bar"], "\"foo\" is not a valid flag"),
    (&["-"], "\"-\" is not a valid flag"),
    (&["--pre-vote", "false"], "\"false\" is not a valid flag"),
    (&["--version", "foo"], "\"foo\" is not a valid flag"),
    (&["--listen-client-urls=http://foo:1"], "expected IP in URL for binding (http://foo:1)"),
    (&["--listen-metrics-urls=http://foo:1"], "expected IP in URL for binding (http://foo:1)"),
    (&["--listen-client-urls=http://127.0.0.1:1"], ADVERTISE),
    (&["--listen-client-urls="], ADVERTISE),
    (
        &["--initial-advertise-peer-urls=http://:2380"],
        "--initial-advertise-peer-urls \"http://:2380\" must be \"host:port\" (unexpected empty host \
         (http://:2380))",
    ),
    (
        &["--discovery-fallback=proxy"],
        "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
    ),
    (&["--discovery-token=x"], "both --discovery-token and --discovery-endpoints must be set"),
    (&["--discovery-endpoints=a,"], "both --discovery-token and --discovery-endpoints must be set"),
    (
        &["--discovery-endpoints=a,", "--discovery-token=x"],
        "--discovery-endpoints must not contain empty endpoints",
    ),
    (
        &[
            "--discovery-endpoints=a",
            "--discovery-token=x",
            "--initial-cluster=default=http://localhost:2380",
        ],
        "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
         \"discovery-endpoints\" or \"discovery-srv\"",
    ),
    (&["--heartbeat-interval=0"], "--heartbeat-interval must be >0 (set to 0ms)"),
    (&["--election-timeout=0"], "--election-timeout must be >0 (set to 0ms)"),
    (
        &["--election-timeout=400"],
        "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
    ),
    (
        &["--election-timeout=60000"],
        "--election-timeout[60000ms] is too long, and should be set less than 50000ms",
    ),
    (&["--auto-compaction-mode="], "undefined auto-compaction-mode"),
    (&["--auto-compaction-mode=foo"], "unknown auto-compaction-mode \"foo\""),
    (
        &["--feature-gates=LeaseCheckpointPersist=true"],
        "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
    ),
    (&["--compact-hash-check-time=0"], "--compact-hash-check-time must be >0 (set to 0s)"),
    (
        &["--tls-min-version=TLS1.1"],
        "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
    ),
    (
        &["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
        "min version (TLS1.3) is greater than max version (TLS1.2)",
    ),
    (
        &["--tls-min-version=TLS1.3", "--cipher-suites=foo"],
        "cipher suites cannot be configured when only TLS1.3 is enabled",
    ),
    (&["--logger=capnslog"], "--logger=capnslog is removed in v3.5"),
    (&["--logger=foo"], "unknown logger option \"foo\""),
    (&["--log-outputs=default,stderr"], "multi logoutput for \"default\" is not supported yet"),
    (
        &["--log-outputs=systemd/journal,stderr"],
        "running with systemd/journal but other '--log-outputs' values ([\"stderr\" \
         \"systemd/journal\"]) are configured with 'default'; override 'default' value with something \
         else",
    ),
    (&["--log-format=foo"], "unknown log format: foo, supported values json, console"),
    (
        &["--enable-log-rotation"],
        "--log-outputs requires a single file path when --log-rotate-config-json is defined",
    ),
    (
        &["--log-outputs=/tmp/a.log", "--enable-log-rotation", "--log-rotation-config-json={"],
        "improperly formatted log rotation config: unexpected end of JSON input",
    ),
    (
        &[
            "--log-outputs=/tmp/a.log",
            "--enable-log-rotation",
            "--log-rotation-config-json={\"maxsize\":\"a\"}",
        ],
        "invalid log rotation config: json: cannot unmarshal string into Go struct field \
         logRotationConfig.Logger.maxsize of type int",
    ),
    (
        &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"],
        "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
    ),
    (
        &["--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001"],
        "distributed tracing configurition is not valid: (tracing sampling rate must be less than \
         1000000)",
    ),
    (&["--config-file=/nonexistent"], "open /nonexistent: no such file or directory"),
];

#[test]
fn invalid_configurations_are_logged_and_exit_with_1() {
    for (line, text) in REFUSALS {
        let exit = load_line(line).expect_err("a refusal");
        assert_eq!((exit.code, error_of(&exit).as_str()), (1, *text), "{line:?}");
        let messages: Vec<_> = exit.notices.iter().map(|notice| notice.message.as_ref()).collect();
        assert!(messages.contains(&"failed to verify flags"), "{line:?}: {messages:?}");
        assert!(messages.contains(&"Running: "), "{line:?}: {messages:?}");
        let twice = messages.contains(&"advertise client URLs are not set");
        assert_eq!(twice, *text == ADVERTISE, "{line:?}");
    }
}

const ADVERTISE: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

#[test]
fn failed_starts_are_fatal_lines_and_exit_with_1() {
    let urls =
        ["--listen-client-urls=https://localhost:1", "--advertise-client-urls=https://localhost:1"];
    for (line, text) in [
        (
            &["--auto-compaction-retention=foo"] as &[&str],
            "error parsing CompactionRetention: time: invalid duration \"foo\"",
        ),
        (
            &["--auto-compaction-retention=-1"],
            "error parsing CompactionRetention: time: missing unit in duration \"-1\"",
        ),
        (&["--cipher-suites=foo"], "unexpected TLS cipher suite \"foo\""),
        (&["--auth-token=foo"], "auth: invalid auth options"),
        (
            &["--listen-client-http-urls=http://localhost:2379"],
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url \
             http://localhost:2379",
        ),
        (
            &urls,
            "TLS key/cert (--cert-file, --key-file) must be provided for client url https://localhost:1 \
             with HTTPS scheme",
        ),
        (
            &["--listen-metrics-urls=https://localhost:1"],
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url",
        ),
    ] {
        let exit = load_line(line).expect_err("a failed start");
        let last = exit.notices.last().expect("a line");
        assert_eq!((exit.code, error_of(&exit).as_str()), (1, text), "{line:?}");
        assert_eq!(
            (last.level, last.message.as_ref()),
            (logging::Level::Fatal, "discovery failed")
        );
    }
}

#[test]
fn a_bad_level_ends_like_a_panic() {
    let exit = load_line(&["--log-level=foo"]).expect_err("a refusal");
    assert_eq!((exit.code, exit.stderr.as_str()), (2, "panic: unrecognized level: \"foo\"\n"));
}

#[test]
fn help_and_version_answer_and_exit_with_0() {
    for line in [&["--help"] as &[&str], &["-h"], &["--name=x", "-help", "--nope"]] {
        let exit = load_line(line).expect_err("an answer");
        assert_eq!(exit.code, 0);
        assert!(exit.stderr.contains("Usage:"));
        for section in table::SECTIONS {
            for flag in section.flags {
                assert!(exit.stdout.contains(&format!("\n  --{} '", flag.name)), "{}", flag.name);
                assert!(!flag.help.is_empty(), "{}", flag.name);
            }
        }
    }
    let exit = load_line(&["--version", "--heartbeat-interval=0"]).expect_err("an answer");
    let lines: Vec<_> = exit.stdout.lines().collect();
    assert_eq!((exit.code, lines.len()), (0, 4), "{lines:?}");
    assert_eq!(lines[0], "etcd Version: 3.7.1");
    let starts = ["etcd Version: ", "Git SHA: quorate-", "Go Version: ", "Go OS/Arch: "];
    assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
}

#[test]
fn defaults_are_those_of_etcd() {
    let config = config(&[]);
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.etcd")));
    assert_eq!(config.cluster.initial, "default=http://localhost:2380");
    assert_eq!(config.raft.election_ticks(), 10);
    assert_eq!(config.raft.request_timeout(), Duration::from_secs(7));
    assert_eq!((config.raft.snapshot_count, config.raft.snapshot_catchup_entries), (10_000, 5000));
    assert_eq!(config.store.quota_bytes, Some(2 << 30));
    assert_eq!(config.store.auto_compaction, AutoCompaction::Off);
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(config.limits.keepalive_interval, Some(Duration::from_hours(2)));
    assert_eq!(config.limits.watch_progress_interval, Duration::from_mins(10));
    assert_eq!(config.http.cors, AllowList::Any);
    assert_eq!(config.auth.token, TokenKind::Simple);
    assert_eq!(config.monitoring.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.memory.value_cache_bytes, 64 << 20);
    assert!(config.memory.serving_threads > 0);
}

#[test]
fn every_flag_has_a_default_and_a_variable_of_its_own() {
    let mut variables = BTreeSet::new();
    for flag in table::all().chain(table::FILE_ONLY) {
        let _parses = settings::default_of(flag);
        assert!(variables.insert(flag::variable(flag.name)), "{} is there twice", flag.name);
    }
}

#[test]
fn flags_become_values() {
    let config = config(&[
        "-name",
        "m1",
        "--data-dir=/d",
        "--wal-dir=/w",
        "--listen-client-urls=http://127.0.0.1:2,http://127.0.0.1:1,http://127.0.0.1:1",
        "--advertise-client-urls=http://a:1",
        "--quota-backend-bytes=-1",
        "--max-snapshots=0",
        "--heartbeat-interval=0x10",
        "--auto-compaction-retention=5",
        "--cors=http://b:1,http://a:1",
        "--host-whitelist=x,y,x",
        "--pre-vote=F",
        "--warning-unary-request-duration=0",
        "--watch-progress-notify-interval=1ms",
        "--raft-read-timeout=1s",
        "--bcrypt-cost=99",
        "--grpc-keepalive-min-time=-1s",
        "--v",
        "--snapshot=foo",
    ]);
    assert_eq!(texts(&config.urls.listen_client), ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    assert_eq!(config.cluster.initial, "m1=http://localhost:2380");
    assert_eq!((config.store.quota_bytes, config.raft.snapshots_max), (None, None));
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(16));
    let five_hours = Duration::from_hours(5);
    assert_eq!(config.store.auto_compaction, AutoCompaction::Periodic(five_hours));
    assert!(config.http.cors.allows("http://a:1") && !config.http.cors.allows("http://c:1"));
    assert_eq!(config.http.host_whitelist.texts(), ["x", "y"]);
    assert!(!config.raft.pre_vote);
    assert_eq!(config.monitoring.warning_unary_request_duration, Duration::from_millis(300));
    assert_eq!(config.limits.watch_progress_interval, Duration::from_millis(100));
    assert_eq!(config.raft.read_timeout, Duration::from_secs(5));
    assert_eq!((config.auth.bcrypt_cost, config.limits.keepalive_interval_min), (10, None));
}

#[test]
fn zero_is_the_default_where_etcd_says_so() {
    let config = config(&[
        "--snapshot-count=0",
        "--snapshot-catchup-entries=0",
        "--max-concurrent-streams=0",
        "--auth-token-ttl=0",
        "--grpc-keepalive-interval=1ms",
    ]);
    assert_eq!((config.raft.snapshot_count, config.raft.snapshot_catchup_entries), (10_000, 5000));
    assert_eq!(config.limits.concurrent_streams_max, u32::MAX);
    assert_eq!(config.auth.token_ttl, Duration::from_mins(5));
    assert_eq!(config.limits.keepalive_interval, Some(Duration::from_secs(1)));
}

#[test]
fn ours_bounds_that_no_request_fits_through_are_refused() {
    for (line, text) in [
        (
            &["--write-behind-bytes=0"] as &[&str],
            "--write-behind-bytes must be at least 1572864 (set to 0)",
        ),
        (
            &["--proposals-in-flight-max=0"],
            "--proposals-in-flight-max must be at least 1 (set to 0)",
        ),
        (
            &["--max-request-bytes=100000000", "--write-behind-bytes=16777216"],
            "--write-behind-bytes must be at least 100000000 (set to 16777216)",
        ),
        (&["--serving-threads=2000"], "--serving-threads must be at most 255 (set to 2000)"),
    ] {
        assert_eq!(error_of(&load_line(line).expect_err("a refusal")), text);
    }
    let large = config(&["--max-request-bytes=100000000"]).memory;
    assert_eq!(large.write_behind_bytes, 100_000_000);
    assert_eq!(large.proposals_in_flight_bytes_max, 100_000_000);
    assert_eq!(config(&["--value-cache-bytes=0"]).memory.value_cache_bytes, 0);
}

#[test]
fn retention_counts_what_the_mode_says() {
    for (mode, retention, expected) in [
        ("periodic", "0", AutoCompaction::Off),
        ("periodic", "", AutoCompaction::Off),
        ("periodic", "1h30m", AutoCompaction::Periodic(Duration::from_mins(90))),
        ("periodic", "2", AutoCompaction::Periodic(Duration::from_hours(2))),
        ("revision", "1000", AutoCompaction::Revisions(1000)),
        ("revision", "1us", AutoCompaction::Revisions(1000)),
        ("revision", "-1h", AutoCompaction::Off),
    ] {
        assert_eq!(build::auto_compaction(mode, retention), Ok(expected), "{mode} {retention}");
    }
}

#[test]
fn a_listener_on_all_addresses_advertises_the_default_host() {
    let line = arguments(&["--name=m1", "--listen-peer-urls=http://0.0.0.0:7"]);
    let mut notices = Vec::new();
    let host = || Some("10.1.2.3".parse().unwrap());
    let config = load::gather(&line, &Environment::new(), host, &mut notices).unwrap();
    assert_eq!(texts(&config.urls.advertise_peer), ["http://10.1.2.3:7"]);
    assert_eq!(texts(&config.urls.advertise_client), ["http://localhost:2379"]);
    assert_eq!(config.cluster.initial, "m1=http://10.1.2.3:7");
    let config = load::gather(&line, &Environment::new(), || None, &mut notices).unwrap();
    assert_eq!(texts(&config.urls.advertise_peer), ["http://localhost:2380"]);
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn variables_are_used_reported_and_never_shadowed() {
    let variables = environment(&[
        ("ETCD_NAME", "a"),
        ("ETCD_FOO", "bar"),
        ("ETCD_DATA_DIR", ""),
        ("ETCD_VERSION", "9"),
        ("HOME", "/"),
    ]);
    let loaded = load(&arguments(&[]), &variables).unwrap();
    assert_eq!(loaded.config.name, "a");
    let has = |text: &str| loaded.notices.iter().filter(|notice| notice.message == text).count();
    assert_eq!(has("recognized and used environment variable"), 1);
    // The empty one is not used either, and etcd says so.
    assert_eq!(has("unrecognized environment variable"), 2);
    assert_eq!(has("cannot set special environment variable"), 1);

    let exit = load(&arguments(&["--name=b"]), &variables).unwrap_err();
    let last = exit.notices.last().unwrap();
    assert_eq!((exit.code, last.level), (1, logging::Level::Fatal));
    assert_eq!(
        last.message,
        "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
         environment variable or disable flag))"
    );

    let bad = environment(&[("ETCD_HEARTBEAT_INTERVAL", "foo"), ("ETCD_PRE_VOTE", "foo")]);
    let exit = load(&arguments(&[]), &bad).unwrap_err();
    assert_eq!(error_of(&exit), "invalid value \"foo\" for ETCD_PRE_VOTE: parse error");
}

#[test]
fn a_file_replaces_flags_and_variables() {
    let loaded = load_file(
        "name: m1\ndata-dir: /d\nlisten-client-urls: http://127.0.0.1:1, http://127.0.0.1:2\n\
         warning-apply-duration: 5000000\nlog-outputs: [stdout]\nauto-compaction-retention: \"1\"\n\
         client-transport-security:\n  cert-file: c\n  key-file: k\n  allowed-hostname: [h]\n\
         socket-options: {reuse-port: true}\nunknown: [1]\nPRE-VOTE: no\ncors: http://a:1\n\
         heartbeat-interval: 1e2\nwal-dir: ~\nclient-crl-file: ignored\nname: m2\n",
    )
    .unwrap();
    let config = loaded.config;
    assert_eq!(config.name, "m2", "of equal keys the last counts");
    assert_eq!(config.urls.listen_client.len(), 2);
    // Only on the command line does this demand --advertise-client-urls.
    assert_eq!(texts(&config.urls.advertise_client), ["http://localhost:2379"]);
    assert_eq!(config.monitoring.warning_apply_duration, Duration::from_millis(5));
    assert_eq!(config.logging.outputs, [logging::Output::Stdout]);
    assert_eq!(config.tls.client.cert_file, Some("c".into()));
    assert_eq!(config.tls.client.allowed_hostnames, ["h"]);
    assert_eq!((config.tls.client.crl_file, config.wal_dir), (None, None));
    assert!(config.http.reuse_port && !config.raft.pre_vote);
    assert_eq!(config.http.cors.texts(), ["http://a:1"]);
    assert_eq!(config.raft.heartbeat_interval, Duration::from_millis(100));
    for empty in ["", "# nothing\n", "{}"] {
        assert_eq!(load_file(empty).unwrap().config.name, "default");
    }
    assert_eq!(load_file("{\"name\":\"json\"}").unwrap().config.name, "json");
}

const WRONG_TYPES: &[(&str, &str)] = &[
    ("- a", "array into Go value of type embed.configYAML"),
    ("foo", "string into Go value of type embed.configYAML"),
    (
        "heartbeat-interval: abc",
        "string into Go struct field configYAML.Config.heartbeat-interval of type uint",
    ),
    (
        "grpc-keepalive-interval: 10s",
        "string into Go struct field configYAML.Config.grpc-keepalive-interval of type time.Duration",
    ),
    ("name: 1", "number into Go struct field configYAML.Config.name of type string"),
    ("name: [a]", "array into Go struct field configYAML.Config.name of type string"),
    (
        "snapshot-count: -1",
        "number -1 into Go struct field configYAML.Config.snapshot-count of type uint64",
    ),
    (
        "snapshot-count: 1.5",
        "number 1.5 into Go struct field configYAML.Config.snapshot-count of type uint64",
    ),
    (
        "max-concurrent-streams: 5000000000",
        "number 5000000000 into Go struct field configYAML.Config.max-concurrent-streams of type uint32",
    ),
    ("pre-vote: \"true\"", "string into Go struct field configYAML.Config.pre-vote of type bool"),
    (
        "log-outputs: foo",
        "string into Go struct field configYAML.Config.log-outputs of type []string",
    ),
    (
        "log-outputs: [1]",
        "number into Go struct field configYAML.Config.log-outputs of type string",
    ),
    ("cors: 1", "number into Go struct field configYAML.configJSON.cors of type string"),
    (
        "peer-transport-security: 4",
        "number into Go struct field configYAML.configJSON.peer-transport-security of type \
         embed.securityConfig",
    ),
    (
        "client-transport-security: {cert-file: 1}",
        "number into Go struct field securityConfig.configJSON.client-transport-security.cert-file of \
         type string",
    ),
    (
        "client-transport-security: {allowed-cn: a}",
        "string into Go struct field securityConfig.configJSON.client-transport-security.allowed-cn of \
         type []string",
    ),
    (
        "socket-options: {reuse-port: 1}",
        "number into Go struct field SocketOpts.Config.socket-options.reuse-port of type bool",
    ),
    (
        "discovery-config: 1",
        "number into Go struct field configYAML.Config.discovery-config of type \
         v3discovery.DiscoveryConfig",
    ),
    (
        "discovery-config: {token: 1}",
        "number into Go struct field DiscoveryConfig.Config.discovery-config.token of type string",
    ),
    (
        "discovery-config: {client: {endpoints: 1}}",
        "number into Go struct field ConfigSpec.Config.discovery-config.client.endpoints of type \
         []string",
    ),
    (
        "discovery-config: {client: {secure: {cert: 1}}}",
        "number into Go struct field SecureConfig.Config.discovery-config.client.secure.cert of type \
         string",
    ),
    (
        "discovery-config: {client: {auth: {username: 1}}}",
        "number into Go struct field AuthConfig.Config.discovery-config.client.auth.username of type \
         string",
    ),
    (
        "name: 5\nbcrypt-cost: a",
        "string into Go struct field configYAML.Config.bcrypt-cost of type uint",
    ),
];

#[test]
fn a_file_can_be_named_by_a_variable_and_silences_the_others() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"name: from-file").unwrap();
    let path = file.path().to_str().unwrap();
    let variables =
        environment(&[("ETCD_CONFIG_FILE", path), ("ETCD_NAME", "a"), ("ETCD_FOO", "bar")]);
    // Peer timeouts are the exception: a file cannot say them.
    let line = arguments(&["--name=b", "--raft-read-timeout=9s"]);
    let loaded = load(&line, &variables).unwrap();
    assert_eq!(loaded.config.name, "from-file");
    assert_eq!(loaded.config.raft.read_timeout, Duration::from_secs(9));
    let messages: Vec<_> = loaded.notices.iter().map(|notice| notice.message.as_ref()).collect();
    assert!(!messages.contains(&"unrecognized environment variable"), "{messages:?}");
    // A flag wins over the variable.
    let line = arguments(&["--config-file=/nonexistent"]);
    let exit = load(&line, &variables).unwrap_err();
    assert_eq!(error_of(&exit), "open /nonexistent: no such file or directory");
}

#[test]
fn a_file_that_does_not_end_is_not_read_to_its_end() {
    let exit = load_line(&["--config-file=/dev/zero"]).unwrap_err();
    assert_eq!(exit.code, 1);
    assert!(error_of(&exit).contains("at most 1048576 bytes"), "{}", error_of(&exit));
    let exit = load_line(&["--config-file=/"]).unwrap_err();
    assert_eq!(error_of(&exit), "read /: is a directory");
}

#[test]
fn files_are_refused_in_the_words_of_go() {
    let decoding = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ";
    for (text, error) in WRONG_TYPES {
        let exit = load_file(text).expect_err(text);
        assert_eq!((exit.code, error_of(&exit)), (1, format!("{decoding}{error}")), "{text}");
    }
    for (text, error) in [
        ("feature-gates: Foo=true", "unrecognized feature gate: Foo"),
        ("initial-cluster-state: foo", "unexpected clusterState \"foo\""),
        ("logger: \"\"", "unknown logger option \"\""),
        (
            "discovery-config: {token: a}",
            "both --discovery-token and --discovery-endpoints must be set",
        ),
    ] {
        assert_eq!(error_of(&load_file(text).expect_err(text)), error);
    }
    let exit = load_file("foo: [").expect_err("no YAML");
    assert!(error_of(&exit).starts_with("error converting YAML to JSON: yaml: "));
}

#[test]
fn a_files_malformed_urls_are_told_on_standard_error() {
    for (key, named) in
        [("listen-peer-urls", "listen-peer-urls"), ("advertise-client-urls", "advertise-peer-urls")]
    {
        let exit = load_file(&format!("{key}: foo")).expect_err(key);
        let text = format!(
            "unexpected error setting up {named}: URL scheme must be http, https, unix, or unixs: foo\n"
        );
        assert_eq!((exit.code, exit.stderr), (1, text));
    }
}

#[test]
fn ours_what_is_not_built_refuses_to_start() {
    for (line, what) in [
        (&["--auth-token=jwt,sign-method=RS256"] as &[&str], "--auth-token=jwt"),
        (&["--peer-auto-tls"], "--peer-auto-tls"),
        (&["--feature-gates=PriorityRequest=true"], "feature gate PriorityRequest=true"),
        (&["--feature-gates=LeaseCheckpoint=true"], "feature gate LeaseCheckpoint=true"),
    ] {
        let exit = load_line(line).expect_err("a refusal");
        let error = error_of(&exit);
        assert!(
            error.starts_with(what)
                && error.ends_with("not supported by this version of Quorate yet"),
            "{error}"
        );
        assert_eq!(exit.code, 1);
    }
    // What equals the default asks for nothing.
    config(&["--initial-cluster-state=new", "--peer-auto-tls=false", "--auth-token=simple"]);
    config(&["--feature-gates=PriorityRequest=false,AllBeta=true"]);
}

#[test]
fn ours_servers_for_srv_records_are_addresses() {
    let found = config(&["--discovery-srv=x", "--discovery-srv-servers=127.0.0.1:53,[::1]:5353"]);
    let records = found.cluster.discovery_srv.expect("a domain");
    let servers: Vec<_> = records.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.1:53", "[::1]:5353"]);
    assert_eq!(config(&["--discovery-srv=x"]).cluster.discovery_srv.expect("one").servers, []);
    let exit = load_line(&["--discovery-srv-servers=dns"]).expect_err("a refusal");
    let error = error_of(&exit);
    assert_eq!(error, "--discovery-srv-servers \"dns\" must be in the format \"address:port\"");
}

#[test]
fn ours_profiles_that_do_not_exist_keep_nobody_from_starting() {
    // etcd's sample of a configuration file asks for them.
    let messages = |line: &[&str]| -> Vec<String> {
        let loaded = load_line(line).unwrap_or_else(|exit| panic!("{exit:?}"));
        loaded.notices.into_iter().map(|notice| notice.message.into_owned()).collect()
    };
    let told = |line: &[&str]| messages(line).iter().any(|text| text.contains("/debug/pprof"));
    assert!(told(&["--enable-pprof"]));
    assert!(!told(&["--enable-pprof=false"]));
}

#[test]
fn a_first_start_compares_the_cluster_with_this_member() {
    let base = config(&["--data-dir=/d"]);
    let with = |initial: &str, advertise: &str| {
        let mut config = base.clone();
        config.cluster.initial = initial.to_owned();
        config.urls.advertise_peer = Url::parse_list(advertise).unwrap();
        config.bootstrap_members().map(|members| members.len()).map_err(|error| error.to_string())
    };
    let local = "http://localhost:2380";
    assert_eq!(with("default=http://localhost:2380", local), Ok(1));
    assert_eq!(
        with("default=http://[::1]:1,b=http://127.0.0.1:2", "http://[0:0:0:0:0:0:0:1]:1"),
        Ok(2)
    );
    for (initial, advertise, error) in [
        (
            "a=foo",
            local,
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: foo",
        ),
        (
            "a=http://localhost:2380",
            local,
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (
            "default=http://localhost:2381",
            local,
            "--initial-cluster has default=http://localhost:2381 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \"http://localhost:2380\" \
             != \"http://localhost:2381\")",
        ),
        (
            "default=http://localhost:2380,default=http://localhost:2382",
            local,
            "--initial-cluster has default=http://localhost:2382 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (len([\"http://localhost:2380\"]) != \
             len([\"http://localhost:2380\" \"http://localhost:2382\"]))",
        ),
        (
            "default=http://localhost:2380,b=http://localhost:2380",
            local,
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
    ] {
        assert_eq!(with(initial, advertise), Err(error.to_owned()));
    }
}
