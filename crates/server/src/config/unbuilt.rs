//! Settings whose feature is not built yet: a member that is asked for one refuses to start and
//! says so, rather than to run without what was asked for. Rows leave this table as features
//! arrive.

use super::features::Feature;
use super::settings::Settings;
use super::{BootstrapError, Config, TokenKind};

/// One row: the setting as the user wrote it, and whether this configuration asks for it.
type Row = (&'static str, fn(&Config) -> bool);

/// How a cluster is formed: asked only of a member that has no data yet. All others pass over these flags, which
/// stay in unit files for ever.
const FORMING_ROWS: &[Row] = &[
    ("--discovery-endpoints", |config| config.cluster.discovery.is_some()),
    ("--discovery-srv", |config| config.cluster.discovery_srv.is_some()),
];

const ROWS: &[Row] = &[
    ("--auth-token=jwt", |config| matches!(config.auth.token, TokenKind::Jwt(_))),
    ("--peer-cert-file and --peer-key-file", |config| !config.tls.peer.is_empty()),
    ("--peer-client-cert-auth", |config| config.tls.peer.client_cert_auth),
    ("--peer-trusted-ca-file", |config| config.tls.peer.trusted_ca_file.is_some()),
    ("--peer-crl-file", |config| config.tls.peer.crl_file.is_some()),
    ("--peer-auto-tls", |config| config.tls.peer.auto),
    ("https in --listen-peer-urls", |config| config.urls.listen_peer.iter().any(|u| u.is_secure())),
    ("--enable-distributed-tracing", |config| config.monitoring.tracing.is_some()),
    ("--memory-mlock", |config| config.store.memory_mlock),
    ("--corrupt-check-time", |config| config.store.corrupt_check_interval.is_some()),
];

/// Gates whose other position is not built. `LeaseCheckpointPersist` needs `LeaseCheckpoint`, which
/// stands for it.
const GATES: &[Feature] = &[
    Feature::CompactHashCheck,
    Feature::InitialCorruptCheck,
    Feature::LeaseCheckpoint,
    Feature::PriorityRequest,
    Feature::SetMemberLocalAddr,
    Feature::StopGRPCServiceOnDefrag,
];

impl Config {
    /// Refuses to form a cluster in a way that is not built.
    pub fn check_forming(&self) -> Result<(), BootstrapError> {
        match FORMING_ROWS.iter().find(|(_what, asked)| asked(self)) {
            Some((what, _asked)) => Err(BootstrapError::NotBuilt(what)),
            None => Ok(()),
        }
    }
}

/// Refuses a configuration that asks for what is not built.
pub(super) fn check(settings: &Settings, config: &Config) -> Result<(), String> {
    if let Some((what, _asked)) = ROWS.iter().find(|(_what, asked)| asked(config)) {
        return Err(format!("{what} is not supported by this version of Quorate yet"));
    }
    // Without a domain or endpoints these do nothing in etcd, either, but someone meant something
    // by them.
    if settings.is_given("discovery-srv-name") && !settings.text("discovery-srv-name").is_empty() {
        return Err(
            "--discovery-srv-name is not supported by this version of Quorate yet".to_owned()
        );
    }
    for gate in GATES {
        let on = config.features.is_enabled(*gate);
        if on != gate.default() {
            return Err(format!(
                "feature gate {}={on} is not supported by this version of Quorate yet",
                gate.name()
            ));
        }
    }
    Ok(())
}
