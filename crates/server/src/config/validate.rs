//! The checks between parsed values and a configuration, in etcd's order and with etcd's texts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::build;
use super::exit::Exit;
use super::features::Feature;
use super::settings::Settings;
use super::url::Url;
use super::{Config, SERVING_THREADS_MAX};
use crate::logging::{Level, Notice, OptionsError};
use crate::tls;

/// The one error that is logged twice.
pub(super) const ADVERTISE_CLIENT_URLS_UNSET: &str =
    "--advertise-client-urls is required when --listen-client-urls is set explicitly";

/// An election must not be further away than this: followers without a leader serve nobody.
const ELECTION_MILLISECONDS_MAX: u64 = 50_000;

/// Checks what makes a configuration invalid.
pub(super) fn check(
    settings: &Settings,
    from_command_line: bool,
    notices: &mut Vec<Notice>,
) -> Result<(), Exit> {
    if settings.text("discovery-fallback") == "proxy" {
        return Err(Exit::invalid(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ));
    }
    build::logging(settings).map_err(|error| match error {
        // etcd panics over a bad level, which is another exit code.
        OptionsError::Level { text } => {
            Exit::plain(2, &format!("panic: unrecognized level: {text:?}"))
        }
        other => Exit::invalid(other.to_string()),
    })?;
    urls(settings, notices).map_err(Exit::invalid)?;
    cluster(settings, from_command_line).map_err(Exit::invalid)?;
    ticks(settings).map_err(Exit::invalid)?;
    if from_command_line
        && settings.is_given("listen-client-urls")
        && !settings.is_given("advertise-client-urls")
    {
        return Err(Exit::invalid(ADVERTISE_CLIENT_URLS_UNSET));
    }
    features(settings, notices).map_err(Exit::invalid)?;
    tls_versions(settings).map_err(Exit::invalid)?;
    memory(settings).map_err(Exit::invalid)
}

fn urls(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), String> {
    let bind = |name: &str| {
        settings.urls(name).iter().try_for_each(Url::check_bind).map_err(|e| e.to_string())
    };
    bind("listen-peer-urls")?;
    bind("listen-client-urls")?;
    bind("listen-client-http-urls")?;
    if settings.urls("listen-client-http-urls").is_empty() {
        notices.push(Notice::new(
            Level::Warn,
            "Running http and grpc server on single port. This is not recommended for production.",
        ));
    }
    bind("listen-metrics-urls")?;
    for (name, form) in [
        ("initial-advertise-peer-urls", "must be \"host:port\""),
        (
            "advertise-client-urls",
            "must be in the format \"host:port\", \"unix:/path/to/socket\" or \"unixs:/path/to/socket\"",
        ),
    ] {
        let urls = settings.urls(name);
        urls.iter().try_for_each(Url::check_host).map_err(|error| {
            format!("--{name} {:?} {form} ({error})", super::texts(&urls).join(","))
        })?;
    }
    Ok(())
}

fn cluster(settings: &Settings, from_command_line: bool) -> Result<(), String> {
    let endpoints = settings.words("discovery-endpoints");
    let state = settings.text("initial-cluster-state");
    if !matches!(state.as_str(), "new" | "existing" | "") {
        return Err(format!("unexpected clusterState {state:?}"));
    }
    let ways = [
        !build::initial_cluster(settings, from_command_line).is_empty(),
        !settings.text("discovery-srv").is_empty(),
        !endpoints.is_empty(),
    ];
    if ways.into_iter().filter(|set| *set).count() > 1 {
        return Err("multiple discovery or bootstrap flags are set. Choose one of \
                    \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\""
            .to_owned());
    }
    if settings.text("discovery-token").is_empty() != endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".to_owned());
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return Err("--discovery-endpoints must not contain empty endpoints".to_owned());
    }
    for server in settings.words("discovery-srv-servers") {
        if server.parse::<SocketAddr>().is_err() {
            return Err(format!(
                "--discovery-srv-servers {server:?} must be in the format \"address:port\""
            ));
        }
    }
    Ok(())
}

fn ticks(settings: &Settings) -> Result<(), String> {
    let heartbeat = settings.unsigned("heartbeat-interval");
    let election = settings.unsigned("election-timeout");
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as \
             --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > ELECTION_MILLISECONDS_MAX {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than \
             {ELECTION_MILLISECONDS_MAX}ms"
        ));
    }
    Ok(())
}

fn features(settings: &Settings, notices: &mut Vec<Notice>) -> Result<(), String> {
    match settings.text("auto-compaction-mode").as_str() {
        "periodic" | "revision" => {}
        "" => return Err("undefined auto-compaction-mode".to_owned()),
        mode => return Err(format!("unknown auto-compaction-mode {mode:?}")),
    }
    if settings.bool("enable-distributed-tracing") {
        let rate = settings.signed("distributed-tracing-sampling-rate");
        let wrong = match rate {
            ..0 => "tracing sampling rate must be positive",
            0..=1_000_000 => "",
            _ => "tracing sampling rate must be less than 1000000",
        };
        if !wrong.is_empty() {
            return Err(format!("distributed tracing configurition is not valid: ({wrong})"));
        }
    }
    let gates = settings.gates("feature-gates");
    let checkpoint = gates.is_enabled(Feature::LeaseCheckpoint);
    let persist = gates.is_enabled(Feature::LeaseCheckpointPersist);
    if checkpoint && !persist {
        notices.push(Notice::new(
            Level::Warn,
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate \
             LeaseCheckpointPersist",
        ));
    }
    if persist && !checkpoint {
        return Err("enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                    LeaseCheckpoint"
            .to_owned());
    }
    let interval = settings.duration("compact-hash-check-time");
    if interval.positive().is_none() {
        return Err(format!("--compact-hash-check-time must be >0 (set to {interval})"));
    }
    if settings.text("name") == "default" {
        notices.push(
            Notice::new(
                Level::Warn,
                "it isn't recommended to use default name, please set a value for --name. Note that etcd \
                 might run into issue when multiple members have the same default name",
            )
            .with("name", "default"),
        );
    }
    Ok(())
}

fn tls_versions(settings: &Settings) -> Result<(), String> {
    let (min_text, max_text) = (settings.text("tls-min-version"), settings.text("tls-max-version"));
    let (min, max) = (build::tls_version(&min_text)?, build::tls_version(&max_text)?);
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        return Err(format!("min version ({min_text}) is greater than max version ({max_text})"));
    }
    if min == Some(super::TlsVersion::V13) && !settings.words("cipher-suites").is_empty() {
        return Err("cipher suites cannot be configured when only TLS1.3 is enabled".to_owned());
    }
    Ok(())
}

/// Bounds below which a member could not work: a request has to fit through every queue on its way.
fn memory(settings: &Settings) -> Result<(), String> {
    let request = settings.unsigned("max-request-bytes");
    for (name, least) in [
        ("engine-cache-bytes", 1 << 20),
        ("write-behind-bytes", request.max(1 << 20)),
        ("watch-buffer-bytes", 64 << 10),
        ("answer-memory-bytes", 16 << 20),
        ("proposals-in-flight-max", 1),
        ("proposals-in-flight-bytes-max", request.max(1 << 20)),
    ] {
        let given = settings.unsigned(name);
        // Defaults grow with the request size instead.
        if settings.is_given(name) && given < least {
            return Err(format!("--{name} must be at least {least} (set to {given})"));
        }
    }
    let threads = settings.unsigned("serving-threads");
    if threads > SERVING_THREADS_MAX as u64 {
        return Err(format!(
            "--serving-threads must be at most {SERVING_THREADS_MAX} (set to {threads})"
        ));
    }
    Ok(())
}

/// Checks what etcd only meets while it starts: these end as a failed start.
pub(super) fn check_start(config: &Config, notices: &mut Vec<Notice>) -> Result<(), String> {
    tls::check_cipher_suites(&config.tls.cipher_suites)?;
    let clients = config.urls.listen_client.iter().chain(&config.urls.listen_client_http);
    let given = !config.tls.client.is_empty();
    for url in clients {
        if url.is_secure() && !given && !config.tls.client.auto {
            return Err(format!(
                "TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme"
            ));
        }
        if !url.is_secure() && given {
            notices.push(ignored(
                "scheme is http or unix while key and cert files are present; ignoring key and cert files",
                url,
            ));
        }
        if !url.is_secure() && config.tls.client.client_cert_auth {
            notices.push(ignored(
                "scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for \
                 this URL",
                url,
            ));
        }
    }
    one_purpose_per_address(config)?;
    let metrics = &config.urls.listen_metrics;
    if metrics.iter().any(Url::is_secure) && !given && !config.tls.client.auto {
        return Err(
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"
                .to_owned(),
        );
    }
    Ok(())
}

fn ignored(message: &'static str, url: &Url) -> Notice {
    Notice::new(Level::Warn, message).with("client-url", url.as_str())
}

/// An address serves everything or HTTP only, not both.
fn one_purpose_per_address(config: &Config) -> Result<(), String> {
    let full: BTreeMap<_, _> =
        config.urls.listen_client.iter().map(|url| (url.address(), url)).collect();
    match config.urls.listen_client_http.iter().find(|url| full.contains_key(&url.address())) {
        Some(url) => Err(format!(
            "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"
        )),
        None => Ok(()),
    }
}
